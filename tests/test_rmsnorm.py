# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""RMSNorm: the LayerNorm kernels without mean and beta, and its module beside transformers' own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32RMSNorm

from integration import TtRMSNorm
from micro_ops.layernorm import RMSNormSingleCore
from tests.small import SMALL
from tests.tensors import (
    EPSILON,
    NARROW,
    WAYS,
    WIDE,
    assert_equal_but_near_ties,
    errors_of,
    random_input,
    random_weights,
    run_rmsnorm,
)
from weights_tools import Checkpoint, CheckpointError, write_synthetic


def test_bad_gamma_is_seen(device: Any) -> None:
    """A NaN and an Inf in a bfloat16 gamma, in the order of rounding in which the FPU would multiply by it."""
    x, (gamma, _) = random_input(NARROW), random_weights(NARROW[-1])
    gamma[0, 3], gamma[0, 64] = float("nan"), float("inf")
    y = TtRMSNorm(NARROW[-1], gamma.flatten(), epsilon=EPSILON, device=device, round_before_gamma=False)(x)
    assert set((~y.isfinite()).all(dim=0).nonzero().flatten().tolist()) == {3, 64}
    assert set((~y.isfinite()).any(dim=0).nonzero().flatten().tolist()) == {3, 64}


def test_golden_vs_torch() -> None:
    x, (gamma, _) = random_input((4, 128)), random_weights(128)
    reference = torch.nn.functional.rms_norm(x.double(), (128,), gamma.double().flatten(), EPSILON)
    torch.testing.assert_close(RMSNormSingleCore.golden(x, gamma, EPSILON), reference, rtol=1e-12, atol=1e-12)


@WAYS
@pytest.mark.parametrize("offset", [0.5, -30.0])
def test_rmsnorm(device: Any, shape: tuple[int, ...], offset: float) -> None:
    x, (gamma, _) = random_input(shape, offset), random_weights(shape[-1])
    assert_equal_but_near_ties(run_rmsnorm(device, x, gamma), RMSNormSingleCore.golden(x, gamma))


@pytest.mark.parametrize(
    "shape",
    [
        (1, 512),  # kv_a_layernorm
        (40, 37),  # both prime
        (1, 7168),  # hidden_size
    ],
    ids=str,
)
def test_rmsnorm_shapes(device: Any, shape: tuple[int, ...]) -> None:
    x, (gamma, _) = random_input(shape), random_weights(shape[-1])
    assert_equal_but_near_ties(run_rmsnorm(device, x, gamma), RMSNormSingleCore.golden(x, gamma))


@WAYS
def test_rounds_in_huggingfaces_order(device: Any, shape: tuple[int, ...]) -> None:
    x, (gamma, _) = random_input(shape), random_weights(shape[-1])
    huggingfaces = run_rmsnorm(device, x, gamma, round_before_gamma=True)
    golden = RMSNormSingleCore.golden(x, gamma, round_before_gamma=True)
    assert_equal_but_near_ties(huggingfaces, golden, ulps=2)
    changed = (huggingfaces != run_rmsnorm(device, x, gamma)).float().mean()
    assert 0.1 < changed < 0.4, "the two orders differ in about a quarter of the elements"


def test_rmsnorm_float32(device: Any) -> None:
    x, (gamma, _) = random_input(WIDE, dtype=torch.float32), random_weights(WIDE[-1], dtype=torch.float32)
    errors = errors_of(run_rmsnorm(device, x, gamma), RMSNormSingleCore.golden(x, gamma))
    assert errors.relative_norm <= 2.0**-22, errors


def test_zero_rows_stay_zero(device: Any) -> None:
    x = random_input(NARROW)
    x[3] = 0.0
    y = run_rmsnorm(device, x, random_weights(NARROW[-1])[0])
    assert (y[3] == 0).all()
    assert (y[4] != 0).any()


def test_module_does_what_transformers_does(device: Any) -> None:
    layer = DeepseekV32RMSNorm(1536, eps=1e-3).to(torch.bfloat16)
    with torch.no_grad():
        layer.weight.copy_(random_weights(1536)[0].flatten() * 0.08 + 0.44)  # as reported of q_a_layernorm
    x = random_input((2, 3, 1536))
    norm = TtRMSNorm.from_torch(layer, device=device)
    assert_equal_but_near_ties(norm(x), layer(x))
    assert (norm.epsilon, norm.launches) == (1e-3, 1)


@pytest.mark.parametrize("round_before_gamma", [True, False])
def test_module_without_gamma(device: Any, round_before_gamma: bool) -> None:
    x = random_input(NARROW)
    norm = TtRMSNorm(NARROW[-1], epsilon=EPSILON, device=device, round_before_gamma=round_before_gamma)
    assert_equal_but_near_ties(norm(x), RMSNormSingleCore.golden(x, None))


def test_module_refuses_weights_that_do_not_fit(device: Any) -> None:
    with pytest.raises(ValueError, match=r"gamma must have shape \(128,\).*\(1, 128\)"):
        TtRMSNorm(128, torch.ones(1, 128), epsilon=EPSILON, device=device)


def test_module_reads_a_checkpoint(device: Any, tmp_path: Path) -> None:
    folder = write_synthetic(tmp_path / "checkpoint", SMALL)
    prefix = "model.layers.3.self_attn.q_a_layernorm"
    norm, x = TtRMSNorm.from_checkpoint(folder, prefix, device=device), random_input((4, SMALL.q_lora_rank))
    gamma = Checkpoint(folder).tensor(f"{prefix}.weight")
    assert_equal_but_near_ties(norm(x), RMSNormSingleCore.golden(x, gamma, round_before_gamma=True))
    with pytest.raises(CheckpointError, match="must hold weight, but holds weight, bias"):
        TtRMSNorm.from_checkpoint(folder, "model.layers.3.self_attn.indexer.k_norm", device=device)


def test_module_refuses_what_is_no_rmsnorm(device: Any) -> None:
    with pytest.raises(ValueError, match="LayerNorm is a LayerNorm, which TtRMSNorm does not compute"):
        TtRMSNorm.from_torch(torch.nn.LayerNorm(64), device=device)
    with pytest.raises(ValueError, match="no number between 0 and 1"):
        TtRMSNorm.from_torch(torch.nn.ReLU(), device=device)
