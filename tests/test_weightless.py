# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Norms without weights, which take their width from each input, as DeepSeek-V4's; and the order of rounding of those,
which rounds 1 / rms. V4's norms with weights, too."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn
from transformers import AutoModel, DeepseekV4Config
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4RMSNorm, DeepseekV4UnweightedRMSNorm
from transformers.models.nanochat.modeling_nanochat import NanoChatRMSNorm

from commands.sweep_norms import randomized, run_model
from integration import NormInputError, TtLayerNorm, TtRMSNorm, find_norms, replace_norms
from micro_ops.layernorm import LayerNorm, LayerNormArgumentError, RMSNorm, reference
from model_comparison.metrics import compare
from tests.tensors import EPSILON, assert_equal_but_near_ties, errors_of, random_input, random_weights, upload

BFLOAT16 = torch.bfloat16


def assert_equal_but_ties(y: torch.Tensor, theirs: torch.Tensor, x: torch.Tensor) -> None:
    """That two norms of `x` (..., W) that round 1 / rms, and its product with x, to bfloat16 differ no more than they
    may.

    Where both have the same 1 / rms, the product is exact in float32, and they differ in exact ties alone: `y` takes
    them away from zero, torch to even. If 1 / rms is within 2^-21 of itself, 8 ULP of float32, from a tie of bfloat16,
    the two may round it to neighbours, since their sums and roots have errors of float32. That moves all of a row, by
    up to two ULP; one row in 4,000 is as near to a tie.
    """
    inverse = 1 / (x.double().square().mean(-1, keepdim=True) + EPSILON).sqrt()
    scale = inverse.to(BFLOAT16).double()
    spacing = 2.0 ** (scale.log2().floor() - 7)
    near_tie = (inverse - scale).abs() > spacing / 2 - inverse * 2.0**-21
    product = (x.double() * scale).float()
    tie = product.view(torch.int32) & 0xFFFF == 0x8000
    differs = y != theirs
    assert not (differs & ~tie & ~near_tie).any(), compare(y, theirs)
    assert near_tie.double().mean() <= 0.05
    assert (y.abs() >= theirs.abs())[~near_tie.expand(y.shape)].all(), "away from zero"
    assert compare(y, theirs).raw >= 1 - near_tie.double().mean(), "an ULP"


# q_b_norm's: 64 heads of each token; widths that leave half faces in part; a row alone, in pieces of 1,024 elements.
@pytest.mark.parametrize(
    "shape",
    [(1, 64, 2, 512), (40, 37), pytest.param((1, 7168), marks=pytest.mark.long)],
    ids=str,
)
def test_has_deepseek_v4s_bits_but_for_ties(device: Any, cores: int | None, shape: tuple[int, ...]) -> None:
    theirs = DeepseekV4UnweightedRMSNorm(eps=EPSILON)
    x = random_input(shape).transpose(-2, -3) if len(shape) == 4 else random_input(shape)  # as attention has it
    norm = TtRMSNorm.from_torch(theirs, device=device, cores=cores)
    y = norm(x)
    assert_equal_but_ties(y, theirs(x), x)
    once = reference.rms_norm(x.reshape(-1, shape[-1]), None).reshape(x.shape)
    assert 0.2 < (y != once).double().mean() < 0.8, "1 / rms is rounded: about half of the elements change"


# input_norm's, over all streams of a token, in float32
@pytest.mark.parametrize("shape", [(2, 16384), pytest.param((1, 28672), marks=pytest.mark.long)], ids=str)
def test_float32_rows_of_all_streams(device: Any, cores: int | None, shape: tuple[int, int]) -> None:
    theirs, x = DeepseekV4UnweightedRMSNorm(eps=EPSILON), random_input(shape, dtype=torch.float32)
    norm = TtRMSNorm.from_torch(theirs, device=device, cores=cores)
    errors = errors_of(norm(x), RMSNorm.golden(x, None))
    assert errors.relative_norm <= 2.0**-22, errors
    assert norm.formula.round_inverse_rms, "float32 has it rounded already"


def test_another_width_each_call(device: Any) -> None:
    """Of torch and of ttnn tensors, of an RMSNorm and a LayerNorm."""
    rms_norm = TtRMSNorm.from_torch(NanoChatRMSNorm(eps=EPSILON), device=device)
    layer_norm = TtLayerNorm(None, epsilon=EPSILON, device=device)
    assert "input's, eps=1e-06" in repr(rms_norm)
    for shape in ((3, 64), (2, 3, 37), (1, 1030)):
        x = random_input(shape)
        y = rms_norm(x)
        assert_equal_but_near_ties(y, RMSNorm.golden(x, None))
        assert_equal_but_near_ties(layer_norm(x), LayerNorm.golden(x, None, None))
        assert torch.equal(ttnn.to_torch(rms_norm(upload(x, device))), y)
    assert (rms_norm.launches, layer_norm.launches) == (6, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 200_000), r"rows of 200000 elements need \d+ bytes of L1, but a core has \d+"),
        (torch.zeros(2, 0), r"x must have shape \(\.\.\., W\) and dtype .*, but x\.shape=\(2, 0\)"),
        (torch.zeros(()), r"but x\.shape=\(\)"),
        (torch.zeros(2, 64).half(), r"x\.dtype=torch\.float16"),
    ],
    ids=["too wide", "no column", "no dimension", "float16"],
)
def test_what_a_call_can_not_be_given(device: Any, x: torch.Tensor, message: str) -> None:
    norm = TtRMSNorm(None, epsilon=EPSILON, device=device)
    with pytest.raises(NormInputError, match=message):
        norm(x)
    assert norm.launches == 0


def test_too_wide_for_l1_is_refused_of_a_ttnn_tensor_too(device: Any) -> None:
    norm = TtRMSNorm(None, epsilon=EPSILON, device=device)
    with pytest.raises(
        LayerNormArgumentError, match=r"rows of 200000 elements need \d+ bytes of L1, but a core has \d+"
    ):
        norm(upload(torch.zeros(1, 200_000), device))


def test_weights_have_a_width(device: Any) -> None:
    with pytest.raises(ValueError, match=r"width must be that of gamma, \(64,\), but is None"):
        TtRMSNorm(None, torch.ones(64), epsilon=EPSILON, device=device)


# --- Columns over chips ---


def test_columns_over_chips(mesh: Any) -> None:
    norm = TtRMSNorm(None, epsilon=EPSILON, device=mesh, mesh_axis=1, round_inverse_rms=True)
    across = norm.distribution.across
    for width in (64 * across, 40 * across):
        x = random_input((5, width))
        assert_equal_but_ties(norm(x), DeepseekV4UnweightedRMSNorm(eps=EPSILON)(x), x)
    if across > 1:
        with pytest.raises(
            NormInputError, match=f"width must be a multiple of the chips of axis 1, {across}, but is 63"
        ):
            norm(random_input((5, 63)))


# --- DeepSeek-V4 ---


def test_weights_in_float32_beside_bfloat16(device: Any) -> None:
    """As V4 keeps them. It rounds once, like the op, so that near-ties alone differ."""
    theirs = DeepseekV4RMSNorm(1024, eps=EPSILON)
    theirs.weight.data = random_weights(1024, dtype=torch.float32)[0].flatten()
    x = random_input((2, 3, 1024))
    norm = TtRMSNorm.from_torch(theirs, device=device)
    assert norm.weight.dtype == torch.float32
    assert not norm.formula.round_before_gamma
    assert_equal_but_near_ties(norm(x), RMSNorm.golden(x, norm.weight.detach()))
    assert_equal_but_near_ties(norm(x), theirs(x))


# The second layer has norms in its compressor, and in that of its indexer, for each four tokens.
SMALL_V4 = DeepseekV4Config(
    vocab_size=64,
    hidden_size=64,
    moe_intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    head_dim=32,
    qk_rope_head_dim=16,
    q_lora_rank=32,
    n_routed_experts=4,
    num_experts_per_tok=2,
    o_groups=2,
    o_lora_rank=16,
    index_n_heads=2,
    index_head_dim=16,
    index_topk=2,
    layer_types=["sliding_attention", "compressed_sparse_attention"],
    mlp_layer_types=["hash_moe", "moe"],
)


@pytest.mark.long
@torch.no_grad()
def test_a_models_norms_run_on_the_device(device: Any, cores: int | None, tmp_path: Path) -> None:
    """A small DeepSeek-V4 in bfloat16, but for its norms' weights, which stay float32 where it is saved and loaded."""
    torch.manual_seed(0)
    randomized(AutoModel.from_config(SMALL_V4)).save_pretrained(tmp_path)
    model, in_float32 = (AutoModel.from_pretrained(tmp_path, dtype=t).eval() for t in (BFLOAT16, torch.float32))
    expected, noiseless = run_model(model), run_model(in_float32)
    plan = find_norms(model)
    kinds = Counter(type(found.module).__name__ for found in plan)
    # q_b_norm and two input_norms a layer, the head's input_norm; q_a, kv and two of a layer, the compressors', norm
    assert kinds == {"DeepseekV4UnweightedRMSNorm": 2 * 3 + 1, "DeepseekV4RMSNorm": 2 * 4 + 2 + 1}
    assert "input's" in str(plan)
    with replace_norms(model, device, cores=cores) as replaced, pytest.MonkeyPatch.context() as patch:
        for cls in (DeepseekV4UnweightedRMSNorm, DeepseekV4RMSNorm):
            patch.delattr(cls, "forward")
        y = run_model(model)
        assert {name: norm.launches for name, norm in replaced.norms.items()} == {found.name: 1 for found in plan}
    # Two evaluations in bfloat16 whose roundings have nothing in common differ by sqrt(2) noise floors.
    assert compare(y, expected).relative_norm <= 2**0.5 * compare(expected, noiseless).relative_norm
