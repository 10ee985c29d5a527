"""TtLayerNorm, and the block that it is compared in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn
from torch import nn
from transformers import AutoModelForCausalLM

from integration import TtLayerNorm
from integration import compare as comparison
from integration.block import Block
from integration.metrics import compare
from micro_ops.layernorm.op import LayerNormArgumentError, LayerNormSingleCore
from tests.small import SMALL
from weights_tools import Checkpoint, CheckpointError, write_synthetic

WIDTH = 128  # index_head_dim
K_NORM = "model.layers.3.self_attn.indexer.k_norm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("checkpoint") / "small", SMALL)


def random_layer_norm(width: int = WIDTH, eps: float = 1e-6) -> nn.LayerNorm:
    layer = nn.LayerNorm(width, eps=eps, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(width, generator=generator))
        layer.bias.copy_(torch.randn(width, generator=generator))
    return layer


def random_input(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


def assert_is_layer_norm(y: torch.Tensor, x: torch.Tensor, layer: nn.LayerNorm) -> None:
    golden = LayerNormSingleCore.golden(x, layer.weight.detach(), layer.bias.detach(), layer.eps)
    beta = layer.bias.detach().double().abs()
    errors = compare(y, golden, operands=(golden - layer.bias.detach().double()).abs() + beta)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert errors.scaled <= 1.0, errors
    assert errors.exact >= 0.99, errors


# --- The module ---


@pytest.mark.parametrize("shape", [(128,), (3, 128), (2, 3, 128), (2, 1, 3, 1, 128)], ids=str)
def test_takes_any_rank(device: Any, shape: tuple[int, ...]) -> None:
    layer, x = random_layer_norm(), random_input(*shape)
    assert_is_layer_norm(TtLayerNorm.from_torch(layer, device)(x), x, layer)


def test_takes_no_rows(device: Any) -> None:
    norm = TtLayerNorm.from_torch(random_layer_norm(), device)
    assert norm(random_input(2, 0, 128)).shape == (2, 0, 128)
    assert norm.launches == 0


def test_takes_views(device: Any) -> None:
    """Transposed and expanded tensors lie otherwise in memory than their shape says."""
    norm, layer = TtLayerNorm.from_torch(random_layer_norm(), device), random_layer_norm()
    for x in (random_input(128, 5).T, random_input(1, 128).expand(4, 128), random_input(3, 256)[:, ::2]):
        assert_is_layer_norm(norm(x), x, layer)


def test_gives_back_ttnn_for_ttnn(device: Any) -> None:
    layer, x = random_layer_norm(), random_input(2, 3, 128)
    on_device = ttnn.from_torch(x, layout=ttnn.ROW_MAJOR_LAYOUT, device=device, memory_config=ttnn.DRAM_MEMORY_CONFIG)
    y = TtLayerNorm.from_torch(layer, device)(on_device)
    assert isinstance(y, ttnn.Tensor)
    assert tuple(y.shape) == (2, 3, 128)
    assert_is_layer_norm(ttnn.to_torch(y), x, layer)


def test_takes_eps_and_width_from_the_layer(device: Any) -> None:
    layer, x = random_layer_norm(width=96, eps=0.5), random_input(4, 96)
    norm = TtLayerNorm.from_torch(layer, device)
    assert (norm.width, norm.eps) == (96, 0.5)
    assert_is_layer_norm(norm(x), x, layer)


def test_takes_layers_without_weights(device: Any) -> None:
    x = random_input(4, WIDTH)
    y = TtLayerNorm.from_torch(nn.LayerNorm(WIDTH, eps=1e-6, elementwise_affine=False), device)(x)
    golden = LayerNormSingleCore.golden(x, None, None, 1e-6)
    torch.testing.assert_close(y, golden.to(torch.bfloat16), rtol=2.0**-7, atol=0)


@pytest.mark.usefixtures("float32")
def test_takes_float32(device: Any) -> None:
    layer, x = nn.LayerNorm(WIDTH, eps=1e-6), random_input(4, WIDTH).float() * 1.001
    with torch.no_grad():
        layer.bias.copy_(x[0])
    y = TtLayerNorm.from_torch(layer, device)(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x).detach(), rtol=1e-5, atol=1e-6)


def test_uploads_weights_once(device: Any) -> None:
    norm = TtLayerNorm.from_torch(random_layer_norm(), device)
    gamma, beta = norm.gamma, norm.beta
    assert gamma.buffer_address() != beta.buffer_address()
    for tensor in (gamma, beta):
        assert tuple(tensor.shape) == (1, WIDTH)
        assert tensor.layout == ttnn.ROW_MAJOR_LAYOUT
        assert tensor.memory_config() == ttnn.DRAM_MEMORY_CONFIG
    norm(random_input(2, WIDTH))
    norm(random_input(3, WIDTH))
    assert norm.gamma is gamma
    assert norm.beta is beta
    assert norm.launches == 2
    assert "launches=2" in repr(norm)


def test_reads_a_checkpoint(device: Any, folder: Path) -> None:
    layer, x = nn.LayerNorm(WIDTH, eps=1e-6, dtype=torch.bfloat16), random_input(4, WIDTH)
    layer.load_state_dict(Checkpoint(folder).tensors(K_NORM))
    norm = TtLayerNorm.from_checkpoint(folder, K_NORM, device)
    assert_is_layer_norm(norm(x), x, layer)


def test_refuses_what_does_not_fit(device: Any, folder: Path) -> None:
    norm = TtLayerNorm.from_torch(random_layer_norm(), device)
    with pytest.raises(ValueError, match=r"\(\.\.\., 128\).*\(4, 64\)"):
        norm(random_input(4, 64))
    with pytest.raises(ValueError, match=r"bfloat16 or float32.*torch\.float16"):
        norm(random_input(4, 128).half())
    with pytest.raises(LayerNormArgumentError, match="layout"):
        norm(ttnn.from_torch(random_input(32, 128), layout=ttnn.TILE_LAYOUT, device=device))
    with pytest.raises(ValueError, match=r"beta must have shape \(128,\).*\(64,\)"):
        TtLayerNorm(128, torch.ones(128), torch.zeros(64), 1e-6, device)
    with pytest.raises(ValueError, match=r"normalized_shape.*\(2, 64\)"):
        TtLayerNorm.from_torch(nn.LayerNorm((2, 64)), device)
    with pytest.raises(CheckpointError, match="must hold weight and bias, but holds weight"):
        TtLayerNorm.from_checkpoint(folder, "model.layers.3.input_layernorm", device)
    assert norm.launches == 0


# --- The block ---


@pytest.mark.parametrize("number", [2, 3], ids=["dense", "experts"])
def test_block_is_huggingfaces(folder: Path, number: int) -> None:
    """A layer on its own gives what it gives inside the whole model, loaded by transformers itself."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager", experts_implementation="eager"
    )
    tokens = torch.arange(20).unsqueeze(0)
    hidden: list[torch.Tensor] = []
    model.model.layers[number].register_forward_hook(lambda _, args, output: hidden.extend((args[0], output)))
    with torch.no_grad():
        model(tokens)
    taps = Block(Checkpoint(folder), number).run(hidden[0])
    torch.testing.assert_close(taps.output, hidden[1], rtol=0, atol=0)


def test_block_refuses_other_models(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"0 to 3 .*but is 4"):
        Block(checkpoint, 4)
    with pytest.raises(CheckpointError, match=r"experts\.8\.gate_proj.*16 experts"):
        Block(_with(checkpoint, n_routed_experts=16), 3)
    with pytest.raises(CheckpointError, match=r"layer 3 does not fit config\.json"):
        Block(_with(checkpoint, index_head_dim=64), 3)
    with pytest.raises(CheckpointError, match=r"'deepseek_v32'.*'llama'"):
        Block(_with(checkpoint, model_type="llama"), 3)


def _with(checkpoint: Checkpoint, **config: object) -> Checkpoint:
    other = Checkpoint(checkpoint.folder)
    other.config |= config
    return other


def test_comparison_holds_and_ran_the_device(device: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = nn.LayerNorm.forward
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: (calls.append(x.shape), forward(self, x))[1])
    result = comparison.compare_block(Block(Checkpoint(folder), 3), device)
    assert result.holds, result
    assert result.tokens == 40 > result.index_topk == 8
    assert [tap.launches for tap in result.taps] == [1] * 5
    assert calls == [(1, 40, 128)], "the reference runs torch's forward once, the replaced block not at all"


def _swapped(norm: TtLayerNorm) -> None:
    norm.gamma, norm.beta = norm.beta, norm.gamma


def _without_beta(norm: TtLayerNorm) -> None:
    norm.beta = ttnn.zeros_like(norm.beta)


def _scaled(norm: TtLayerNorm) -> None:
    norm.gamma = norm._upload(ttnn.to_torch(norm.gamma) * 1.02)


def _other_eps(norm: TtLayerNorm) -> None:
    norm.eps = 0.1


@pytest.mark.parametrize("fault", [_swapped, _without_beta, _scaled, _other_eps])
def test_comparison_finds_a_wrong_norm(device: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    def from_torch(layer: nn.LayerNorm, device: Any) -> TtLayerNorm:
        norm = TtLayerNorm(128, layer.weight, layer.bias, layer.eps, device)
        fault(norm)
        return norm

    monkeypatch.setattr(TtLayerNorm, "from_torch", from_torch)
    result = comparison.compare_block(Block(Checkpoint(folder), 3), device)
    failed = [tap.name for tap in result.taps if not tap.holds]
    assert failed[:2] == ["k_norm vs float64", "k_norm vs HuggingFace"], result


def test_comparison_finds_a_norm_that_did_not_run(device: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TtLayerNorm, "forward", lambda self, x: nn.functional.layer_norm(x, (128,), *self.host, 1e-6))

    def from_torch(layer: nn.LayerNorm, device: Any) -> TtLayerNorm:
        norm = TtLayerNorm(128, layer.weight, layer.bias, layer.eps, device)
        norm.host = (layer.weight, layer.bias)
        return norm

    monkeypatch.setattr(TtLayerNorm, "from_torch", from_torch)
    result = comparison.compare_block(Block(Checkpoint(folder), 3), device)
    assert not result.holds
    assert result.taps[0].remark == "the device ran no launch"


def test_choice_holds_only_where_the_scores_leave_it_open(folder: Path) -> None:
    reference = Block(Checkpoint(folder), 3).run(random_input(1, 40, SMALL.hidden_size))
    assert comparison._choice(reference, reference, 1).holds
    other = reference.chosen.clone()
    other[0, -1] = torch.arange(8, dtype=other.dtype)  # the first eight keys, whatever their scores
    wrong = comparison._choice(replace(reference, chosen=other), reference, 1)
    assert not wrong.holds
    assert wrong.remark == "1 of 40 queries chose otherwise"
