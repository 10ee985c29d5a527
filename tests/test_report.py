# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What is kept of a comparison, what kind of fault it names, and its report: data, page and terminal. No device: the
results are HuggingFace's run with norms that are rounded from float64, or edited."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from loguru import logger
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from commands.compare_block import main
from integration import find_norms
from model_comparison.activations import NormActivation
from model_comparison.block import Block
from model_comparison.diagnosis import diagnose
from model_comparison.facts import CB_KEYS, LaunchCycles, norm_cycles, origin
from model_comparison.judge import Bounds, judge
from model_comparison.metrics import Errors
from model_comparison.page import check_folder, write_report
from model_comparison.recording import RecordedNorm, Recording, RecordingError
from model_comparison.report import ReportError, read_report, report
from tests.child import PATIENCE
from tests.small import SMALL
from tests.tensors import hidden_states
from weights_tools import Checkpoint, write_synthetic

K_NORM, Q_NORM = "self_attn.indexer.k_norm", "self_attn.q_a_layernorm"
TOKENS = 12
WITHOUT_BETA = "FAIL: k_norm is the first norm that is wrong. By its figures: the output is the norm without beta."


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """As of a device whose LayerNorm and RMSNorm are right."""
    folder = write_synthetic(tmp_path_factory.mktemp("checkpoint") / "v32", SMALL)
    block = Block(Checkpoint(folder), 3)
    x = hidden_states(TOKENS)
    names = [Q_NORM, K_NORM]
    reference = block.run(x, names)
    float32 = Block(block.checkpoint, 3, torch.float32).run(x.float(), names)
    norms = {norm.name: RecordedNorm.of(norm, launches=1) for norm in find_norms(block.layer, names)}
    facts = {"model": "deepseek_v32", "layer": 3, "tokens": TOKENS, "isolated": False, "index_topk": SMALL.index_topk}
    right = Recording(norms, reference, float32, reference, facts)
    for name in names:
        right = with_output(right, name, lambda norm, activation: norm.golden(activation.input)[0])
    return right


def with_output(
    recording: Recording, name: str, output: Callable[[RecordedNorm, NormActivation], torch.Tensor]
) -> Recording:
    """`recording`, but the device's norm gave `output`, rounded to bfloat16."""
    activation = recording.result.norm(name)
    edited = NormActivation(activation.input, output(recording.norms[name], activation).to(torch.bfloat16))
    return replace(
        recording, result=replace(recording.result, activations=recording.result.activations | {name: edited})
    )


def without_beta(norm: RecordedNorm, activation: NormActivation) -> torch.Tensor:
    return norm.formula.golden(activation.input, norm.gamma, None)


def scaled(factor: float) -> Callable[[RecordedNorm, NormActivation], torch.Tensor]:
    def output(norm: RecordedNorm, activation: NormActivation) -> torch.Tensor:
        beta = 0.0 if norm.beta is None else norm.beta.double()
        return (norm.golden(activation.input)[0] - beta) * factor + beta

    return output


def edited(change: Callable[[torch.Tensor], object]) -> Callable[[RecordedNorm, NormActivation], torch.Tensor]:
    """The right output after `change` has written to it."""

    def output(_: RecordedNorm, activation: NormActivation) -> torch.Tensor:
        y = activation.output.clone()
        change(y)
        return y

    return output


# --- What is kept ---


def test_a_loaded_recording_is_the_saved_one(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "run.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"], "nothing temporary stays"
    loaded = Recording.load(tmp_path / "run.safetensors")
    assert loaded.facts == recording.facts
    assert judge(loaded) == judge(recording)
    assert {name: norm.formula for name, norm in loaded.norms.items()} == {
        name: norm.formula for name, norm in recording.norms.items()
    }
    for name in ("indexer", "router"):
        assert asdict_without_tensors(loaded, name) == asdict_without_tensors(recording, name)
        assert torch.equal(loaded.result.choice(name).chosen, recording.result.choice(name).chosen)


def asdict_without_tensors(recording: Recording, name: str) -> dict[str, Any]:
    choice = recording.result.choice(name)
    return {field.name: getattr(choice, field.name) for field in fields(choice) if field.type is int}


def test_isolated_norms_are_kept_and_judged(recording: Recording, tmp_path: Path) -> None:
    result = replace(
        recording.result, activations={K_NORM: recording.result.activations[K_NORM]}, output=torch.empty(0)
    )
    isolated = replace(recording, float32=None, result=result)
    isolated.save(tmp_path / "run.safetensors")
    judged = judge(Recording.load(tmp_path / "run.safetensors"))
    assert [(verdict.name, verdict.reference, verdict.holds) for verdict in judged.verdicts] == [
        (K_NORM, "float64", True),
        (K_NORM, "HuggingFace", True),
    ]


@pytest.mark.parametrize("content", ["missing", "text", "weights", "schema"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.safetensors"
    if content == "text":
        path.write_text("not safetensors")
    elif content != "missing":
        metadata = {"recording": json.dumps({"schema": 2})} if content == "schema" else None
        save_file({"weight": torch.ones(2)}, path, metadata=metadata)
    with pytest.raises(RecordingError, match=r"run\.safetensors: ") as refused:
        Recording.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("bounds", "fails"),
    [
        (Bounds(), set()),
        (Bounds(min_pcc=1.01), {"float64"}),  # of what follows, the noise floor's PCC is enough
        (Bounds(min_nearest=1.01), {"float64"}),
        (Bounds(max_ulp=-1), {"float64"}),
        (Bounds(max_floors=-1.0), {"HuggingFace"}),
    ],
)
def test_other_bounds_give_other_verdicts(recording: Recording, bounds: Bounds, fails: set[str]) -> None:
    judged = judge(recording, bounds)
    assert {
        verdict.reference for verdict in judged.verdicts if verdict.name == K_NORM and verdict.holds is False
    } == fails


# --- Which kind of fault ---

Fault = Callable[[RecordedNorm, NormActivation], torch.Tensor]
FAULTS: dict[str, tuple[str, Fault, str]] = {
    "dropped beta": (K_NORM, without_beta, "without beta"),
    "swapped gamma and beta": (K_NORM, lambda n, t: n.formula.golden(t.input, n.beta, n.gamma), "changed places"),
    "dropped gamma": (K_NORM, lambda n, t: n.formula.golden(t.input, None, n.beta), "without gamma"),
    "no mean": (K_NORM, lambda n, t: _other_mean(n, t) + n.beta.double(), "mean is not subtracted"),  # type: ignore[union-attr]
    "mean": (Q_NORM, lambda n, t: _other_mean(n, t), "mean is subtracted"),
    "order of rounding": (Q_NORM, lambda n, t: _with(n, t, round_before_gamma=False), "rounded once"),
    "rounding of 1 / rms": (Q_NORM, lambda n, t: _with(n, t, round_inverse_rms=True), "1 / rms is rounded, too"),
    "scale 1.01": (Q_NORM, scaled(1.01), "scaled by 1.0"),
    "scale 0.99": (K_NORM, scaled(0.99), "before beta, is scaled by 0.9"),
    "offset 0.0": (Q_NORM, lambda n, t: n.golden(t.input)[0] + 0.05, "is added to each element"),
    "wrong eps": (Q_NORM, lambda n, t: _with(n, t, epsilon=1e-2), "in place of 1e-06"),
    "wrong gamma": (Q_NORM, lambda n, t: n.formula.golden(t.input, n.gamma.flip(0), None), "in another order"),  # type: ignore[union-attr]
    "wrong beta": (K_NORM, lambda n, t: n.formula.golden(t.input, n.gamma, n.beta.flip(0)), "in another order"),  # type: ignore[union-attr]
    "all zero": (Q_NORM, edited(lambda y: y.zero_()), "nothing was written"),
    "not normalized": (Q_NORM, lambda _, t: t.input, "is the input"),
    "NaN or Inf": (K_NORM, edited(lambda y: y[0, 2].fill_(torch.nan)), "made NaN or Inf of finite"),
    "bad row": (K_NORM, edited(lambda y: y[0, 5].copy_(y[0, 4])), "row 5 holds the result of row 4"),
    "bad columns": (Q_NORM, edited(lambda y: y[..., -7:].zero_()), "columns 57 to 63 are wrong, the end of the row"),
    "imprecise": (Q_NORM, lambda n, t: n.golden(t.input)[0] * _noise(t, 0.005), "imprecise arithmetic"),
}


def _with(norm: RecordedNorm, activation: NormActivation, **changed: Any) -> torch.Tensor:
    return replace(norm.formula, **changed).golden(activation.input, norm.gamma, norm.beta)


def _other_mean(norm: RecordedNorm, activation: NormActivation) -> torch.Tensor:
    return replace(norm.formula, subtract_mean=not norm.formula.subtract_mean).golden(
        activation.input, norm.gamma, None
    )


def _noise(activation: NormActivation, size: float) -> torch.Tensor:
    return 1 + size * torch.randn(
        activation.output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


@pytest.mark.parametrize("kind", FAULTS)
def test_names_the_kind_of_fault(recording: Recording, kind: str) -> None:
    name, fault, hint = FAULTS[kind]
    content = report(wrong := with_output(recording, name, fault), judge(wrong))
    verdict = content["verdict"]
    assert not verdict["holds"]
    assert verdict["first_wrong"] == name
    assert verdict["kind"].startswith(kind)
    assert hint in verdict["sentence"]
    others = [norm["diagnosis"]["kind"] for norm in content["norms"] if norm["name"] != name]
    assert others == ["rounding"], "the other norm is right"


def test_a_norm_without_weights_that_rounds_1_over_rms(recording: Recording, tmp_path: Path) -> None:
    """As DeepSeek-V4's, of whatever width."""
    formula = replace(recording.norms[Q_NORM].formula, width=None, gamma=None, round_inverse_rms=True)
    norms = recording.norms | {Q_NORM: RecordedNorm(formula, None, None, launches=1)}
    of_v4 = with_output(replace(recording, norms=norms), Q_NORM, lambda n, t: n.golden(t.input)[0])
    of_v4.save(tmp_path / "run.safetensors")
    assert Recording.load(tmp_path / "run.safetensors").norms[Q_NORM] == norms[Q_NORM]
    (shown,) = (norm for norm in report(of_v4, judge(of_v4))["norms"] if norm["name"] == Q_NORM)
    assert (shown["formula"], shown["width"]) == ("x * rounded(1 / sqrt(mean(x^2) + eps))", None)
    wrong = with_output(of_v4, Q_NORM, lambda n, t: _with(n, t, round_inverse_rms=False))
    assert diagnose(norms[Q_NORM], wrong.result.norm(Q_NORM), holds=False).hint == "1 / rms is not rounded."


def test_a_scaled_gamma_is_not_one_in_another_order(recording: Recording) -> None:
    """As a kernel gets it: scaled, and rounded to bfloat16, which leaves no one scale of the output."""

    def fault(norm: RecordedNorm, activation: NormActivation) -> torch.Tensor:
        assert norm.gamma is not None
        return norm.formula.golden(activation.input, (norm.gamma.float() * 1.01).to(torch.bfloat16), None)

    wrong = with_output(recording, Q_NORM, fault)
    sentence = report(wrong, judge(wrong))["verdict"]["sentence"]
    assert re.search(r"about 1\.0[01]\d\d times the one loaded|is scaled by 1\.0[01]\d\d", sentence), sentence


def test_a_norm_that_did_not_run_is_named(recording: Recording) -> None:
    norms = recording.norms | {K_NORM: replace(recording.norms[K_NORM], launches=0)}
    content = report(idle := replace(recording, norms=norms), judge(idle))
    assert (content["verdict"]["first_wrong"], content["verdict"]["kind"]) == (K_NORM, "not run")


def test_the_first_wrong_norm_is_the_first_that_runs(recording: Recording) -> None:
    wrong = with_output(with_output(recording, K_NORM, without_beta), Q_NORM, scaled(1.01))
    verdict = report(wrong, judge(wrong))["verdict"]
    assert verdict["first_wrong"] == Q_NORM
    assert verdict["sentence"].endswith("1 more is wrong, too.")


def test_what_one_token_can_not_tell_is_not_told(recording: Recording) -> None:
    """A gamma in another order needs several tokens to be seen."""
    norm, activation = recording.norms[Q_NORM], recording.result.norm(Q_NORM)
    assert norm.gamma is not None
    one = NormActivation(
        activation.input[:, :1],
        norm.formula.golden(activation.input[:, :1], norm.gamma.flip(0), None).to(torch.bfloat16),
    )
    assert diagnose(norm, one, holds=False).kind == "unknown"


# --- The data ---


def test_json_holds_the_comparison(recording: Recording) -> None:
    judged = judge(recording)
    content = json.loads(json.dumps(report(recording, judged), allow_nan=False))
    assert content["schema"] == 1
    assert content["verdict"]["holds"] is True
    assert content["facts"] == recording.facts
    assert content["bounds"] == asdict(Bounds())
    assert content["launches"] == {Q_NORM: 1, K_NORM: 1}
    assert len(content["taps"]) == len(judged.verdicts)
    for told, verdict in zip(content["taps"], judged.verdicts, strict=True):
        assert verdict.errors is not None
        assert (told["name"], told["reference"], told["holds"]) == (verdict.name, verdict.reference, verdict.holds)
        assert (told["floor"], tuple(told["shape"]), told["launches"]) == (
            verdict.noise_floor,
            verdict.shape,
            verdict.launches,
        )
        assert set(told["errors"]) == {field.name for field in fields(Errors)} - {"equal"} | {"exact"}
        assert told["errors"]["exact"] == verdict.errors.equal
        assert set(told) == {"name", "reference", "shape", "errors", "floor", "launches", "holds"}
        assert told["errors"]["relative_norm"] == verdict.errors.relative_norm
        assert told["errors"]["scaled_p99"] == verdict.errors.scaled_p99
    for told, flips in zip(content["flips"], judged.flips, strict=True):
        expected = asdict(flips)
        expected["floor"] = expected.pop("float32_flipped")
        assert told == expected
    assert content["figures"] == ["block.png", f"{Q_NORM}.png", f"{K_NORM}.png"]


def test_fingerprint_is_of_the_checkpoint(recording: Recording, tmp_path: Path) -> None:
    """Of its config, and of the norms' weights as loaded."""
    checkpoint = Checkpoint(write_synthetic(tmp_path / "v32", SMALL))

    def fingerprint(recording: Recording) -> object:
        facts = origin(recording, checkpoint, {"device": "card"}, "compare_block.py -q")
        assert (facts["device"], facts["command"]) == ("card", "compare_block.py -q")
        return facts["checkpoint_sha256"]

    norm = recording.norms[K_NORM]
    assert norm.beta is not None
    other = replace(recording, norms=recording.norms | {K_NORM: replace(norm, beta=norm.beta + 1)})
    found = [fingerprint(recording), fingerprint(other)]
    config = checkpoint.folder / "config.json"
    config.write_text(config.read_text() + "\n")
    found.append(fingerprint(recording))
    assert len(set(found)) == 3
    assert fingerprint(recording) == found[-1]


def test_cycles_are_of_the_launches_in_order(recording: Recording) -> None:
    recording = replace(recording, norms=dict(reversed(recording.norms.items())))  # as selected, not as run
    launches = [LaunchCycles(cycles, {"start": cycles}, {cb: [(cycles, cb)] for cb in CB_KEYS}) for cycles in (10, 20)]
    found = norm_cycles(recording, launches)
    assert [(launch["name"], launch["cycles"], launch["phases"]) for launch in found] == [
        (Q_NORM, 10, {"start": 10}),
        (K_NORM, 20, {"start": 20}),
    ]
    assert found[1]["cbs"] == {"input": [(20, 0)], "gamma": [(20, 1)], "beta": [(20, 2)], "output": [(20, 3)]}


def test_what_is_not_finite_is_null(recording: Recording) -> None:
    wrong = with_output(recording, K_NORM, edited(lambda y: y[0, 2, :3].fill_(torch.nan)))
    errors = next(row["errors"] for row in report(wrong, judge(wrong))["taps"] if row["name"] == K_NORM)
    assert (errors["pcc"], errors["max_abs"], errors["scaled"]) == (None, None, None)
    assert (errors["nans"], errors["worst_row"]) == (3, [0, 2])


def test_baseline_tells_better_from_worse(recording: Recording) -> None:
    judged = judge(recording)
    earlier = report(recording, judged)
    factors = {(Q_NORM, "float64"): 0.5, (K_NORM, "float64"): 2.0, (K_NORM, "HuggingFace"): 0.98}
    for row in earlier["taps"]:
        row["errors"]["relative_norm"] *= factors.get((row["name"], row["reference"]), 1.0)
    earlier["taps"].pop()
    baseline = report(recording, judged, earlier)["baseline"]
    changes = {(row["name"], row["reference"]): row["change"] for row in baseline["taps"]}
    assert changes == dict.fromkeys(changes, "same") | {
        (Q_NORM, "float64"): "worse",
        (K_NORM, "float64"): "better",
        ("block output", "HuggingFace"): "new",
    }
    assert baseline["worse"] == [Q_NORM]


# --- The page ---


class Page(HTMLParser):
    """Collects what a page would load, its ids and tags, and that each tag is closed."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]
        self.ids += [value or "" for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag


@pytest.fixture(scope="module")
def pages(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a passing and of a failing report, the second with the first as its baseline."""
    folder = tmp_path_factory.mktemp("reports")
    wrong = with_output(recording, K_NORM, without_beta)
    earlier = None
    for name, run in (("pass", recording), ("fail", wrong)):
        judged = judge(run)
        content = report(run, judged, earlier)
        write_report(folder / name, content, run, judged)
        earlier = content
    assert sorted(path.name for path in folder.iterdir()) == ["fail", "pass"], "nothing temporary stays"
    return {name: folder / name for name in ("pass", "fail")}


@pytest.mark.parametrize("name", ["pass", "fail"])
def test_page_stands_alone(pages: dict[str, Path], name: str) -> None:
    page = Page((pages[name] / "report.html").read_text())
    assert all(link.startswith(("#", "data:")) for link in page.links), "nothing is loaded"
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.tags.count("svg") == 1 + 6 + 7, "the block, an RMSNorm's panels and a LayerNorm's"


def test_page_says_what_is_wrong(pages: dict[str, Path]) -> None:
    text = re.sub(r"<svg.*?</svg>", "", (pages["fail"] / "report.html").read_text(), flags=re.DOTALL)
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    assert (
        "✗ FAIL k_norm is the first norm that is wrong. By its figures: the output is the norm without beta." in words
    )
    assert "✗ FAILS: dropped beta" in words
    assert "▼ worse at k_norm." in words
    assert "✓ PASS" in (pages["pass"] / "report.html").read_text()


def test_page_tells_a_wrong_norm_from_one_with_a_wrong_input(recording: Recording, tmp_path: Path) -> None:
    activation, norm = recording.result.norm(Q_NORM), recording.norms[Q_NORM]
    generator = torch.Generator().manual_seed(2)
    disturbed = activation.input + 0.1 * torch.randn(activation.input.shape, generator=generator).to(torch.bfloat16)
    carried = NormActivation(disturbed, norm.golden(disturbed)[0].to(torch.bfloat16))
    wrong = with_output(recording, K_NORM, without_beta)
    wrong = replace(wrong, result=replace(wrong.result, activations=wrong.result.activations | {Q_NORM: carried}))
    judged = judge(wrong)
    write_report(tmp_path / "out", report(wrong, judged), wrong, judged)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "▲ q_a_layernorm" in page, "in the diagram"
    assert "✗ k_norm" in page
    assert len(re.findall(r'<td class="left off-by-its-input">▲ FAILS</td>', page)) == 1, "against HuggingFace's"


def test_page_shows_cycles(recording: Recording, tmp_path: Path) -> None:
    phases = dict.fromkeys(("compute_waits", "writer_waits"), 7)
    phases |= {"start": 800, "statistics": 500, "normalize": 0, "write": 434}
    held = {"input": [(800, 1), (1300, 0)], "gamma": [(900, 1)], "beta": [], "output": [(1400, 1), (1500, 0)]}
    launch = {"name": K_NORM, "cycles": 1734, "phases": phases, "cbs": held}
    counted = replace(recording, facts=recording.facts | {"cycles": [launch]})
    judged = judge(counted)
    write_report(tmp_path / "out", report(counted, judged), counted, judged)
    text = re.sub(r"<[^>]*>", " ", (tmp_path / "out" / "report.html").read_text())
    assert re.search(r"k_norm\s+1,734\s+800\s+500\s+0\s+434\s+7\s+7", text)
    assert "k_norm: 1,734 cycles" in text, "its timeline"
    assert (tmp_path / "out" / "cycles.png").read_bytes().startswith(b"\x89PNG")
    check_folder(tmp_path / "out")


def test_folder_holds_data_and_pictures(pages: dict[str, Path]) -> None:
    content = read_report(pages["fail"] / "report.json")
    assert {path.name for path in pages["fail"].iterdir()} == {"report.html", "report.json", *content["figures"]}
    for figure in content["figures"]:
        assert (pages["fail"] / figure).read_bytes().startswith(b"\x89PNG")


needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: apt-get install chromium")


def in_chromium(page: Path, *options: str) -> str:
    """The page's document after its scripts have run; without a sandbox, which there is none of as root."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"]
    options = ("--window-size=1280,900", "--virtual-time-budget=10000", *options)
    run = subprocess.run(
        [*command, *options, page.as_uri()], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return run.stdout


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_page_fits_its_window(pages: dict[str, Path], tmp_path: Path, width: int) -> None:
    """Wide tables scroll in their own boxes, the page never sideways. In a frame: no window is as narrow as 400."""
    probe = "<script>parent.postMessage([innerWidth, document.documentElement.scrollWidth], '*')</script>"
    page, frame = tmp_path / "probed.html", tmp_path / "frame.html"
    page.write_text((pages["fail"] / "report.html").read_text().replace("</body>", f"{probe}</body>"))
    listener = "<script>onmessage = message => document.title = message.data</script>"
    frame.write_text(f"{listener}<iframe src=probed.html style='width: {width}px; border: 0'></iframe>")
    assert f"<title>{width},{width}</title>" in in_chromium(frame)


@needs_browser
def test_page_follows_the_readers_colours(pages: dict[str, Path], tmp_path: Path) -> None:
    probe = "<script>document.title = getComputedStyle(document.body).color +"
    probe += " getComputedStyle(document.querySelector('svg text')).fill</script>"
    page = tmp_path / "probed.html"
    page.write_text((pages["pass"] / "report.html").read_text().replace("</body>", f"{probe}</body>"))
    schemes = [f"--blink-settings=preferredColorScheme={scheme}" for scheme in (0, 1)]
    titles = [re.findall(r"<title>(.*)</title>", in_chromium(page, scheme)) for scheme in schemes]
    assert titles[0] != titles[1], "dark and light"
    for (colours,) in titles:
        text, figure = re.findall(r"rgb\([\d, ]+\)", colours)
        assert text == figure


def test_a_report_takes_the_place_of_an_earlier_one(
    pages: dict[str, Path], recording: Recording, tmp_path: Path
) -> None:
    folder = shutil.copytree(pages["fail"], tmp_path / "out")
    one = replace(recording, norms={Q_NORM: recording.norms[Q_NORM]})
    activations = {name: activation for name, activation in recording.result.activations.items() if name != K_NORM}
    one = replace(one, result=replace(recording.result, activations=activations))
    write_report(folder, report(one, judge(one)), one, judge(one))
    assert read_report(folder / "report.json")["verdict"]["holds"]
    assert not (folder / f"{K_NORM}.png").exists(), "nothing of the earlier one is left"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.long
def test_what_a_killed_writer_leaves_goes_with_the_next(
    recording: Recording, tmp_path: Path, count: Callable[[str, int], None]
) -> None:
    folder, saved = tmp_path / "out", tmp_path / "run.safetensors"
    recording.save(saved)
    program = f"""
import os, signal
from pathlib import Path
from model_comparison import page
from model_comparison.judge import judge
from model_comparison.recording import Recording
from model_comparison.report import report
page.norm_figures = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
recording = Recording.load(Path({str(saved)!r}))
judged = judge(recording)
page.write_report(Path({str(folder)!r}), report(recording, judged), recording, judged)
"""
    killed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not folder.exists()
    assert list(tmp_path.glob(".out.*.partial"))
    judged = judge(recording)
    write_report(folder, report(recording, judged), recording, judged)
    assert sorted(tmp_path.iterdir()) == [folder, saved]
    count("faults: kills of a report's writer", 1)


@pytest.mark.parametrize("kind", ["file", "foreign", "report and more"])
def test_what_is_no_report_is_left_alone(pages: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "out"
    if kind == "file":
        folder.write_text("mine")
    elif kind == "foreign":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        shutil.copytree(pages["pass"], folder)
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(ReportError, match="this is a file" if kind == "file" else "notes.txt, which is no part"):
        check_folder(folder)


# --- The terminal ---

type Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Iterator[Invoke]:
    app = typer.Typer()
    app.command()(main)
    yield lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    logger.remove()  # what main added writes to a stream that is closed


@pytest.fixture(scope="module")
def saved(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    recording.save(folder / "pass.safetensors")
    with_output(recording, K_NORM, without_beta).save(folder / "fail.safetensors")
    return {name: folder / f"{name}.safetensors" for name in ("pass", "fail")}


@pytest.mark.parametrize(
    ("name", "options", "code", "line"),
    [
        ("pass", (), 0, "PASS: All 2 norms are right"),
        (
            "fail",
            (),
            1,
            "FAIL: k_norm is the first norm that is wrong. By its figures: the output is the norm without beta.",
        ),
        ("pass", ("--min-pcc", "1.1"), 1, "FAIL: q_a_layernorm is the first norm that is wrong."),
        ("pass", ("--max-floors", "-1"), 1, "FAIL: All 2 norms are right for their own inputs, but q_a_layernorm is "),
    ],
)
def test_load_judges_again(
    invoke: Invoke, saved: dict[str, Path], name: str, options: tuple[str, ...], code: int, line: str
) -> None:
    result = invoke("--load", saved[name], "--quiet", *options)
    assert result.exit_code == code
    assert result.stdout.startswith(line)
    assert result.stdout.count("\n") == 1
    assert not result.stderr


def test_json_is_all_of_stdout(invoke: Invoke, saved: dict[str, Path], recording: Recording) -> None:
    result = invoke("--load", saved["pass"], "--json")
    assert json.loads(result.stdout) == json.loads(json.dumps(report(recording, judge(recording))))


def test_report_and_baseline(invoke: Invoke, saved: dict[str, Path], pages: dict[str, Path], tmp_path: Path) -> None:
    baseline = pages["pass"] / "report.json"
    result = invoke("--load", saved["fail"], "--report", tmp_path / "new" / "out", "--baseline", baseline)
    assert result.exit_code == 1
    assert re.search(r"k_norm +float64 .* worse", result.stdout)
    assert read_report(tmp_path / "new" / "out" / "report.json")["baseline"]["worse"] == [K_NORM, K_NORM]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--load", "{pass}", "--layer", "3", "--seed", "1"), "leave out --layer, --seed"),
        (("--load", "/no/such.safetensors"), "/no/such.safetensors: can't read it"),
        (("--load", "{pass}", "--baseline", "{pass}"), "can't read it as a report.json"),
        (("--load", "{pass}", "--report", "{folder}"), "which is no part of a report"),
    ],
)
def test_bad_files_exit_2(invoke: Invoke, saved: dict[str, Path], options: tuple[str, ...], message: str) -> None:
    places = saved | {"folder": saved["pass"].parent}
    result = invoke(*(option.format_map(places) for option in options))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1, "no stack trace"
