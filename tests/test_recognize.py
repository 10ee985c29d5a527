"""recognize: what a norm module computes, found by trying it. On the CPU alone."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm, Qwen3NextRMSNormGated

from integration.recognize import ANY_DTYPES, NotANormError, recognize

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
# torch's own norms take bfloat16 with float32 weights; transformers' RMSNorms give float32 then, as the kernels don't.
OF_TORCH = ANY_DTYPES - {(FLOAT32, BFLOAT16)}
OF_TRANSFORMERS = OF_TORCH - {(BFLOAT16, FLOAT32)}


class Odd(nn.Module):
    """A LayerNorm that calls everything otherwise, and keeps another number that could be an eps."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = 0.1
        self.register_buffer("tiny", torch.tensor(2e-3))
        self.scale = nn.Parameter(torch.ones(48))
        self.shift = nn.Parameter(torch.zeros(48))

    def forward(self, anything: torch.Tensor) -> torch.Tensor:
        x = anything.float()
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + self.tiny).sqrt()
        return (x * self.scale.float() + self.shift.float()).to(anything.dtype)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32], ids=str)
@pytest.mark.parametrize(
    ("module", "expected"),  # width, eps, subtract_mean, gamma, beta, gamma_offset, round_before_gamma, dtypes
    [
        (nn.LayerNorm(64, eps=1e-3), (64, 1e-3, True, "weight", "bias", 0, False, OF_TORCH)),
        (nn.LayerNorm(64, bias=False), (64, 1e-5, True, "weight", None, 0, False, OF_TORCH)),
        (nn.LayerNorm(64, elementwise_affine=False), (64, 1e-5, True, None, None, 0, False, OF_TORCH)),
        (nn.RMSNorm(64), (64, 2.0**-23, False, "weight", None, 0, False, OF_TORCH)),
        (DeepseekV3RMSNorm(1536, eps=1e-6), (1536, 1e-6, False, "weight", None, 0, True, OF_TRANSFORMERS)),
        (LlamaRMSNorm(7168, eps=1e-5), (7168, 1e-5, False, "weight", None, 0, True, OF_TRANSFORMERS)),
        (Gemma2RMSNorm(64, eps=1e-6), (64, 1e-6, False, "weight", None, 1, False, OF_TORCH)),
        (Qwen3NextRMSNorm(64, eps=1e-6), (64, 1e-6, False, "weight", None, 1, False, OF_TORCH)),
        (Odd(), (48, pytest.approx(2e-3), True, "scale", "shift", 0, False, OF_TORCH)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_finds_what_a_module_computes(module: nn.Module, expected: tuple[Any, ...], dtype: torch.dtype) -> None:
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module = module.to(dtype)
    for name, buffer in buffers.items():
        module.register_buffer(name, buffer)  # .to() would round eps
    norm = recognize(module)
    fields = ("width", "eps", "subtract_mean", "gamma", "beta", "gamma_offset", "round_before_gamma", "dtypes")
    assert tuple(getattr(norm, field) for field in fields) == expected


def patched() -> nn.Module:
    module = nn.LayerNorm(64)
    module.forward = lambda x: x + 1  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.LayerNorm((2, 64)), r"one shape \(W,\), but have \(2, 64\)"),
        (nn.LayerNorm(64).half(), "float16, but all must be bfloat16"),
        (nn.BatchNorm1d(64), "no LayerNorm or RMSNorm over the last dimension with eps 1e-05, 0.1"),
        (nn.GroupNorm(4, 64), "no LayerNorm or RMSNorm"),
        (nn.Sequential(nn.LayerNorm(64)), "it has submodules"),
        (nn.Linear(64, 64), "one shape"),
        (nn.ReLU(), "neither a weight nor a normalized_shape"),
        (OlmoLayerNorm(64), "neither a weight"),
        (Qwen3NextRMSNormGated(64), "missing 1 required positional argument: 'gate'"),
        (NemotronLayerNorm1P(64).to(BFLOAT16), r"rounds otherwise.* 8\d\.\d% of its elements"),  # gamma + 1 in bfloat16
        (patched(), "forward is patched"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_says_why_not(module: nn.Module, reason: str) -> None:
    with pytest.raises(NotANormError, match=reason):
        recognize(module)


def test_leaves_the_module_alone() -> None:
    module = LlamaRMSNorm(64).to(BFLOAT16)
    calls: list[object] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    weight, before, seed = module.weight, module.weight.detach().clone(), torch.get_rng_state()
    recognize(module)
    assert module.weight is weight
    assert torch.equal(weight, before)
    assert module.training
    assert not calls
    assert torch.equal(torch.get_rng_state(), seed), "the model's own random numbers go on as they would have"


def test_needs_no_values() -> None:
    """A plan can be made for a model whose weights are not loaded."""
    with torch.device("meta"):
        module = LlamaRMSNorm(64, eps=1e-5)
    assert recognize(module).eps == 1e-5
