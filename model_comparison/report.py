"""The report of a comparison: one page that opens offline, the same content as JSON, and figures as PNG.

`report.json` has these keys; a figure that is not finite is null:

    schema      1
    verdict     holds; sentence; first_wrong: the first norm that is wrong for its own input, or null; kind of its fault
    facts       of the run: model, layer, tokens, seed, isolated, device, versions, checkpoint and its hash, date, ...
                cycles, if they were counted: of each norm's launch, by wolfpine's cost model, with phases
                (`tt_device.cycles.Phases`), and for each CB from which cycle on it held how many pages
    bounds      by which was judged
    launches    of each norm on the device
    taps        one for each place and what it is judged against: name, reference, shape, holds (null: shown, not
                judged), launches, floor (relative norm of what bfloat16 costs HuggingFace there), and errors, or null
                where no token is left; its keys are the attributes of `model_comparison.metrics.Errors`, but `exact`
                for `equal`
    flips       tokens that chose otherwise; keys are the attributes of `model_comparison.compare.Flips`
    norms       of each norm: holds, class, formula, width, eps, statistics of gamma and beta, and diagnosis (kind,
                hint, evidence)
    baseline    null, or an earlier report's date and commit, and of each tap the figures then, their ratio now to then,
                and change: same, better, worse, or new
    figures     the PNG files beside
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from model_comparison.compare import Comparison, Tap, short
from model_comparison.diagnosis import Diagnosis, diagnose
from model_comparison.figures import SYMBOLS, diagram, norm_figures, state, timelines
from model_comparison.metrics import Errors
from model_comparison.recording import RecordedNorm, Recording
from weights_tools import CheckpointError
from weights_tools.files import written_whole

SCHEMA = 1
PAGE, DATA = "report.html", "report.json"
TEMPLATE = "report.html.jinja"
# Keys of report.json that are not named as in code: who reads reports relies on them.
KEYS = {"equal": "exact"}
# From one run to another an error changes by its own scatter, 1 / sqrt(n) of n elements, and by no more than that.
WORSE, SIGMAS = 1.05, 4.0


class ReportError(ValueError):
    """A report that can't be read or written. One line."""


def report(recording: Recording, comparison: Comparison, baseline: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of report.json.

    Args:
        baseline: that of an earlier report
    """
    diagnoses = _diagnoses(recording, comparison)
    taps = [_by_key(tap) | {"errors": tap.errors and _by_key(tap.errors)} for tap in comparison.taps]
    content = {
        "schema": SCHEMA,
        "verdict": _verdict(comparison, diagnoses),
        "facts": recording.facts,
        "bounds": dataclasses.asdict(comparison.bounds),
        "launches": comparison.launches,
        "taps": taps,
        "flips": [dataclasses.asdict(flips) for flips in comparison.flips],
        "norms": [_norm(tap, recording.norms[tap.name], diagnosis) for tap, diagnosis in diagnoses],
        "baseline": baseline and _against_baseline(taps, baseline),
        "figures": ["block.png", *(f"{tap.name}.png" for tap, _ in diagnoses), *_cycles_figure(recording)],
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def _by_key(record: Tap | Errors) -> dict[str, Any]:
    return {KEYS.get(name, name): value for name, value in dataclasses.asdict(record).items()}


def _cycles_figure(recording: Recording) -> list[str]:
    return ["cycles.png"] if "cycles" in recording.facts else []


def read_report(path: Path) -> dict[str, Any]:
    """
    Raises:
        ReportError: the file is no report.json of this version
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: can't read it as a {DATA} ({error})") from error
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA or "taps" not in content:
        raise ReportError(f"{path}: schema of the report must be {SCHEMA}, but is {found}: make the report anew")
    return dict(content)


def check_folder(folder: Path) -> None:
    """Refuses what `write_report` would not replace: anything but an empty folder or an earlier report.

    Raises:
        ReportError
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ReportError(f"{folder}: a report is a folder, and this is a file: name another")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    ours = {PAGE, DATA, *(read_report(folder / DATA).get("figures", []) if DATA in names else [])}
    if DATA not in names or names - ours:
        raise ReportError(
            f"{folder}: holds {min(names - ours or names)}, which is no part of a report: name a new or empty folder"
        )


def write_report(folder: Path, content: dict[str, Any], recording: Recording, comparison: Comparison) -> None:
    """Writes report.html, report.json and the figures to a new folder beside, which then takes the place of `folder`:
    the report is there as a whole or not at all, and nothing of an earlier one is left.

    Raises:
        ReportError: it can't be written, or `folder` holds anything else
    """
    folder = folder.resolve()
    check_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(folder, force=True) as new:
            new.mkdir()
            (new / DATA).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
            _write_page(new, content, recording, comparison)
    except (OSError, CheckpointError) as error:
        raise ReportError(f"{folder}: can't write the report ({error})") from error


def _write_page(folder: Path, content: dict[str, Any], recording: Recording, comparison: Comparison) -> None:
    block = diagram(comparison)
    (folder / "block.png").write_bytes(block.png)
    svg = {}
    for norm in content["norms"]:
        name = norm["name"]
        figures = norm_figures(name, recording.norms[name], recording.result.norm(name), comparison.bounds)
        (folder / f"{name}.png").write_bytes(figures.png)
        svg[name] = figures.svg
    for figure in _cycles_figure(recording):
        lines = timelines(recording.facts["cycles"])
        (folder / figure).write_bytes(lines.png)
        for name, line in lines.svg.items():
            svg[name]["timeline"] = line
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sci": _scientific, "short": short, "figure": _figure}
    page = environment.get_template(TEMPLATE).render(
        content,
        block=block.svg["block"],
        svg=svg,
        states={(tap.name, tap.reference): state(tap, comparison) for tap in comparison.taps},
        symbols=SYMBOLS,
        changes={(tap["name"], tap["reference"]): tap for tap in (content["baseline"] or {"taps": []})["taps"]},
    )
    (folder / PAGE).write_text(page)


def _diagnoses(recording: Recording, comparison: Comparison) -> list[tuple[Tap, Diagnosis]]:
    """Of each norm against float64, in order of execution."""
    return [
        (tap, diagnose(recording.norms[tap.name], recording.result.norm(tap.name), tap.holds is True))
        for tap in comparison.taps
        if tap.reference == "float64"
    ]


def _verdict(comparison: Comparison, diagnoses: list[tuple[Tap, Diagnosis]]) -> dict[str, Any]:
    wrong = [(tap, diagnosis) for tap, diagnosis in diagnoses if tap.holds is False]
    if not wrong:
        return {"holds": comparison.holds, "sentence": _sentence(comparison), "first_wrong": None, "kind": None}
    tap, diagnosis = wrong[0]
    hint = diagnosis.hint if diagnosis.hint[:2].isupper() else diagnosis.hint[0].lower() + diagnosis.hint[1:]
    sentence = f"{short(tap.name)} is the first norm that is wrong. By its figures: {hint}"
    if len(wrong) > 1:
        sentence += f" {len(wrong) - 1} more {'is' if len(wrong) == 2 else 'are'} wrong, too."
    return {"holds": False, "sentence": sentence, "first_wrong": tap.name, "kind": diagnosis.kind}


def _sentence(comparison: Comparison) -> str:
    """Where each norm is right for its own input."""
    count = len(comparison.launches)
    right = "The norm is right" if count == 1 else f"All {count} norms are right"
    if tap := next((tap for tap in comparison.taps if tap.holds is False), None):
        if tap.errors is None:
            return f"{right}, but each token's choices flipped before {short(tap.name)}: take more tokens."
        floors = tap.errors.relative_norm / tap.floor if tap.floor else math.inf
        own = "its own input" if count == 1 else "their own inputs"
        return f"{right} for {own}, but {short(tap.name)} is {floors:.3g} noise floors from HuggingFace's."
    for flips in comparison.flips:
        if not flips.holds:
            return (
                f"{right}, but the {flips.name} chose otherwise at {flips.flipped} of {flips.tokens} tokens, for which"
                f" a score had to move by {flips.needed:.2e}; bfloat16 moves them by {flips.noise:.2e}."
            )
    floors = max(
        (tap.errors.relative_norm / tap.floor for tap in comparison.taps if tap.holds and tap.errors and tap.floor),
        default=0.0,
    )
    return f"{right}: nothing but rounding against float64, and no tap is farther off than {floors:.2f} noise floors."


def _norm(tap: Tap, norm: RecordedNorm, diagnosis: Diagnosis) -> dict[str, Any]:
    formula = norm.formula
    centred, size = ("(x - mean)", "variance") if formula.subtract_mean else ("x", "mean(x^2)")
    gamma = "" if norm.gamma is None else " * gamma" if not formula.gamma_offset else " * (1 + gamma)"
    beta = "" if norm.beta is None else " + beta"
    return {
        "name": tap.name,
        "holds": tap.holds,
        "class": "LayerNorm" if formula.subtract_mean else "RMSNorm",
        "formula": f"{centred} / sqrt({size} + eps){gamma}{beta}",
        "round_before_gamma": formula.round_before_gamma,
        "width": formula.width,
        "eps": formula.epsilon,
        "launches": norm.launches,
        "gamma": _statistics(norm.gamma),
        "beta": _statistics(norm.beta),
        "diagnosis": dataclasses.asdict(diagnosis),
    }


def _statistics(weight: torch.Tensor | None) -> dict[str, Any] | None:
    if weight is None:
        return None
    values = weight.double()
    return {
        "dtype": str(weight.dtype).removeprefix("torch."),
        "mean": values.mean().item(),
        "std": values.std(correction=0).item(),
        "min": values.min().item(),
        "max": values.max().item(),
    }


def _against_baseline(taps: list[dict[str, Any]], baseline: dict[str, Any]) -> dict[str, Any]:
    earlier = {(tap["name"], tap["reference"]): tap for tap in baseline["taps"]}
    changes = []
    for tap in taps:
        then = earlier.get((tap["name"], tap["reference"]))
        change: dict[str, Any] = {"name": tap["name"], "reference": tap["reference"], "change": "new"}
        if then and then["errors"] and tap["errors"] and then["shape"] == list(tap["shape"]):
            change |= _change(tap, then)
        changes.append(change)
    facts = baseline.get("facts", {})
    return {
        "date": facts.get("date"),
        "commit": facts.get("commit"),
        "worse": [change["name"] for change in changes if change["change"] == "worse"],
        "taps": changes,
    }


def _change(now: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    before, after = then["errors"]["relative_norm"], now["errors"]["relative_norm"]
    # null of an earlier report was not finite, and no error at all may have become one.
    before = math.inf if before is None else before
    after = after if math.isfinite(after) else math.inf
    ratio = 1.0 if before == after else after / before if before else math.inf
    limit = max(WORSE, 1 + SIGMAS / math.prod(now["shape"]) ** 0.5)
    return {
        "change": "worse" if ratio > limit else "better" if ratio < 1 / limit else "same",
        "relative_norm": before,
        "scaled": then["errors"]["scaled"],
        "ratio": ratio,
    }


def _plain(value: Any) -> Any:
    """What JSON can hold: tuples as lists, None for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scientific(value: float | None) -> str:
    return "not finite" if value is None else "0" if value == 0 else f"{value:.2e}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "not finite" if value is None else f"{value:.{digits}g}"
