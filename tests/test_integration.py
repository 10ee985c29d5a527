# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""TtLayerNorm as a module: what it takes and gives, its weights on the device, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn
from torch import nn

from integration import TtLayerNorm
from micro_ops.layernorm import LayerNormSingleCore
from tests.small import SMALL
from tests.tensors import assert_equal_but_near_ties, random_input, random_weights, upload
from tt_device import Platform
from weights_tools import Checkpoint, CheckpointError, write_synthetic

WIDTH = 128  # index_head_dim
K_NORM = "model.layers.3.self_attn.indexer.k_norm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("checkpoint") / "small", SMALL)


def random_layer_norm(width: int = WIDTH, eps: float = 1e-6) -> nn.LayerNorm:
    layer = nn.LayerNorm(width, eps=eps, dtype=torch.bfloat16)
    gamma, beta = random_weights(width)
    layer.load_state_dict({"weight": gamma.flatten(), "bias": beta.flatten()})
    return layer


def assert_is_layer_norm(y: torch.Tensor, x: torch.Tensor, layer: nn.LayerNorm) -> None:
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    gamma, beta = layer.weight.detach(), layer.bias.detach()
    assert_equal_but_near_ties(y, LayerNormSingleCore.golden(x, gamma, beta, layer.eps), beta)


@pytest.mark.parametrize("shape", [(128,), (3, 128), (2, 3, 128), (2, 1, 3, 1, 128)], ids=str)
def test_takes_any_rank(device: Any, shape: tuple[int, ...]) -> None:
    layer, x = random_layer_norm(), random_input(shape)
    assert_is_layer_norm(TtLayerNorm.from_torch(layer, device=device)(x), x, layer)


def test_takes_no_rows(device: Any) -> None:
    norm = TtLayerNorm.from_torch(random_layer_norm(), device=device)
    assert norm(random_input((2, 0, 128))).shape == (2, 0, 128)
    assert norm.launches == 0


def test_takes_views(device: Any) -> None:
    """Transposed and expanded tensors lie otherwise in memory than their shape says."""
    norm, layer = TtLayerNorm.from_torch(random_layer_norm(), device=device), random_layer_norm()
    for x in (random_input((128, 5)).T, random_input((1, 128)).expand(4, 128), random_input((3, 256))[:, ::2]):
        assert_is_layer_norm(norm(x), x, layer)


def test_gives_back_ttnn_for_ttnn(device: Any) -> None:
    layer, x = random_layer_norm(), random_input((2, 3, 128))
    y = TtLayerNorm.from_torch(layer, device=device)(upload(x, device))
    assert isinstance(y, ttnn.Tensor)
    assert tuple(y.shape) == (2, 3, 128)
    assert_is_layer_norm(ttnn.to_torch(y), x, layer)


def test_takes_eps_and_width_from_the_layer(device: Any) -> None:
    layer, x = random_layer_norm(width=96, eps=0.5), random_input((4, 96))
    norm = TtLayerNorm.from_torch(layer, device=device)
    assert (norm.width, norm.epsilon) == (96, 0.5)
    assert_is_layer_norm(norm(x), x, layer)


def test_takes_layers_without_weights(device: Any) -> None:
    x = random_input((4, WIDTH))
    y = TtLayerNorm.from_torch(nn.LayerNorm(WIDTH, eps=1e-6, elementwise_affine=False), device=device)(x)
    golden = LayerNormSingleCore.golden(x, None, None, 1e-6)
    torch.testing.assert_close(y, golden.to(torch.bfloat16), rtol=2.0**-7, atol=0)


def test_takes_float32(device: Any) -> None:
    layer, x = nn.LayerNorm(WIDTH, eps=1e-6), random_input((4, WIDTH)).float() * 1.001
    with torch.no_grad():
        layer.bias.copy_(x[0])
    y = TtLayerNorm.from_torch(layer, device=device)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x).detach(), rtol=1e-5, atol=1e-6)


def test_uploads_weights_once(device: Any) -> None:
    norm = TtLayerNorm.from_torch(random_layer_norm(), device=device)
    gamma, beta = norm.gamma, norm.beta
    assert gamma.buffer_address() != beta.buffer_address()
    for tensor in (gamma, beta):
        assert tuple(tensor.shape) == (1, WIDTH)
        assert tensor.layout == ttnn.ROW_MAJOR_LAYOUT
        assert tensor.memory_config() == ttnn.DRAM_MEMORY_CONFIG
    norm(random_input((2, WIDTH)))
    norm(random_input((3, WIDTH)))
    assert norm.gamma is gamma
    assert norm.beta is beta
    assert norm.launches == 2
    assert "launches=2" in repr(norm)


def _by_copy(layer: nn.LayerNorm) -> None:
    with torch.no_grad():
        layer.bias.copy_(layer.bias + 1)


def _by_data(layer: nn.LayerNorm) -> None:
    layer.bias.data += 1


def _by_new_parameter(layer: nn.LayerNorm) -> None:
    layer.bias = nn.Parameter(layer.bias + 1)


def _by_load_state_dict(layer: nn.LayerNorm) -> None:
    layer.load_state_dict({"weight": layer.weight, "bias": layer.bias + 1})


@pytest.mark.parametrize("change", [_by_copy, _by_data, _by_new_parameter, _by_load_state_dict])
def test_changed_weights_are_never_stale(device: Any, change: Any) -> None:
    layer, x = random_layer_norm(), random_input((2, WIDTH))
    norm = TtLayerNorm.from_torch(layer, device=device)
    before = norm(x)
    change(layer)
    assert_is_layer_norm(norm(x), x, layer)
    assert not torch.equal(norm(x), before)


def test_has_no_silent_backward(device: Any) -> None:
    y = TtLayerNorm.from_torch(random_layer_norm(), device=device)(random_input((2, WIDTH)))
    assert y.requires_grad, "its weights do"
    with pytest.raises(NotImplementedError, match="no backward"):
        y.sum().backward()


def test_reads_a_checkpoint(device: Any, folder: Path) -> None:
    layer, x = nn.LayerNorm(WIDTH, eps=1e-6, dtype=torch.bfloat16), random_input((4, WIDTH))
    layer.load_state_dict(Checkpoint(folder).weights(K_NORM))
    norm = TtLayerNorm.from_checkpoint(folder, K_NORM, device=device)
    assert_is_layer_norm(norm(x), x, layer)


def test_refuses_weights_that_do_not_fit(device: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"beta must have shape \(128,\).*\(64,\)"):
        TtLayerNorm(128, torch.ones(128), torch.zeros(64), epsilon=1e-6, device=device)
    with pytest.raises(ValueError, match=r"one shape \(W,\), but have \(2, 64\)"):
        TtLayerNorm.from_torch(nn.LayerNorm((2, 64)), device=device)
    with pytest.raises(CheckpointError, match="must hold weight and bias, but holds weight"):
        TtLayerNorm.from_checkpoint(folder, "model.layers.3.input_layernorm", device=device)


def test_closed_device_is_one_line(platform: Platform, tmp_path: Path) -> None:
    program = f"""
import torch
from integration import TtLayerNorm, replace_norms
from tt_device import find_platform

with find_platform("{platform.arch}").open() as device:
    norm = TtLayerNorm.from_torch(torch.nn.LayerNorm(64), device=device)
calls = (
    lambda: norm(torch.ones(2, 64)),
    lambda: TtLayerNorm.from_torch(torch.nn.LayerNorm(64), device=device),
    lambda: replace_norms(torch.nn.Sequential(torch.nn.LayerNorm(64, elementwise_affine=False)), device, fallback=True),
)
for call in calls:
    try:
        call()
    except RuntimeError as error:
        print("refused:", error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    line = "refused: the norms' device is closed: restore() the model before that"
    assert [each for each in done.stdout.splitlines() if each.startswith(("refused", " ---"))] == [line] * 3
