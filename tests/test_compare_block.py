# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The comparison of a block: what holds, what it finds, and scripts/compare_block.py as a user runs it."""

import gzip
import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import ttnn
import typer
from loguru import logger
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from commands.compare_block import main
from integration import NormError, Replacement, TtNorm, find_norms, replace_norms
from micro_ops.layernorm import LayerNormSingleCore, RMSNormSingleCore
from model_comparison.activations import Choice, NormActivation, Run
from model_comparison.block import Block
from model_comparison.block_input import default_tokens, drawn_input
from model_comparison.choices import Flips, needed_move
from model_comparison.collect import collect
from model_comparison.judge import Bounds, Comparison, judge
from model_comparison.metrics import compare
from model_comparison.recording import RecordedNorm, Recording
from model_comparison.report import read_report
from tests.child import wait_for
from tests.compared import K_NORM, NORMS, V3_NORMS, inject, run_op, run_script
from tests.small import SMALL
from tests.tensors import hidden_states, upload
from tt_device import Platform
from weights_tools import Checkpoint, write_synthetic

# --- What holds ---


@pytest.mark.parametrize(
    ("model", "layer", "isolated"),
    [
        ("v32", 3, False),
        ("v32", 0, False),
        ("v3", 3, False),
        ("v32", 3, True),  # the norms alone: what comes after them makes no difference
    ],
)
def test_all_norms_hold_on_the_device(
    device: Any,
    cores: int | None,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    layer: int,
    isolated: bool,
) -> None:
    block = Block(Checkpoint(folders[model]), layer)
    calls = count_forwards(block.layer, monkeypatch)
    result = judge(collect(block, device, isolated=isolated, cores=cores))
    assert result.holds, result
    assert result.launches == dict.fromkeys(NORMS[model], 1)
    assert calls == dict.fromkeys(NORMS[model], 1), "the reference runs each original once, the device's run none"
    float64 = [verdict for verdict in result.verdicts if verdict.reference == "float64"]
    assert [verdict.name for verdict in float64] == NORMS[model], "in order of execution"
    assert all(verdict.launches == 1 for verdict in float64)
    assert all(verdict.errors and verdict.errors.relative_norm < 1.1 * verdict.noise_floor for verdict in float64), (
        result
    )
    others = [
        verdict.name
        for verdict in result.verdicts
        if verdict.reference == "HuggingFace" and verdict.name not in NORMS[model]
    ]
    indexer, router = model == "v32", layer == 3
    if isolated:
        assert not others
        assert not result.flips
    else:
        assert set(others) - {"block output, flips too"} == {
            *(["indexer scores"] if indexer else []),
            *(["router scores"] if router else []),
            "block output",
        }
        assert [flips.name for flips in result.flips] == ["indexer"] * indexer + ["router"] * router
        assert result.verdicts[-1].launches == len(NORMS[model])
        assert all(verdict.noise_floor > 0 for verdict in result.verdicts), "bfloat16 costs something everywhere"


def count_forwards(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the forward of each of the layer's own norms runs, called how it may; not of copies."""
    calls: Counter[str] = Counter()
    names = {id(module): name for name, module in layer.named_modules() if "Norm" in type(module).__name__}

    def counted(forward: Callable[..., Any]) -> Callable[..., Any]:
        def count(self: nn.Module, x: torch.Tensor) -> Any:
            if id(self) in names:
                calls[names[id(self)]] += 1
            return forward(self, x)

        return count

    for norm_class in {type(layer.get_submodule(name)) for name in names.values()}:
        monkeypatch.setattr(norm_class, "forward", counted(norm_class.forward))
    return calls


def test_noise_floor_is_of_float32(device: Any, block: Block) -> None:
    given = drawn_input(block, SMALL.index_topk)  # so few tokens that no indexer flips
    result = judge(collect(block, device, ["k_norm"], block_input=given))
    x = given.hidden_states
    reference, float32 = block.run(x), Block(block.checkpoint, 3, torch.float32).run(x.float())
    same = ~(reference.choice("router").chosen != float32.choice("router").chosen).any(-1)
    assert same.any()
    output = next(verdict for verdict in result.verdicts if verdict.name == "block output")
    assert output.noise_floor == compare(reference.output[same], float32.output[same]).relative_norm


def test_only_the_norms_asked_for(device: Any, block: Block) -> None:
    result = judge(collect(block, device, ["k_norm"]))
    assert result.launches == {K_NORM: 1}
    assert {verdict.name for verdict in result.verdicts} >= {K_NORM, "indexer scores", "router scores", "block output"}
    assert not {verdict.name for verdict in result.verdicts} & set(V3_NORMS)
    assert block.layer.get_submodule(K_NORM).__class__ is nn.LayerNorm, "the original is back"
    with pytest.raises(NormError, match="'q_norm' matches no norm"):
        judge(collect(block, device, ["k_norm", "q_norm"]))


def test_default_tokens_leave_keys_out(folders: dict[str, Path]) -> None:
    v32, v3 = (Block(Checkpoint(folders[model]), 0) for model in ("v32", "v3"))
    assert default_tokens(v32) == SMALL.index_topk + 4
    v32.layer.self_attn.indexer.index_topk = 2048  # DeepSeek's own: a sequence that long takes hours
    assert default_tokens(v32) == default_tokens(v3) == 16


# --- What it finds ---


def _scaled(norm: TtNorm, factor: float) -> ttnn.Tensor:
    return upload(ttnn.to_torch(norm.gamma).float() * factor, norm.device)


def _mean_subtracted(norm: TtNorm, x: ttnn.Tensor) -> ttnn.Tensor:
    return LayerNormSingleCore.op(x, norm.gamma, None, epsilon=norm.epsilon)


def _mean_left(norm: TtNorm, x: ttnn.Tensor) -> ttnn.Tensor:
    return RMSNormSingleCore.op(x, norm.gamma, epsilon=norm.epsilon)


FAULTS: dict[str, tuple[str, Callable[..., ttnn.Tensor]]] = {
    "k_norm: none": (K_NORM, run_op),
    "k_norm: weights swapped": (K_NORM, lambda n, x: run_op(n, x, gamma_tensor=n.beta, beta_tensor=n.gamma)),
    "k_norm: no beta": (K_NORM, lambda n, x: run_op(n, x, beta_tensor=None)),
    "k_norm: 1% too large": (K_NORM, lambda n, x: run_op(n, x, gamma_tensor=_scaled(n, 1.01))),
    "k_norm: eps 1e-3": (K_NORM, lambda n, x: run_op(n, x, epsilon=1e-3)),
    "k_norm: no mean": (K_NORM, _mean_left),
    "RMSNorm: none": (V3_NORMS[1], run_op),
    "RMSNorm: 1% too large": (V3_NORMS[1], lambda n, x: run_op(n, x, gamma_tensor=_scaled(n, 1.01))),
    "RMSNorm: eps 1e-3": (V3_NORMS[1], lambda n, x: run_op(n, x, epsilon=1e-3)),
    "RMSNorm: mean": (V3_NORMS[1], _mean_subtracted),
    "RMSNorm: rounds once": (V3_NORMS[1], lambda n, x: run_op(n, x, round_before_gamma=False)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_finds_a_wrong_norm(device: Any, block: Block, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    name, op = FAULTS[fault]
    inject(monkeypatch, name, op)
    result = judge(collect(block, device, [name], isolated=True, block_input=drawn_input(block, 4)))
    assert result.verdicts[0].reference == "float64"
    assert result.verdicts[0].holds == fault.endswith("none"), result.verdicts[0]


def test_names_the_norm_that_is_wrong(
    device: Any, cores: int | None, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows from its output is off, too, but right for its own input."""
    inject(monkeypatch, "input_layernorm", lambda n, x: run_op(n, x, gamma_tensor=_scaled(n, 1.05)))
    failed = [
        (verdict.name, verdict.reference)
        for verdict in judge(collect(block, device, cores=cores)).verdicts
        if verdict.holds is False
    ]
    assert [name for name, reference in failed if reference == "float64"] == ["input_layernorm"]
    assert ("input_layernorm", "HuggingFace") in failed


@pytest.mark.parametrize("isolated", [False, True], ids=["chained", "isolated"])
def test_finds_a_norm_that_did_not_run(
    device: Any, block: Block, monkeypatch: pytest.MonkeyPatch, isolated: bool
) -> None:
    original = block.layer.get_submodule(K_NORM)

    def on_host(*args: Any, **kwargs: Any) -> Replacement:
        replacement = replace_norms(*args, **kwargs)
        monkeypatch.setattr(replacement.norms[K_NORM], "forward", original.forward)
        return replacement

    monkeypatch.setattr("model_comparison.collect.replace_norms", on_host)
    result = judge(collect(block, device, ["k_norm"], isolated=isolated))
    assert [verdict.holds for verdict in result.verdicts if verdict.name == K_NORM] == [False, False]


# --- Flips ---

# Four groups of two, of which two are chosen; their scores are 1.3, 1.1, 0.9 and 0.5. Two options are chosen of them.
SCORES = torch.tensor([0.8, 0.5, 0.7, 0.4, 0.6, 0.3, 0.3, 0.2])


def choice(scores: torch.Tensor, *chosen: int, groups: int = 4) -> Choice:
    mask = torch.zeros(1, 1, len(scores), dtype=torch.bool)
    mask[..., list(chosen)] = True
    return Choice(scores.reshape(1, 1, -1), mask, groups, 2 if groups > 1 else 1)


@pytest.mark.parametrize(
    ("groups", "result", "chosen", "needed"),
    [
        (1, SCORES, (0, 2), 0.0),
        (1, SCORES, (0, 4), 0.05),  # 0.6 and 0.7 meet halfway
        (1, SCORES, (2, 4), 0.1),  # 0.6 and 0.8 do, and 0.7 stays
        (1, SCORES, (0, 2, 4), torch.inf),  # one too many
        (4, SCORES, (0, 2), 0.0),
        (4, SCORES, (0, 1), 0.1),  # 0.5 and 0.7, in the same groups
        (4, SCORES, (0, 4), torch.inf),  # 4 is of a group that its own scores don't choose
        (4, SCORES + torch.tensor([0, 0, 0, 0, 0.2, 0.2, 0, 0]), (0, 4), 0.05),  # groups of 1.1 and 0.9, by 4 x 0.05
    ],
)
def test_needed_move(groups: int, result: torch.Tensor, chosen: tuple[int, ...], needed: float) -> None:
    reference = choice(SCORES, 0, 2, groups=groups)
    move = needed_move(choice(result, *chosen, groups=groups), reference)
    assert move.item() == pytest.approx(needed, abs=1e-6)


@pytest.mark.parametrize("router", [False, True], ids=["indexer", "router"])
def test_needed_move_is_never_more_than_the_scores_moved(block: Block, router: bool) -> None:
    """Chosen by the layer itself from scores that moved by known amounts."""
    generator = torch.Generator().manual_seed(0)
    name, x = ("router", "indexer")[not router], hidden_states(24)
    reference = block.run(x).choice(name)
    flipped = 0
    for _ in range(5):
        near = x + (torch.randn(x.shape, generator=generator) * 0.1).to(x.dtype)
        moved = block.run(near).choice(name)
        most = (moved.scores - reference.scores).nan_to_num(0.0).abs().amax(-1)
        assert (needed_move(moved, reference) <= most + 1e-6).all()
        flipped += int((moved.chosen != reference.chosen).any(-1).sum())
    assert flipped > 10, "nothing was tried"


def chained(block: Block, reference: Run, result: Run) -> Comparison:
    """The comparison of two runs on `hidden_states`, without a device."""
    tokens = reference.output.shape[1]
    names = [name for name, activation in reference.activations.items() if isinstance(activation, NormActivation)]
    float32 = Block(block.checkpoint, block.number, torch.float32).run(hidden_states(tokens).float(), names)
    norms = {norm.name: RecordedNorm.of(norm, launches=1) for norm in find_norms(block.layer, include=names)}
    return judge(Recording(norms, reference, float32, result, {}))


def with_flip(run: Run, name: str, token: int, old: int, new: int) -> Run:
    """`run`, but `token` chose `new` in place of `old`, and the block's output differs there."""
    choice, output = run.choice(name), run.output.clone()
    chosen = choice.chosen.clone()
    assert chosen[0, token, [old, new]].tolist() == [True, False]
    chosen[0, token, old], chosen[0, token, new] = False, True
    output[0, token] += 1
    return Run(run.activations | {name: replace(choice, chosen=chosen)}, output)


@pytest.mark.parametrize("name", ["indexer", "router"])
def test_flips_are_told_apart_from_numeric_error(block: Block, name: str) -> None:
    reference = block.run(hidden_states(12), [K_NORM, "post_attention_layernorm"])
    assert chained(block, reference, reference).holds
    scores, chosen = reference.choice(name).scores[0, 11], reference.choice(name).chosen[0, 11]
    lowest = int(scores.masked_fill(~chosen, torch.inf).argmin())
    result = chained(block, reference, with_flip(reference, name, 11, lowest, int(scores.argmin())))
    flips = {flips.name: flips for flips in result.flips}
    assert flips[name].flipped == 1
    assert not flips[name].holds, "the lowest score in place of a chosen one is no noise"
    assert flips[name].needed > flips[name].noise > 0
    if name == "indexer":
        assert flips["router"].tokens == 11, "whose input the flip has not changed"
    verdicts = {verdict.name: verdict for verdict in result.verdicts}
    assert verdicts["block output"].holds
    assert verdicts["block output"].errors
    assert verdicts["block output"].errors.max_abs == 0, "the other tokens are equal"
    assert verdicts["block output, flips too"].holds is None
    assert verdicts["block output, flips too"].errors
    assert verdicts["block output, flips too"].errors.max_abs >= 0.9


@pytest.mark.parametrize(("tokens", "holds"), [(SMALL.index_topk, None), (SMALL.index_topk + 1, False)])
def test_scores_are_judged_where_they_decide(block: Block, tokens: int, holds: bool | None) -> None:
    reference = block.run(hidden_states(tokens), [K_NORM])
    scores = reference.choice("indexer").scores
    result = chained(block, reference, with_scores(reference, "indexer", scores * 1.1))
    assert {verdict.name: verdict.holds for verdict in result.verdicts}["indexer scores"] is holds
    assert result.holds == (holds is None)


def with_scores(run: Run, name: str, scores: torch.Tensor) -> Run:
    """`run`, but with other scores and the same choices."""
    return replace(run, activations=run.activations | {name: replace(run.choice(name), scores=scores)})


def test_flips_within_the_noise_hold(block: Block) -> None:
    reference = block.run(hidden_states(12))
    router = reference.choice("router")
    result = with_flip(reference, "router", 3, *_last_two(router, 3))
    gap = needed_move(result.choice("router"), router)[0, 3].item()

    def flips(result: Run, noise: float) -> Flips:
        scores = router.scores.clone()
        scores[0, 7, 0] += noise
        float32 = with_scores(reference, "router", scores)
        return judge(Recording({}, reference, float32, result, {})).flips[-1]

    for noise, holds in ((gap * 1.1, True), (gap * 0.9, False)):
        assert (flips(result, noise).flipped, flips(result, noise).holds) == (1, holds), flips(result, noise)
    assert flips(reference, gap).flipped == 0


def _last_two(choice: Choice, token: int) -> tuple[int, int]:
    """The lowest chosen option of a token, and the highest other one of its group."""
    scores, chosen = choice.scores[0, token], choice.chosen[0, token]
    old = int(scores.masked_fill(~chosen, torch.inf).argmin())
    size = len(scores) // choice.groups
    group = torch.arange(len(scores)) // size == old // size
    return old, int(scores.masked_fill(chosen | ~group, -torch.inf).argmax())


# --- The command line ---


@pytest.mark.long
def test_default_checkpoint_holds(platform: Platform) -> None:
    """All five norms at DeepSeek-V3.2's own widths. Few tokens: on wolfpine a row of 7168 takes seconds."""
    run = run_script("--layer", "3", "--isolated", "--tokens", "1", "--input-kind", "normal", "--arch", platform.arch)
    assert run.returncode == 0, run.stderr
    rows = {tuple(words[:2]): words for line in run.stdout.splitlines() if len(words := line.split()) > 2}
    widths = {"input_layernorm": 7168, "q_a_layernorm": 1536, "kv_a_layernorm": 512, "k_norm": 128}
    for name, width in (widths | {"post_attention_layernorm": 7168}).items():
        *_, shape, pcc, max_abs, nearest, ulp, relative, floor, launches, verdict = rows[name, "float64"]
        assert (shape, launches, verdict) == (f"1x1x{width}", "1", "holds"), run.stdout
        assert float(pcc) >= 0.9999
        assert float(nearest) >= 0.98
        assert float(ulp) <= 3.0
        assert float(relative) < 1.1 * float(floor)
        assert 0 < float(max_abs) < 0.05
        assert rows[name, "HuggingFace"][-1] == "holds"
    assert "device: " in run.stderr


@pytest.mark.long
def test_trace_counts_cycles(folders: dict[str, Path], tmp_path: Path, platform: Platform) -> None:
    """On wolfpine, whatever the other tests run on: it alone has a cost model."""
    arch, trace, report = platform.arch, tmp_path / "t.json.gz", tmp_path / "report"
    options = ("--tokens", "4", "--arch", arch, "--trace", trace, "--report", report)
    run = run_script("--checkpoint", folders["v32"], *options, TT_METAL_SIMULATOR="")
    assert run.returncode == 0, run.stderr
    content = read_report(report / "report.json")
    cycles = {launch["name"]: launch for launch in content["facts"]["cycles"]}
    assert list(cycles) == [row["name"] for row in content["taps"] if row["reference"] == "float64"], (
        "the order of runs"
    )
    for launch in cycles.values():
        phases = launch["phases"]
        assert sum(phases[phase] for phase in ("start", "statistics", "normalize", "write")) == launch["cycles"] > 1000
    assert cycles[K_NORM]["cbs"]["beta"]
    assert not cycles["input_layernorm"]["cbs"]["beta"], "an RMSNorm"
    wait_for(trace.exists)  # the simulator writes it as it ends
    with gzip.open(trace) as file:
        assert json.load(file)["traceEvents"]


def test_trace_needs_wolfpine(tmp_path: Path) -> None:
    (tmp_path / "libttsim_bh.so").touch()
    run = run_script("--trace", tmp_path / "t.gz", TT_METAL_SIMULATOR=str(tmp_path / "libttsim_bh.so"))
    assert run.returncode == 3
    assert "error: --trace needs wolfpine, but the device is ttsim" in run.stderr


@pytest.mark.long
def test_chained_holds(folders: dict[str, Path], tmp_path: Path, platform: Platform) -> None:
    arch, saved = platform.arch, tmp_path / "run.safetensors"
    run = run_script("--checkpoint", folders["v3"], "--model", "v3", "--tokens", "4", "--arch", arch, "--save", saved)
    assert run.returncode == 0, run.stderr
    assert "deepseek_v3 layer 3, tokens: 4, chained" in run.stdout
    assert [line.split()[-2:] for line in run.stdout.splitlines() if "block output " in line] == [["4", "holds"]]
    assert [line.split()[0:2] for line in run.stdout.splitlines() if line.startswith("  router  ")] == [["router", "4"]]
    assert judge_again(saved) == run.stdout, "to the last digit"


@pytest.mark.long
def test_runs_on_a_recorded_input(folders: dict[str, Path], tmp_path: Path, platform: Platform) -> None:
    recorded, saved = tmp_path / "input.safetensors", tmp_path / "run.safetensors"
    given = drawn_input(Block(Checkpoint(folders["v3"]), 3), tokens=5, seed=7).hidden_states
    save_file({"hidden_states": given}, recorded)
    arguments = ("--checkpoint", folders["v3"], "--input", recorded, "--norms", "input_layernorm")
    run = run_script(*arguments, "--arch", platform.arch, "--save", saved)
    assert run.returncode == 0, run.stderr
    recording = Recording.load(saved)
    assert recording.facts["input"] == str(recorded)
    assert torch.equal(recording.result.norm("input_layernorm").input, given)


def judge_again(saved: Path) -> str:
    """What the script prints of a saved run, where there is no device."""
    return run_script("--load", saved, TT_METAL_SIMULATOR="/nowhere").stdout


@pytest.mark.long
def test_broken_weight_fails(tmp_path: Path, platform: Platform) -> None:
    folder = write_synthetic(tmp_path / "checkpoint", SMALL)
    shard = folder / "model-00005-of-000006.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.3.self_attn.indexer.k_norm.weight"][7] = torch.nan
    save_file(tensors, shard, metadata={"format": "pt"})
    arch = platform.arch
    run = run_script("--checkpoint", folder, "--norms", "k_norm", "--arch", arch, "--json")
    assert run.returncode == 1, run.stderr
    content = json.loads(run.stdout)  # which is all that is there, whatever a simulator says
    assert content["verdict"]["first_wrong"] == K_NORM
    assert content["verdict"]["sentence"].endswith("there is NaN or Inf in gamma.")
    assert content["facts"]["arch"] == arch
    assert re.fullmatch("[0-9a-f]{64}", content["facts"]["checkpoint_sha256"])
    assert content["facts"]["versions"]["ttnn"]


type Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    """Runs the script in this process, for what ends before a device is opened."""
    app = typer.Typer()
    app.command()(main)
    yield lambda *arguments: CliRunner().invoke(app, arguments, catch_exceptions=False)
    logger.remove()  # what main added writes to a stream that is closed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "4"), "layer must be 0 to 3, but is 4"),
        (("--layer", "three"), "Invalid value for '--layer'"),
        (("--checkpoint", "/no/such/folder"), "/no/such/folder: no such checkpoint folder"),
        (("--arch", "grayskull"), "Invalid value for '--arch'"),
        (("--norms", "k_norm,"), "--norms: include '' matches no norm of DeepseekV32DecoderLayer, which has"),
        (("--input", "x.safetensors", "--seed", "1"), "--input is a recorded hidden state: leave out --seed"),
        (("--input", "/no/such.safetensors"), "/no/such.safetensors: can't read it as safetensors"),
        (("--graph", "ttnn", "--trace", "t.json.gz"), "--trace counts cycles of norms alone: leave out --graph ttnn"),
    ],
)
def test_bad_arguments_exit_2(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr


def test_a_norm_that_is_not_there_is_named_before_a_device_is_opened(invoke: Invoke) -> None:
    result = invoke("--norms", "k_norm,q_norm")
    assert result.exit_code == 2, result.stderr
    assert "--norms: include 'q_norm' matches no norm of DeepseekV32DecoderLayer, which has self_attn." in result.stderr
    assert "opening the device" not in result.stderr


@pytest.mark.parametrize("bound", fields(Bounds), ids=lambda bound: bound.name)
def test_help_tells_the_default_of_a_bound(bound: Field[float]) -> None:
    """It can't be read from `Bounds`: importing torch would make `--help` take seconds."""
    (option,) = inspect.signature(main).parameters[bound.name].annotation.__metadata__
    _, _, told = option.help.removesuffix(".").partition("default: ")
    assert bound.default == (2**0.5 if told == "sqrt(2)" else float(told))


def test_model_must_be_the_checkpoints(invoke: Invoke, folders: dict[str, Path]) -> None:
    result = invoke("--checkpoint", str(folders["v32"]), "--model", "v3")
    assert result.exit_code == 2, result.stderr
    assert "model_type must be 'deepseek_v3' for --model v3, but is 'deepseek_v32'" in result.stderr


def test_no_device_exits_3(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(tmp_path / "nowhere"))
    result = invoke()
    assert result.exit_code == 3, result.stderr
    assert f"TT_METAL_SIMULATOR={tmp_path}/nowhere" in result.stderr
