# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The content of a comparison's report, which report.json holds and the page shows.

`report.json` has these keys; a figure that is not finite is null:

    schema      1
    verdict     holds; sentence; first_wrong: the first norm that is wrong for its own input, or null; kind of its fault
    facts       of the run: model, layer, tokens, input (how it was drawn, or its file; not in older ones: N(0, 1)),
                seed, graph (not in older ones: torch), isolated, mesh (not in older ones: 1x1), device, versions,
                checkpoint and its hash, date, ...
                cycles, if they were counted: of each norm's launch, by wolfpine's cost model, with phases
                (`tt_device.cycles.Phases`) and for each CB from which cycle on it held how many pages, both of the core
                that ended last
    bounds      by which was judged
    launches    of each norm on the device
    taps        the verdicts, one for each place and what it is judged against: name, reference, shape, holds (null:
                shown, not judged), launches, floor (the noise floor: relative norm of what bfloat16 costs HuggingFace
                there), and errors, or null where no token is left; its keys are the attributes of
                `model_comparison.metrics.Errors`, but `exact` for `equal`
    flips       tokens that chose otherwise; keys are the attributes of `model_comparison.choices.Flips`, but `floor`
                for `float32_flipped`
    norms       of each norm: holds, class, formula, width, eps, statistics of gamma and beta, and diagnosis (kind,
                hint, evidence)
    baseline    null, or an earlier report's date and commit, and for each of `taps` the figures then, their ratio now
                to then, and change: same, better, worse, or new
    figures     the PNG files beside
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch

from model_comparison.choices import Flips
from model_comparison.diagnosis import Diagnosis, diagnose
from model_comparison.judge import MAX_SIGMAS, Comparison, Verdict
from model_comparison.metrics import Errors
from model_comparison.recording import RecordedNorm, Recording

SCHEMA = 1
DATA = "report.json"
BLOCK_FIGURE, CYCLES_FIGURE = "block.png", "cycles.png"
# Keys of report.json that are not named as in code. They, and the words that are printed ("tap", "floor"), stay as they
# were: --baseline and those who read reports rely on them.
KEYS = {"equal": "exact", "noise_floor": "floor", "float32_flipped": "floor"}
# Against a baseline, a relative norm is worse if it has grown by more than 5%, and by more than MAX_SIGMAS: of n
# elements it scatters by 1 / sqrt(n) from run to run.
WORSE = 1.05


class ReportError(ValueError):
    """A report that can't be read or written. One line."""


type _Diagnosed = tuple[Verdict, Diagnosis]


def report(recording: Recording, comparison: Comparison, baseline: dict[str, Any] | None = None) -> dict[str, Any]:
    """The content of report.json.

    Args:
        baseline: that of an earlier report
    """
    diagnoses = _diagnoses(recording, comparison)
    verdicts = [_by_key(v) | {"errors": v.errors and _by_key(v.errors)} for v in comparison.verdicts]
    figures = [BLOCK_FIGURE, *(f"{verdict.name}.png" for verdict, _ in diagnoses)]
    if "cycles" in recording.facts:
        figures.append(CYCLES_FIGURE)
    content = {
        "schema": SCHEMA,
        "verdict": _overall(comparison, diagnoses),
        "facts": recording.facts,
        "bounds": dataclasses.asdict(comparison.bounds),
        "launches": comparison.launches,
        "taps": verdicts,
        "flips": [_by_key(flips) for flips in comparison.flips],
        "norms": [_norm(verdict, recording.norms[verdict.name], diagnosis) for verdict, diagnosis in diagnoses],
        "baseline": baseline and _against_baseline(verdicts, baseline),
        "figures": figures,
    }
    plain: dict[str, Any] = _plain(content)
    return plain


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


def _by_key(record: Verdict | Errors | Flips) -> dict[str, Any]:
    return {KEYS.get(name, name): value for name, value in dataclasses.asdict(record).items()}


def _diagnoses(recording: Recording, comparison: Comparison) -> list[_Diagnosed]:
    """Of each norm against float64, in order of execution."""
    return [
        (verdict, diagnose(recording.norms[verdict.name], recording.result.norm(verdict.name), verdict.holds is True))
        for verdict in comparison.verdicts
        if verdict.reference == "float64"
    ]


def _overall(comparison: Comparison, diagnoses: list[_Diagnosed]) -> dict[str, Any]:
    wrong = [(verdict, diagnosis) for verdict, diagnosis in diagnoses if verdict.holds is False]
    if not wrong:
        return {"holds": comparison.holds, "sentence": _sentence(comparison), "first_wrong": None, "kind": None}
    verdict, diagnosis = wrong[0]
    hint = diagnosis.hint if diagnosis.hint[:2].isupper() else diagnosis.hint[0].lower() + diagnosis.hint[1:]
    sentence = f"{comparison.short_names[verdict.name]} is the first norm that is wrong. By its figures: {hint}"
    if len(wrong) > 1:
        sentence += f" {len(wrong) - 1} more {'is' if len(wrong) == 2 else 'are'} wrong, too."
    return {"holds": False, "sentence": sentence, "first_wrong": verdict.name, "kind": diagnosis.kind}


def _sentence(comparison: Comparison) -> str:
    """Where each norm is right for its own input."""
    count, short = len(comparison.launches), comparison.short_names
    right = "The norm is right" if count == 1 else f"All {count} norms are right"
    if verdict := next((verdict for verdict in comparison.verdicts if verdict.holds is False), None):
        if verdict.errors is None:
            return f"{right}, but each token's choices flipped before {short[verdict.name]}: take more tokens."
        floors = verdict.errors.relative_norm / verdict.noise_floor if verdict.noise_floor else math.inf
        own = "its own input" if count == 1 else "their own inputs"
        return f"{right} for {own}, but {short[verdict.name]} is {floors:.3g} noise floors from HuggingFace's."
    for flips in comparison.flips:
        if not flips.holds:
            return (
                f"{right}, but the {flips.name} chose otherwise at {flips.flipped} of {flips.tokens} tokens, for which"
                f" a score had to move by {flips.needed:.2e}; bfloat16 moves them by {flips.noise:.2e}."
            )
    floors = max(
        (v.errors.relative_norm / v.noise_floor for v in comparison.verdicts if v.holds and v.errors and v.noise_floor),
        default=0.0,
    )
    return f"{right}: nothing but rounding against float64, and no tap is farther off than {floors:.2f} noise floors."


def _norm(verdict: Verdict, norm: RecordedNorm, diagnosis: Diagnosis) -> dict[str, Any]:
    formula = norm.formula
    centred, size = ("(x - mean)", "variance") if formula.subtract_mean else ("x", "mean(x^2)")
    scaled = f"{centred} / sqrt({size} + eps)"
    if formula.round_inverse_rms:
        scaled = f"{centred} * rounded(1 / sqrt({size} + eps))"
    gamma = "" if norm.gamma is None else " * gamma" if not formula.gamma_offset else " * (1 + gamma)"
    beta = "" if norm.beta is None else " + beta"
    return {
        "name": verdict.name,
        "holds": verdict.holds,
        "class": "LayerNorm" if formula.subtract_mean else "RMSNorm",
        "formula": f"{scaled}{gamma}{beta}",
        "round_before_gamma": formula.round_before_gamma,
        "round_inverse_rms": formula.round_inverse_rms,
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


def _against_baseline(verdicts: list[dict[str, Any]], baseline: dict[str, Any]) -> dict[str, Any]:
    """Args: verdicts: by report.json's keys"""
    earlier = {(then["name"], then["reference"]): then for then in baseline["taps"]}
    changes = []
    for now in verdicts:
        then = earlier.get((now["name"], now["reference"]))
        change: dict[str, Any] = {"name": now["name"], "reference": now["reference"], "change": "new"}
        if then and then["errors"] and now["errors"] and then["shape"] == list(now["shape"]):
            change |= _change(now, then)
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
    # An earlier report holds null for what was not finite. From no error to some is an infinite ratio.
    before = math.inf if before is None else before
    after = after if math.isfinite(after) else math.inf
    ratio = 1.0 if before == after else after / before if before else math.inf
    limit = max(WORSE, 1 + MAX_SIGMAS / math.prod(now["shape"]) ** 0.5)
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
