# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""recognize: what a norm module computes, found by trying it. On the CPU alone."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm
from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4UnweightedRMSNorm
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d
from transformers.models.esmfold2.modeling_esmfold2 import EsmFold2RMSNorm
from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1RMSNormGated
from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaWeightlessRMSNorm
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.glm5_next.modeling_glm5_next import Glm5NextTextUnweightedRMSNorm
from transformers.models.hrm_text.modeling_hrm_text import HrmTextRMSNorm
from transformers.models.hy_v4.modeling_hy_v4 import HYV4UnweightedRMSNorm
from transformers.models.inkling2.modeling_inkling2 import Inkling2UnweightedRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.llama4.modeling_llama4 import Llama4TextL2Norm
from transformers.models.nanochat.modeling_nanochat import NanoChatRMSNorm
from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm, Qwen3NextRMSNormGated
from transformers.models.zamba2.modeling_zamba2 import Zamba2RMSNormGated

from integration import Formula, NotANormError, find_norms
from integration.formula import ANY_DTYPES, too_wide
from integration.recognize import LARGEST_L1, optional_arguments, recognize

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
# torch's own norms take bfloat16 with float32 weights; transformers' RMSNorms give float32 then, as the kernels don't.
OF_TORCH = ANY_DTYPES - {(FLOAT32, BFLOAT16)}
OF_TRANSFORMERS = OF_TORCH - {(BFLOAT16, FLOAT32)}
WITHOUT_WEIGHTS = {(BFLOAT16, BFLOAT16), (FLOAT32, FLOAT32)}


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
    ("module", "expected"),  # width, epsilon, subtract_mean, gamma, beta, gamma_offset, round_before_gamma, dtypes
    [
        (nn.LayerNorm(64, eps=1e-3), (64, 1e-3, True, "weight", "bias", 0, False, OF_TORCH)),
        (nn.LayerNorm(64, bias=False), (64, 1e-5, True, "weight", None, 0, False, OF_TORCH)),
        (nn.LayerNorm(64, elementwise_affine=False), (64, 1e-5, True, None, None, 0, False, WITHOUT_WEIGHTS)),
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
    fields = ("width", "epsilon", "subtract_mean", "gamma", "beta", "gamma_offset", "round_before_gamma", "dtypes")
    assert tuple(getattr(norm, field) for field in fields) == expected


@pytest.mark.parametrize(
    ("module", "round_inverse_rms"),
    [
        (DeepseekV4UnweightedRMSNorm(eps=1e-4), True),
        (Glm5NextTextUnweightedRMSNorm(eps=1e-4), True),
        (Inkling2UnweightedRMSNorm(eps=1e-4), True),
        (EsmFold2RMSNorm(eps=1e-4), False),
        (FalconMambaWeightlessRMSNorm(48, eps=1e-4), False),  # has a buffer of 48, which it does not read
        (HrmTextRMSNorm(eps=1e-4), False),
        (Llama4TextL2Norm(eps=1e-4), False),
        (NanoChatRMSNorm(eps=1e-4), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_norm_without_weights_has_its_inputs_width(module: nn.Module, round_inverse_rms: bool) -> None:
    assert recognize(module) == Formula(
        width=None,
        epsilon=1e-4,
        subtract_mean=False,
        gamma=None,
        beta=None,
        gamma_offset=0.0,
        round_before_gamma=False,
        dtypes=frozenset(WITHOUT_WEIGHTS),
        round_inverse_rms=round_inverse_rms,
    )


class Rounding(nn.Module):
    """An RMSNorm that rounds 1 / rms, and what `rounds_value` says, too, before it multiplies by its weight."""

    def __init__(self, rounds_value: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(96))
        self.eps = 1e-6
        self.rounds_value = rounds_value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inverse = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps).to(x.dtype)
        y = x * inverse if self.rounds_value else x.float() * inverse.float()
        return (y * self.weight).to(x.dtype)


@pytest.mark.parametrize("rounds_value", [False, True])
def test_tells_the_orders_of_rounding_apart(rounds_value: bool) -> None:
    norm = recognize(Rounding(rounds_value).to(BFLOAT16))
    assert (norm.round_inverse_rms, norm.round_before_gamma) == (True, rounds_value)


class OfOwnWidth(nn.Module):
    """Without weights, an RMSNorm of 64 elements alone, or with a gamma of 64 that is no Parameter."""

    def __init__(self, gamma: torch.Tensor | None) -> None:
        super().__init__()
        self.eps = 1e-6
        self.register_buffer("gamma", gamma)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, (64,), self.gamma, self.eps)


class Unit(nn.Module):
    """Divides by the norm, not the RMS: an RMSNorm for rows of one element."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().sum(-1, keepdim=True) + self.eps).sqrt()


class NarrowOnly(nn.Module):
    """Leaves rows alone that are wider than 512."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[-1] > 512 else nn.functional.rms_norm(x, x.shape[-1:], None, self.eps)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (OfOwnWidth(None), r"fails on a tensor of shape \(37,\)"),
        (OfOwnWidth(torch.ones(64)), r"fails on a tensor of shape \(37,\)"),
        (Unit(), "no LayerNorm or RMSNorm over the last dimension with eps 1e-06"),
        (NarrowOnly(), r"it gives rows of magnitude 0.001 of shape \(1030,\)"),
        (nn.InstanceNorm1d(64), r"fails on a tensor of shape \(64,\)"),  # (N, C, L): a LayerNorm by chance
        (nn.InstanceNorm2d(64), "no LayerNorm or RMSNorm"),
        (nn.BatchNorm1d(64, affine=False), "no LayerNorm or RMSNorm"),
        (nn.LocalResponseNorm(64), "no LayerNorm or RMSNorm"),
        (DetrFrozenBatchNorm2d(64), "no number between 0 and 1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_refuses_what_is_no_norm_of_any_width(module: nn.Module, reason: str) -> None:
    with pytest.raises(NotANormError, match=reason):
        recognize(module)


def test_what_has_no_weights_and_is_no_norm_is_tried_once_and_not_listed() -> None:
    """`find_norms` tries every module of a model."""
    calls: list[type[nn.Module]] = []

    class Leaky(nn.LeakyReLU):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(Leaky)
            return super().forward(x)

    class Dropout(nn.Dropout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(Dropout)
            return super().forward(x + torch.rand(x.shape))

    class WithBuffer(FalconMambaWeightlessRMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(WithBuffer)
            return super().forward(x)

    model = nn.Sequential(Leaky(0.1), Dropout(0.1), nn.Softmax(-1), nn.Identity(), WithBuffer(48), Leaky(0.1))
    seed = torch.get_rng_state()
    assert [found.name for found in find_norms(model)] == ["4"]
    once = Counter(calls)
    assert (once[Leaky], once[Dropout]) == (1, 1)
    assert torch.equal(torch.get_rng_state(), seed), "the model's own random numbers go on as they would have"
    calls.clear()
    model.append(WithBuffer(48))
    assert [found.name for found in find_norms(model)] == ["4", "6"]
    assert Counter(calls) == once, "of equal modules one is tried"
    model.append(WithBuffer(48)).get_submodule("7").weight.fill_(2.0)
    assert [found.name for found in find_norms(model)] == ["4", "6", "7"]
    assert calls.count(WithBuffer) == 3 * once[WithBuffer], "another buffer makes another module"


def patched() -> nn.Module:
    module = nn.LayerNorm(64)
    module.forward = lambda x: x + 1  # type: ignore[method-assign]
    return module


class LayerNormSubclass(nn.LayerNorm):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) + 1


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.LayerNorm((2, 64)), r"one shape \(W,\), but have \(2, 64\)"),
        (nn.LayerNorm(64).half(), "float16, but all must be bfloat16"),
        (nn.BatchNorm1d(64), "no LayerNorm or RMSNorm over the last dimension with eps 1e-05, 0.1"),
        (nn.GroupNorm(4, 64), "no LayerNorm or RMSNorm"),
        (nn.Sequential(nn.LayerNorm(64)), "it has submodules"),
        (nn.Linear(64, 64), "one shape"),
        (nn.ReLU(), "it keeps no number between 0 and 1 that could be its eps"),
        (OlmoLayerNorm(64), "it keeps no number between 0 and 1"),
        (
            HYV4UnweightedRMSNorm(),
            r"it gives \(2, 64, 1\) torch.float32 on cpu for a tensor of \(2, 64, 64\)",
        ),  # 1 / rms
        (Qwen3NextRMSNormGated(64), "needs gate beside hidden_states"),
        (NemotronLayerNorm1P(64).to(BFLOAT16), r"rounds otherwise.* 8\d\.\d% of its elements"),  # gamma + 1 in bfloat16
        (patched(), "forward is patched"),
        (LayerNormSubclass(64), "its class overrides __call__"),
        (torch.nn.utils.parametrizations.weight_norm(nn.LayerNorm(64), dim=None), "its weights are parametrized"),
        (nn.LayerNorm(100_000), r"rows of 100000 elements need 1622016 bytes of L1, but a core has 1572864 at most"),
        (nn.LayerNorm(64, eps=1e-40), "its eps, 1e-40, is below 1.17549e-38, the smallest normal float32"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_says_why_not(module: nn.Module, reason: str) -> None:
    with pytest.raises(NotANormError, match=reason):
        recognize(module)


class AlmostNorm(nn.LayerNorm):
    """A LayerNorm but for `change`, which is given it, the input and the LayerNorm's output."""

    def __init__(self, change: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor], keeps: object = 0) -> None:
        super().__init__(64)
        self.change = change
        self.keeps = keeps
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self, x, super().forward(x))


def count_in_attribute(module: Any, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    module.keeps += 1
    return y if module.keeps < 1000 else 2 * y


def count_in_list(module: Any, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    module.keeps.append(1)
    return y if len(module.keeps) < 1000 else 2 * y


def count_in_tensors(module: Any, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    module.keeps[0] += 1
    return y if module.keeps[0] < 1000 else 2 * y


def keep_generator(module: Any, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    next(module.keeps[0])
    return y


def count_in_buffer(module: Any, _: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    module.calls += 1
    return y if module.calls < 1000 else 2 * y


def clear_input(_: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.zero_()
    return y


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda m, _, y: nn.functional.dropout(y, 0.1, m.training), "in training, it", id="dropout"),
        pytest.param(lambda m, _, y: 2 * y if m.training else y, "in training, it gives", id="training"),
        pytest.param(lambda _, x, y: y.unsqueeze(0) if x.ndim == 2 else y, r"it gives \(1, 1, 64\)", id="adds a rank"),
        pytest.param(lambda _, x, y: x if x.ndim == 1 else y, r"shape \(64,\)", id="rank 1"),
        pytest.param(lambda _, x, y: 2 * y if x.ndim == 2 else y, r"shape \(1, 64\)", id="rank 2"),
        pytest.param(lambda _, x, y: 2 * y if x.ndim == 4 else y, r"shape \(2, 1, 2, 64\)", id="rank 4"),
        pytest.param(lambda _, x, y: 2 * y if x.ndim == 5 else y, r"shape \(1, 2, 1, 2, 64\)", id="rank 5"),
        pytest.param(lambda _, x, y: 2 * y if x.shape[:-1].numel() == 1 else y, r"shape \(64,\)", id="one row"),
        pytest.param(lambda _, x, y: 2 * y if len(x) > 500 else y, r"shape \(512, 64\)", id="many rows"),
        pytest.param(lambda _, x, y: 2 * y if len(x) == 3 else y, r"shape \(3, 64\)", id="batch"),
        pytest.param(lambda _, x, y: y - y.mean(-2, True) if x.ndim > 3 else y, "other values", id="mixes rows"),
        pytest.param(lambda _, x, y: y.clamp(-3, 3) if (x.abs() > 1e15).any() else y, "1e[+]16", id="clamps large"),
        pytest.param(lambda _, x, y: x if (x == 0).all() else y, "rows of magnitude 0", id="zeros"),
        pytest.param(lambda _, __, y: y.nan_to_num(), "a row with a NaN", id="hides NaN"),
        pytest.param(clear_input, "its forward changes its input", id="changes its input"),
        pytest.param(count_in_attribute, "its forward changes its keeps", id="counts in an attribute"),
        pytest.param(count_in_list, "its forward changes its keeps", id="counts in a list"),
        pytest.param(count_in_tensors, "its forward changes its keeps", id="counts in a list of tensors"),
        pytest.param(keep_generator, "its keeps can't be copied", id="keeps a generator"),
        pytest.param(count_in_buffer, "its forward changes its calls", id="counts in a buffer"),
    ],
)
def test_refuses_what_is_a_norm_at_times_only(change: Any, reason: str) -> None:
    generator = (number for number in range(1))
    kept = {count_in_list: [], count_in_tensors: [torch.zeros(1)], keep_generator: [generator]}.get(change, 0)
    module, before = AlmostNorm(change, kept), repr(kept)
    with pytest.raises(NotANormError, match=reason):
        recognize(module)
    assert repr(module.keeps) == before, "the module itself was changed"
    assert module.calls == 0


class Clamped(nn.Module):
    """An RMSNorm of what it clamps."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))
        self.eps = 1e-6
        self.limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clamped = x.float().clamp(-self.limit, self.limit)
        return (clamped * torch.rsqrt(clamped.square().mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


@pytest.mark.parametrize("limit", [10.0, 65504.0, 1e12])
def test_refuses_clamped_input(limit: float) -> None:
    with pytest.raises(NotANormError, match="rows of magnitude 1"):
        recognize(Clamped(limit))


def test_rank_that_the_module_does_not_take_is_no_fault() -> None:
    def three_dimensions(_: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert x.ndim == 3
        return y

    assert recognize(AlmostNorm(three_dimensions)).subtract_mean


def test_width_that_fits_in_bfloat16_alone() -> None:
    norm = replace(recognize(nn.LayerNorm(64)), width=100_000)
    assert too_wide(norm, BFLOAT16, LARGEST_L1) == ""
    assert "need 1622016 bytes" in too_wide(norm, FLOAT32, LARGEST_L1)


@pytest.mark.parametrize(
    ("module", "names"),
    [(nn.LayerNorm(64), ()), (FalconH1RMSNormGated(64), ("gate",)), (Zamba2RMSNormGated(64, 64), ("gate",))],
    ids=lambda value: type(value).__name__,
)
def test_tells_optional_arguments(module: nn.Module, names: tuple[str, ...]) -> None:
    recognize(module)
    assert optional_arguments(module) == names


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
    assert recognize(module).epsilon == 1e-5


def test_what_a_norm_keeps_beside_does_not_count_against_it() -> None:
    """A buffer without values, and a NaN: neither is changed by forward, though a NaN is not equal to itself."""
    module = nn.LayerNorm(64)
    module.register_buffer("empty", torch.empty(3, device="meta"))
    module.register_buffer("unknown", torch.tensor([torch.nan, 1.0]))
    module.ratio, module.history = float("nan"), [float("nan")]
    assert recognize(module).subtract_mean


class Table(nn.Module):
    """What a model looks up, and no norm: its forward takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))

    def forward(self) -> torch.Tensor:
        return self.weight


class NoNans(nn.LayerNorm):
    """Fails for some tensors of a rank that it takes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 2 and x.isnan().any():
            raise RuntimeError("NaN in the input")
        return super().forward(x)


@pytest.mark.parametrize(
    ("module", "reason"),
    [(Table(), "its forward takes no tensor"), (NoNans(64), r"fails on a tensor of shape \(3, 64\): NaN in the input")],
    ids=lambda value: type(value).__name__,
)
def test_refuses_in_one_line(module: nn.Module, reason: str) -> None:
    with pytest.raises(NotANormError, match=reason):
        recognize(module)
