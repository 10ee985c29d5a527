# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""find_norms and replace_norms: any model's norms, found by what they compute and replaced in place."""

import copy
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm

from integration import NormError, NormInputError, TtLayerNorm, TtRMSNorm, find_norms, replace_norms
from model_comparison.metrics import compare
from tests.small import SMALL
from tests.tensors import random_input
from weights_tools import write_synthetic

BFLOAT16 = torch.bfloat16


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = LlamaRMSNorm(64, eps=0.1)  # large enough to tell
        self.linear = nn.Linear(64, 64, bias=False)
        self.after = nn.LayerNorm(64, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(x + self.linear(self.before(x)))


class Model(nn.Module):
    """Two layers; the second one's `before` shares the first one's Parameter, and `final` is in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.layers[1].before.weight = self.layers[0].before.weight
        self.final = nn.LayerNorm(64)
        self.head = nn.Sequential(self.final, nn.Linear(64, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


NAMES = ["layers.0.before", "layers.0.after", "layers.1.before", "layers.1.after", "final"]


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    model = randomized(Model())
    return model.requires_grad_(False).eval()


def randomized[M: nn.Module](model: M) -> M:
    """In bfloat16, with weights that no norm could be mistaken for another with."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return model.to(BFLOAT16)


@contextmanager
def counted_forwards(model: nn.Module) -> Iterator[Counter[str]]:
    """How often the forward of each class of the model's norms runs, called how it may."""
    calls: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for cls in {type(found.module) for found in find_norms(model)}:

            def counting(self: Any, *args: Any, _forward: Any = cls.forward, **kwargs: Any) -> Any:
                calls[type(self).__name__] += 1
                return _forward(self, *args, **kwargs)

            patch.setattr(cls, "forward", counting)
        yield calls


# --- The plan ---


def test_plan_shows_all(model: Model) -> None:
    plan = find_norms(model)
    assert [found.name for found in plan] == NAMES
    assert [found.layer for found in plan] == [0, 0, 1, 1, None]
    first, final = plan[0], plan[-1]
    assert first.tied_to == ("layers.1.before",)
    assert final.names == ("final", "head.0")
    assert all(found.formula and not found.reason for found in plan)
    table = [" ".join(row.split()) for row in str(plan).splitlines()]
    assert "name class width eps dtype bias layer shared with supported" in table
    assert "layers.0.before LlamaRMSNorm 64 0.1 bfloat16 no 0 layers.1.before yes" in table
    assert "final LayerNorm 64 1e-05 bfloat16 yes head.0 yes" in table


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ({"include": "before"}, ["layers.0.before", "layers.1.before"]),  # a tail
        ({"include": "layers.*"}, NAMES[:4]),
        ({"include": ["final", "*.1.after"]}, ["layers.1.after", "final"]),
        ({"include": "head.0"}, ["final"]),  # by its other name
        ({"include": re.compile(r"\.[01]\.a")}, ["layers.0.after", "layers.1.after"]),
        ({"exclude": ["final", re.compile("before$")]}, ["layers.0.after", "layers.1.after"]),
        ({"classes": "*RMSNorm"}, ["layers.0.before", "layers.1.before"]),
        ({"classes": ["LayerNorm", "LlamaRMSNorm"], "layers": 1}, ["layers.1.before", "layers.1.after"]),
        ({"layers": range(1)}, ["layers.0.before", "layers.0.after"]),
    ],
    ids=str,
)
def test_selection(model: Model, selection: dict[str, Any], names: list[str]) -> None:
    assert [found.name for found in find_norms(model, **selection)] == names


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"include": ["before", "k_norm"]}, "include 'k_norm' matches no norm of Model, which has layers.0.before, "),
        ({"exclude": re.compile("^norm")}, "exclude '^norm' matches no norm"),
        ({"classes": ["LayerNorm", "T5*"]}, "class 'T5*' matches no norm"),
        ({"layers": [0, 2]}, "layer 2 matches no norm"),
        ({"include": "linear"}, "include 'linear' matches no norm"),
        ({"include": "final", "layers": 0}, "no norm is left by the selection"),
    ],
    ids=str,
)
def test_pattern_that_matches_nothing_is_an_error(model: Model, selection: dict[str, Any], message: str) -> None:
    with pytest.raises(NormError, match=re.escape(message)):
        find_norms(model, **selection)
    with pytest.raises(NormError, match=re.escape(message)):
        replace_norms(model, None, **selection)


def test_model_without_norms_is_an_error() -> None:
    with pytest.raises(NormError, match="Sequential has no norm below it"):
        find_norms(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


class Centered(nn.LayerNorm):
    """No norm by its name, and none that the kernels know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class PairNorm(nn.Module):
    """Called a norm, and made of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(64), nn.LayerNorm(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class NormedMlp(nn.Sequential):
    """Called a norm, and made of what is none."""


class ScaledNorm(nn.Module):
    """A norm with a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))
        self.activation = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, (64,), self.activation(self.weight))


class Gated(nn.LayerNorm):
    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        y = super().forward(x) * scale
        return y if gate is None else y * gate


def parametrized() -> nn.Module:
    module = nn.LayerNorm(64)
    torch.nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity())
    return module


@pytest.mark.parametrize(
    ("module", "listed"),
    [
        (Centered(64), {"0": "no: it is no LayerNorm or RMSNorm"}),
        (parametrized(), {"0": "no: its weights are parametrized"}),
        (torch.compile(nn.LayerNorm(64), backend="eager"), {"0": "no: torch.compile wraps it"}),
        (torch.jit.script(nn.LayerNorm(64)), {"0": "no: it is compiled by TorchScript"}),
        (torch.fx.symbolic_trace(Layer()), {"0.before": "no: a traced graph has taken its code", "0.after": "yes"}),
        (Gated(64), {"0": "yes, without gate, scale"}),
        (PairNorm(), {"0": "it holds 0.first, 0.second", "0.first": "yes", "0.second": "yes"}),
        (NormedMlp(nn.Linear(64, 64)), {"0": "no norm: it is made of other modules"}),
        (ScaledNorm(), {"0": "no: it has submodules"}),
        (nn.LayerNorm(64, eps=1e-40), {"0": "no: its eps, 1e-40, is below"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_whatever_is_a_norm_is_listed(module: nn.Module, listed: dict[str, str]) -> None:
    plan = find_norms(nn.Sequential(module))
    assert [found.name for found in plan] == list(listed)
    for found, start in zip(plan, listed.values(), strict=True):
        assert found.supported.startswith(start), found.supported
        assert found.supported[:40] in str(plan)


# --- The replacement ---


@torch.no_grad()
def test_runs_every_norm_on_the_device(device: Any, model: Model) -> None:
    x = random_input((3, 64))
    expected, each = model(x), {name: model.get_submodule(name)(x) for name in NAMES}
    with counted_forwards(model) as calls, replace_norms(model, device) as replaced:
        calls.clear()  # of finding them
        y = model(x)
        assert not calls, "the original forward was called"
        assert {name: norm.launches for name, norm in replaced.norms.items()} == dict.fromkeys(NAMES, 1)
        assert model.final is model.head[0], "a module in two places stays one module"
        types = [type(replaced.norms[name]) for name in NAMES]
        assert types == [TtRMSNorm, TtLayerNorm, TtRMSNorm, TtLayerNorm, TtLayerNorm]
        assert "layers.0.before   TtRMSNorm" in str(replaced)
        for name, norm in replaced.norms.items():
            assert compare(norm(x), each[name]).raw >= 0.99, name  # all but beta's cancellations
    assert compare(y, expected).relative_norm <= 2.0**-7, "one ULP"


def test_is_reversible(device: Any, model: Model) -> None:
    originals = {found.name: found.module for found in find_norms(model)}
    replaced = replace_norms(model, device, include="layers.*")
    assert all(isinstance(model.get_submodule(name), TtLayerNorm | TtRMSNorm) for name in NAMES[:4])
    assert model.final is originals["final"]
    replaced.restore()
    replaced.restore()
    with pytest.raises(ZeroDivisionError), replace_norms(model, device):
        1 / 0  # noqa: B018
    assert {found.name: found.module for found in find_norms(model)} == originals
    assert model.head[0] is model.final is originals["final"]


def test_twice_changes_nothing(device: Any, model: Model) -> None:
    with replace_norms(model, device) as first:
        modules = list(model.modules())
        with replace_norms(model, device) as second:
            assert list(model.modules()) == modules
            assert second.norms == first.norms
        assert list(model.modules()) == modules, "the second one has nothing to restore"
        assert "replaced" in str(find_norms(model))


def test_shares_parameters_and_uploads_each_once(device: Any, model: Model) -> None:
    parameters, state = dict(model.named_parameters()), model.state_dict()
    with replace_norms(model, device) as replaced:
        replaced_parameters = dict(model.named_parameters())
        assert replaced_parameters.keys() == parameters.keys()
        assert all(replaced_parameters[name] is parameter for name, parameter in parameters.items())
        assert model.state_dict().keys() == state.keys()
        first, second = (replaced.norms[f"layers.{layer}.before"] for layer in range(2))
        assert first.weight is second.weight
        assert first.gamma is second.gamma, "one upload"
        model.load_state_dict({name: value * 2 for name, value in state.items()})
        assert_follows(model, replaced.norms["layers.0.after"], random_input((2, 64)))
    assert torch.equal(model.layers[0].after.bias, state["layers.0.after.bias"])


def assert_follows(model: Model, norm: nn.Module, x: torch.Tensor) -> None:
    after = model.layers[0].after
    expected = nn.functional.layer_norm(x, (64,), after.weight, after.bias, 1e-3)
    assert compare(norm(x), expected).raw == 1.0


def test_follows_to_dtype_hooks_and_training(device: Any, model: Model) -> None:
    seen: list[str] = []
    after = model.layers[0].after
    early = after.register_forward_hook(lambda *_: seen.append("early"))
    with replace_norms(model, device) as replaced:
        norm = replaced.norms["layers.0.after"]
        norm.register_forward_hook(lambda *_: seen.append("late"))
        norm(random_input((2, 64)))
        assert seen == ["early", "late"]
        early.remove()
        norm(random_input((2, 64)))
        assert seen == ["early", "late", "late"]
        model.train()
        model.to(torch.float32)
        assert_follows(model, norm, random_input((2, 64)).float())
        with pytest.raises(ValueError, match=r"dtype torch\.float32, but .*bfloat16"):
            model.layers[0].before(random_input((2, 64)))  # HuggingFace's would give float32
    assert after.training
    assert len(after._forward_hooks) == 1


def test_follows_weights_kept_as_distance_from_one(device: Any) -> None:
    model = randomized(nn.Sequential(Qwen3NextRMSNorm(64, eps=1e-6)))
    x = random_input((4, 64))
    expected = model(x)
    with replace_norms(model, device) as replaced:
        assert compare(model(x), expected).raw == 1.0
        assert replaced.norms["0"].launches == 1


@pytest.mark.parametrize("compiled", ["norm", "layer", "model"])
@torch.no_grad()
def test_compiled_code_does_not_go_on_running(device: Any, model: Model, compiled: str) -> None:
    part = {"norm": model.final, "layer": model.layers[0], "model": model}[compiled]
    part.compile(backend="eager")
    x = random_input((3, 64))
    expected = model(x)  # compiles it
    with replace_norms(model, device) as replaced:
        y = model(x)
        assert {name: norm.launches for name, norm in replaced.norms.items()} == dict.fromkeys(NAMES, 1)
        assert compare(y, expected).relative_norm <= 2.0**-7, "one ULP"
    assert torch.equal(model(x), expected)
    assert {norm.launches for norm in replaced.norms.values()} == {1}, "restored"


def test_norm_in_a_wrapper_is_not_replaced(device: Any) -> None:
    model = nn.Sequential(torch.compile(nn.LayerNorm(64), backend="eager"), nn.LayerNorm(64)).to(BFLOAT16)
    with pytest.raises(NormError, match=r"can't replace 0 \(LayerNorm\): torch.compile wraps it"):
        replace_norms(model, device)
    with replace_norms(model, device, fallback=True) as replaced:
        model(random_input((2, 64)))
        assert replaced.left == {"0": 1}
        assert replaced.norms["1"].launches == 1


def test_replaces_what_a_norm_is_made_of(device: Any) -> None:
    model = nn.Sequential(PairNorm()).to(BFLOAT16)
    with replace_norms(model, device) as replaced:
        model(random_input((2, 64)))
        assert {name: norm.launches for name, norm in replaced.norms.items()} == {"0.first": 1, "0.second": 1}
    with pytest.raises(NormError, match=r"can't replace 0 \(PairNorm\): it holds 0.second, which are not selected"):
        replace_norms(model, device, exclude="second")


def test_weight_that_two_formulas_share(device: Any) -> None:
    """Qwen3-Next keeps gamma - 1 in its weight, Llama gamma."""
    model = nn.Sequential(Qwen3NextRMSNorm(64, eps=1e-6), LlamaRMSNorm(64, eps=1e-6))
    model[1].weight = model[0].weight
    randomized(model).requires_grad_(False)
    x = random_input((4, 64))
    expected = [norm(x) for norm in model]
    with replace_norms(model, device):
        assert [compare(norm(x), y).raw for norm, y in zip(model, expected, strict=True)] == [1.0, 1.0]


# --- Other arguments ---


@pytest.fixture
def gated() -> nn.Sequential:
    torch.manual_seed(0)
    return randomized(nn.Sequential(Gated(64))).requires_grad_(False)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((0,), {}), ((), {"x": 0}), ((0, None), {}), ((0,), {"gate": None, "scale": 1}), ((), {"x": 0, "scale": 1.0})],
    ids=str,
)
def test_takes_its_originals_arguments(
    device: Any, gated: nn.Sequential, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    x = random_input((3, 64))
    args = tuple(x if value == 0 else value for value in args)
    kwargs |= {"x": x} if "x" in kwargs else {}
    expected = gated[0](*args, **kwargs)
    with replace_norms(gated, device) as replaced:
        assert compare(gated[0](*args, **kwargs), expected).raw >= 0.99
        assert replaced.norms["0"].launches == 1


@pytest.mark.parametrize(
    "kwargs", [{"gate": random_input((3, 64))}, {"scale": 2.0}], ids=lambda value: next(iter(value))
)
def test_other_arguments_are_an_error_or_fall_back(device: Any, gated: nn.Sequential, kwargs: dict[str, Any]) -> None:
    x = random_input((3, 64))
    expected = gated[0](x, **kwargs)
    message = f"the kernels compute x alone, but {next(iter(kwargs))} was given, too"
    with replace_norms(gated, device), pytest.raises(NormInputError, match=message):
        gated[0](x, **kwargs)
    with replace_norms(gated, device, fallback=True) as replaced:
        assert torch.equal(gated[0](x, **kwargs), expected)
        assert (replaced.norms["0"].launches, replaced.norms["0"].fallbacks) == (0, 1)


def test_arguments_that_the_original_does_not_take_are_an_error(device: Any, gated: nn.Sequential) -> None:
    with replace_norms(gated, device, fallback=True):
        with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
            gated[0](random_input((3, 64)), mask=None)
        with pytest.raises(TypeError, match="missing a required argument: 'x'"):
            gated[0](gate=None)


# --- What the device can't do ---


class Unsupported(nn.Module):
    """A LayerNorm that the kernels can run, and a norm that they can't."""

    def __init__(self) -> None:
        super().__init__()
        self.good = nn.LayerNorm(64)
        self.batch_norm = nn.BatchNorm1d(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.batch_norm(self.good(x))


def test_unsupported_norm_raises(device: Any) -> None:
    model = Unsupported().eval()
    with pytest.raises(NormError, match=r"can't replace batch_norm \(BatchNorm1d\): it is no LayerNorm"):
        replace_norms(model, device)
    assert type(model.good) is nn.LayerNorm
    assert "no: it is no LayerNorm" in str(find_norms(model))
    with replace_norms(model, device, exclude="batch_norm") as replaced:
        assert list(replaced.norms) == ["good"]


def test_fallback_is_asked_for_and_counted(device: Any) -> None:
    model = Unsupported().to(BFLOAT16).eval()
    x = random_input((2, 64))
    with replace_norms(model, device, fallback=True) as replaced:
        model.good(x)
        model.batch_norm(x.float().to(BFLOAT16))
        model.good.to(torch.float16)
        y = model.good(x.half())  # no type of the kernels
        assert y.dtype == torch.float16
        assert (replaced.norms["good"].launches, replaced.norms["good"].fallbacks) == (1, 1)
        assert replaced.left == {"batch_norm": 1}
        rows = [line.split() for line in str(replaced).splitlines()]
        assert ["good", "TtLayerNorm", "1", "1"] in rows
        assert ["batch_norm", "torch,", "on", "the", "CPU", "0", "1"] in rows
    model.batch_norm(x)
    assert replaced.left == {"batch_norm": 1}


def test_refused_call_raises_without_fallback(device: Any, model: Model) -> None:
    with replace_norms(model, device, include="final") as replaced:
        with pytest.raises(ValueError, match=r"dtype torch\.bfloat16, but .*float16"):
            model.final(random_input((2, 64)).half())
        assert (replaced.norms["final"].launches, replaced.norms["final"].fallbacks) == (0, 0)


def test_weights_of_another_type_are_named(device: Any, model: Model) -> None:
    with replace_norms(model, device, include="final"):
        model.half()
        with pytest.raises(
            NormInputError, match=r"weights must be torch\.bfloat16 or torch\.float32, but are torch\.float16"
        ):
            model.final(random_input((2, 64)).half())


@pytest.mark.long
def test_row_that_this_device_can_not_hold_is_refused_beforehand(device: Any) -> None:
    available = ttnn.get_max_worker_l1_unreserved_size()
    # A bfloat16 row four times, gamma and beta in float32 are 16 bytes an element; 16 KiB of output are too much then.
    width = available // 16 // 1024 * 1024
    model = nn.Sequential(nn.LayerNorm(width))
    assert find_norms(model)[0].supported == "yes", "a core with a little more could hold it"
    with pytest.raises(NormError, match=f"rows of {width} elements need .* but a core has {available} at most"):
        replace_norms(model, device)


def test_our_own_errors_are_no_fallbacks(device: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ValueError("a fault of ours")

    with replace_norms(model, device, include="final", fallback=True) as replaced:
        monkeypatch.setattr(TtLayerNorm, "op", fault)
        with pytest.raises(ValueError, match="a fault of ours"):
            model.final(random_input((2, 64)))
        assert replaced.norms["final"].fallbacks == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps, lambda model: torch.save(model, BytesIO())])
def test_copy_is_one_line(device: Any, model: Model, copied: Callable[[Any], Any]) -> None:
    with replace_norms(model, device, include="final") as replaced:
        with pytest.raises(
            TypeError, match=r"^a TtLayerNorm is bound to its device, .* restore\(\) the model first.*$"
        ):
            copied(replaced.norms["final"])
        assert model.state_dict()["final.weight"] is not None
    copied(model.final)


def test_nothing_stays_replaced_after_an_error(device: Any, model: Model) -> None:
    model.final.to("meta")
    with pytest.raises(ValueError, match=r"loaded, but is .* on meta"):
        replace_norms(model, device)
    assert not any(isinstance(module, TtLayerNorm | TtRMSNorm) for module in model.modules())


# --- Whole models ---


def greedy(model: PreTrainedModel, tokens: int) -> torch.Tensor:
    prompt = torch.arange(2, 5).unsqueeze(0)
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )


def qwen3(_: Path) -> PreTrainedModel:
    """A family that no line of the project knows."""
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=64,
    )
    return randomized(AutoModelForCausalLM.from_config(config))


def deepseek(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        write_synthetic(folder, SMALL), dtype=BFLOAT16, attn_implementation="eager", experts_implementation="eager"
    )


@pytest.mark.parametrize(
    ("load", "norms", "steps"),
    [
        # input, post-attention, q and k of the one layer; final
        pytest.param(qwen3, 5, 2, id="qwen3", marks=pytest.mark.long),
        pytest.param(deepseek, 21, 2, id="v32", marks=pytest.mark.long),  # five of each of four layers; final
    ],
)
@torch.no_grad()
def test_generates_the_same_tokens(
    device: Any, tmp_path: Path, load: Callable[[Path], PreTrainedModel], norms: int, steps: int
) -> None:
    model = load(tmp_path / "checkpoint").eval()
    tokens = greedy(model, steps)
    logits = model(tokens).logits
    with counted_forwards(model) as calls, replace_norms(model, device) as replaced:
        calls.clear()  # of finding them
        assert torch.equal(greedy(model, steps), tokens)
        device_logits = model(tokens).logits
        assert not calls, "the original forward was called"
        assert len(replaced.norms) == norms
        assert {norm.launches for norm in replaced.norms.values()} == {steps + 1}, "prefill, steps, and all once more"
    # Two evaluations in bfloat16 whose roundings have nothing in common differ by sqrt(2) noise floors.
    noise_floor = compare(logits, model.float()(tokens).logits).relative_norm
    assert compare(device_logits, logits).relative_norm <= 2**0.5 * noise_floor


class ByName(nn.LayerNorm):
    """Takes its tensor by position or by any name."""

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        (x,) = (*args, *kwargs.values())
        return super().forward(x)


def test_a_name_that_the_signature_does_not_tell_falls_back(device: Any) -> None:
    model, x = nn.Sequential(ByName(64)), torch.randn(3, 64)
    expected = model[0](x)
    with (
        replace_norms(model, device),
        pytest.raises(NormInputError, match="the kernels compute args alone, but kwargs"),
    ):
        model[0](input=x)
    with replace_norms(model, device, fallback=True):
        assert torch.equal(model[0](input=x), expected)


def test_a_norm_without_weights_names_the_inputs_type(device: Any) -> None:
    model = nn.Sequential(nn.LayerNorm(64, elementwise_affine=False))
    with (
        replace_norms(model, device),
        pytest.raises(NormInputError, match=r"x must have .*but .*x\.dtype=torch\.float16"),
    ):
        model(torch.randn(3, 64).half())
