"""find_norms and replace_norms: any model's norms, found by what they compute and replaced in place."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm

from integration import NormError, TtLayerNorm, TtRMSNorm, find_norms, replace_norms
from integration.metrics import compare
from tests.small import SMALL, SMALL_V3
from weights_tools import Geometry, default_checkpoint, write_synthetic

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


def random_input(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(BFLOAT16)


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
    assert all(found.norm and not found.reason for found in plan)
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


# --- The replacement ---


@torch.no_grad()
def test_runs_every_norm_on_the_device(device: Any, model: Model) -> None:
    x = random_input(3, 64)
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
        assert_follows(model, replaced.norms["layers.0.after"], random_input(2, 64))
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
        norm(random_input(2, 64))
        assert seen == ["early", "late"]
        early.remove()
        norm(random_input(2, 64))
        assert seen == ["early", "late", "late"]
        model.train()
        model.to(torch.float32)
        assert_follows(model, norm, random_input(2, 64).float())
        with pytest.raises(ValueError, match=r"dtype torch\.float32, but .*bfloat16"):
            model.layers[0].before(random_input(2, 64))  # HuggingFace's would give float32
    assert after.training
    assert len(after._forward_hooks) == 1


def test_follows_weights_kept_as_distance_from_one(device: Any) -> None:
    model = randomized(nn.Sequential(Qwen3NextRMSNorm(64, eps=1e-6)))
    x = random_input(4, 64)
    expected = model(x)
    with replace_norms(model, device) as replaced:
        assert compare(model(x), expected).raw == 1.0
        assert replaced.norms["0"].launches == 1


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
    x = random_input(2, 64)
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
            model.final(random_input(2, 64).half())
        assert (replaced.norms["final"].launches, replaced.norms["final"].fallbacks) == (0, 0)


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


def deepseek(geometry: Geometry) -> Callable[[Path], PreTrainedModel]:
    return lambda folder: from_pretrained(write_synthetic(folder, geometry))


def embedded(_: Path) -> PreTrainedModel:
    """The checkpoint that comes with the project: DeepSeek-V3.2's own norm widths."""
    return from_pretrained(default_checkpoint())


def from_pretrained(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=BFLOAT16, attn_implementation="eager", experts_implementation="eager"
    )


@pytest.mark.parametrize(
    ("load", "norms", "steps"),
    [
        pytest.param(qwen3, 5, 3, id="qwen3"),  # input, post-attention, q and k of the one layer; final
        pytest.param(deepseek(SMALL_V3), 17, 3, id="v3"),  # four of each of four layers; final
        pytest.param(deepseek(SMALL), 21, 3, id="v32"),  # with k_norm
        pytest.param(embedded, 21, 2, id="embedded"),
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
