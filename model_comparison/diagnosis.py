# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What kind of fault a norm's output looks like: which wrong formula gives it, and how well.

Each known fault is a formula of its own, evaluated in float64. It explains an output that is hardly farther from it
than the formula's correctly rounded result would be. That is a hint: two faults may give the same output.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from integration import Formula
from model_comparison.activations import NormActivation
from model_comparison.metrics import scaled_ulps
from model_comparison.recording import RecordedNorm

# A residual is the distance of an output from a formula, in units of the distance of the formula's correct rounding.
# Of an output that the formula explains. float32 arithmetic is up to four times as far off as a correct rounding
# (measured at widths to 28,672), which in bfloat16 is lost in the last rounding.
MAX_RESIDUAL = {torch.bfloat16: 1.5, torch.float32: 6.0}
# A formula that explains an output is closer to it than the right formula is, by more than chance. With residuals r and
# r_right of n elements, n * (1 - (r / r_right)^2) must exceed 25, the square of five standard deviations: by chance it
# scatters like chi squared with one degree of freedom.
MIN_GAIN = 25.0
# Fitted numbers bring a formula closer by chance. One that fits more (see `_Suspect.fitted`) is preferred only if its
# residual is less than this part of the other's.
SIMPLER = 0.9
NOTHING, ONE_NUMBER, EACH_COLUMN = 0, 1, 2  # values of `_Suspect.fitted`
# With fewer rows, a bad row can't be told from a bad norm, and gamma and beta can't be fitted to the output.
FEW_ROWS = 4
LOCAL_ULP = 3.0  # scaled ULPs; an element that is off by more is bad, even if all others are right


@dataclass(frozen=True)
class Diagnosis:
    """
    Attributes:
        kind: short, for tables: "dropped beta"
        hint: one sentence
        evidence: the figures that it rests on
    """

    kind: str
    hint: str
    evidence: str


@dataclass(frozen=True)
class _Suspect:
    """A wrong formula, evaluated.

    Attributes:
        kind, hint: of the `Diagnosis`, if this explains the output
        values: (T, W) float64
        fitted: how many numbers of the formula were fitted to the output: NOTHING, ONE_NUMBER, or one for EACH_COLUMN
        note: for the evidence
    """

    kind: str
    hint: str
    values: torch.Tensor
    fitted: int
    note: str = ""


class _Output:
    """What the device's norm gave for T rows, and what it should have given.

    Attributes:
        norm: as recorded
        x, y: (T, W) input and output, of the block's dtype
        golden: (T, W) float64
        operands: (T, W) float64, see `RecordedNorm.golden`
        beta: (W,) float64, or (1,) zero where there is none
        before_beta: (T, W) float64, `golden` without beta
    """

    def __init__(self, norm: RecordedNorm, activation: NormActivation) -> None:
        width = activation.output.shape[-1]
        self.norm = norm
        self.x, self.y = activation.input.reshape(-1, width), activation.output.reshape(-1, width)
        self.golden, self.operands = norm.golden(self.x)
        self.beta = torch.zeros(1, dtype=torch.float64) if norm.beta is None else norm.beta.double()
        self.before_beta = self.golden - self.beta

    @cached_property
    def residual(self) -> float:
        return _residual(self.y, self.golden)

    @property
    def max_residual(self) -> float:
        return MAX_RESIDUAL[self.y.dtype]

    def by(self, formula: Formula, gamma: torch.Tensor | None) -> torch.Tensor:
        """(T, W) float64: `formula` of the input, without beta."""
        return formula.golden(self.x, gamma, None)


def diagnose(norm: RecordedNorm, activation: NormActivation, holds: bool) -> Diagnosis:
    """
    Args:
        activation: of the device
        holds: the verdict on it against float64
    """
    if not norm.launches:
        return Diagnosis("not run", "The device ran no launch for it.", "launches: 0")
    output = _Output(norm, activation)
    if not (output.y.isfinite() & output.golden.isfinite()).all():
        return _not_finite(output)
    if holds:
        return Diagnosis("rounding", "Nothing but rounding is left.", _spread(output))
    return _local(output) or _explained(output) or _unexplained(output)


def applied_weights(norm: RecordedNorm, activation: NormActivation) -> tuple[torch.Tensor, torch.Tensor] | None:
    """gamma and beta as the device applied them, (W,) float64 each: per column the least-squares fit of the output to
    gamma * x_hat + beta. None if there are too few rows to tell."""
    width = activation.output.shape[-1]
    x, y = activation.input.reshape(-1, width), activation.output.reshape(-1, width).double()
    if len(y) < FEW_ROWS:
        return None
    x_hat = norm.formula.golden(x, None, None)
    if norm.beta is None:
        return (y * x_hat).sum(0) / x_hat.square().sum(0), torch.zeros(width, dtype=torch.float64)
    mean = x_hat.mean(0)
    gamma = ((x_hat - mean) * y).sum(0) / (x_hat - mean).square().sum(0)
    return gamma, y.mean(0) - gamma * mean


def _not_finite(output: _Output) -> Diagnosis:
    norm, y, golden = output.norm, output.y, output.golden
    bad = ~y.isfinite()
    evidence = (
        f"{int(y.isnan().sum())} NaN and {int(y.isinf().sum())} Inf in the result, {int((~golden.isfinite()).sum())} in"
        f" float64: {_which('row', bad.any(1))}, {_which('column', bad.any(0))}"
    )
    causes = [("its input", output.x), ("gamma", norm.gamma), ("beta", norm.beta)]
    sources = [name for name, tensor in causes if tensor is not None and not tensor.isfinite().all()]
    if sources:
        hint = f"There is NaN or Inf in {' and '.join(sources)}."
    elif golden.isfinite().all():
        hint = "The device made NaN or Inf of finite weights and input."
    else:
        hint = "Finite weights and input overflow, in float64, too."
    return Diagnosis("NaN or Inf", hint, evidence)


def _local(output: _Output) -> Diagnosis | None:
    """A fault of few rows or few columns, with all else right."""
    y, golden, most = output.y, output.golden, output.max_residual
    bad = scaled_ulps(y, golden, output.operands).abs() > LOCAL_ULP
    if not bad.any():
        return None
    rows, columns = bad.any(1), bad.any(0)
    evidence = (
        f"{int(bad.sum())} elements are off by more than {LOCAL_ULP:g} ULP, the largest by"
        f" {(y.double() - golden).abs().max().item():.3g}"
    )
    if len(y) >= FEW_ROWS and rows.sum() <= len(y) / 4 and _residual(y[~rows], golden[~rows]) <= most:
        which, row = _which("row", rows), int(rows.nonzero()[0])
        others = [other for other in range(len(y)) if other != row]
        stale = [other for other in others if _residual(y[row], golden[other]) <= most]
        what = "is zero" if not y[row].any() else f"holds the result of row {stale[0]}" if stale else "is wrong"
        return Diagnosis("bad row", f"Only {which} {what}: the others are right.", evidence)
    good = ~columns
    if good.any() and columns.sum() <= y.shape[1] / 4 and _residual(y[:, good], golden[:, good]) <= most:
        tail = bool(columns[-1]) and bool(columns[int(columns.nonzero()[0]) :].all())
        hint = f"Only {_which('column', columns)} {'is' if columns.sum() == 1 else 'are'} wrong"
        hint += ", the end of the row: suspect the padding mask or the last piece." if tail else "."
        return Diagnosis("bad columns", hint, evidence)
    return None


def _explained(output: _Output) -> Diagnosis | None:
    """By the suspect that leaves the least, a simpler one preferred."""
    rows, elements, own = len(output.y), output.y.numel(), output.residual
    explaining: list[tuple[float, _Suspect]] = []
    for suspect in _suspects(output):
        residual = _residual(output.y, suspect.values)
        if suspect.fitted == EACH_COLUMN:
            residual *= (rows / (rows - 1)) ** 0.5  # the fit takes one of each column's degrees of freedom
        if residual <= output.max_residual and elements * (1 - (residual / own) ** 2) > MIN_GAIN:
            explaining.append((residual, suspect))
    if not explaining:
        return None
    residual, suspect = min(explaining, key=lambda found: found[0] / SIMPLER ** found[1].fitted)
    others = [
        other.kind
        for near, other in explaining
        if other is not suspect and other.fitted <= suspect.fitted and near <= residual / SIMPLER
    ]
    evidence = f"{_spread(output)}, and {_times(residual)} for that formula"
    notes = [suspect.note] if suspect.note else []
    if others:
        notes.append(f"nearly as well explained by: {', '.join(others)}")
    return Diagnosis(suspect.kind, suspect.hint, "; ".join([evidence, *notes]))


def _suspects(output: _Output) -> Iterator[_Suspect]:
    yield from _other_formulas(output)
    yield from _other_numbers(output)
    if len(output.y) >= FEW_ROWS:
        yield from _other_weights(output)


def _other_formulas(output: _Output) -> Iterator[_Suspect]:
    """Those in which nothing is fitted."""
    formula, gamma, beta = output.norm.formula, output.norm.gamma, output.norm.beta

    def suspect(kind: str, hint: str, values: torch.Tensor, note: str = "") -> _Suspect:
        return _Suspect(kind, hint, values, NOTHING, note)

    yield suspect("all zero", "The output is zero: nothing was written.", torch.zeros_like(output.golden))
    yield suspect("not normalized", "The output is the input.", output.x.double())
    if beta is not None:
        note = _beta_match(output)
        yield suspect("dropped beta", "The output is the norm without beta.", output.before_beta, note)
    if gamma is not None:
        without = output.by(formula, None) + output.beta
        yield suspect("dropped gamma", "The output is the norm without gamma.", without)
        if formula.gamma_offset:
            plain = output.by(replace(formula, gamma_offset=0.0), gamma) + output.beta
            yield suspect("gamma without 1", "gamma is applied as it is kept, not 1 + gamma.", plain)
    if gamma is not None and beta is not None:
        swapped = output.by(formula, beta) + gamma.double()
        yield suspect("swapped gamma and beta", "gamma and beta have changed places.", swapped)
    values = output.by(replace(formula, subtract_mean=not formula.subtract_mean), gamma) + output.beta
    if formula.subtract_mean:
        yield suspect("no mean", "The mean is not subtracted.", values)
    else:
        yield suspect("mean", "The mean is subtracted, as in a LayerNorm.", values)
        if gamma is not None:
            values = output.by(replace(formula, round_before_gamma=not formula.round_before_gamma), gamma) + output.beta
            hint = "once" if formula.round_before_gamma else "before gamma, too"
            yield suspect("order of rounding", f"The output is rounded {hint}.", values)
        values = output.by(replace(formula, round_inverse_rms=not formula.round_inverse_rms), gamma) + output.beta
        hint = "not rounded" if formula.round_inverse_rms else "rounded, too"
        yield suspect("rounding of 1 / rms", f"1 / rms is {hint}.", values)


def _other_numbers(output: _Output) -> Iterator[_Suspect]:
    """Those in which one number is fitted to the output."""
    golden, before_beta, beta, y = output.golden, output.before_beta, output.beta, output.y.double()
    has_beta = output.norm.beta is not None
    scale = _slope(y - beta, before_beta)
    what = "The normalized part, before beta," if has_beta else "The output"
    hint = f"{what} is scaled by {scale:.4f}: gamma or 1 / std."
    yield _Suspect(f"scale {scale:.4f}", hint, scale * before_beta + beta, ONE_NUMBER)
    if has_beta:
        scale = _slope(y, golden)
        hint = f"The whole output, with beta, is scaled by {scale:.4f}."
        yield _Suspect(f"scale {scale:.4f} of all", hint, scale * golden, ONE_NUMBER)
    offset = (y - golden).mean().item()
    hint = f"{offset:.4g} is added to each element."
    yield _Suspect(f"offset {offset:.3g}", hint, golden + offset, ONE_NUMBER)
    if (fitted := _fitted_epsilon(output)) is not None:
        epsilon, note = fitted
        formula = output.norm.formula
        values = output.by(replace(formula, epsilon=epsilon), output.norm.gamma) + beta
        hint = f"eps is about {epsilon:.2g} in place of {formula.epsilon:g}."
        yield _Suspect("wrong eps", hint, values, ONE_NUMBER, note)


def _other_weights(output: _Output) -> Iterator[_Suspect]:
    """Those in which a number is fitted for each column."""
    formula, gamma, beta, y = output.norm.formula, output.norm.gamma, output.beta, output.y.double()
    x_hat = output.by(formula, None)
    gains = ((y - beta) * x_hat).sum(0) / x_hat.square().sum(0)
    loaded = torch.ones_like(gains) if gamma is None else gamma.double() + formula.gamma_offset
    hint = f"gamma is another one{_relation(gains, loaded)}."
    yield _Suspect("wrong gamma", hint, x_hat * gains + beta, EACH_COLUMN)
    offsets = (y - output.before_beta).mean(0)
    hint = f"beta is another one{_relation(offsets, beta.expand_as(gains))}."
    yield _Suspect("wrong beta", hint, output.before_beta + offsets, EACH_COLUMN)


def _unexplained(output: _Output) -> Diagnosis:
    error = output.y.double() - output.golden
    rows = error.norm(dim=1) / output.golden.norm(dim=1)
    unevenness = (rows.max() / rows.median()).item()
    evidence = f"{_spread(output)}; the worst row's is {unevenness:.2g} times the median row's"
    if output.residual <= 10 * output.max_residual and unevenness < 3:
        return Diagnosis("imprecise", "No known fault explains it; it looks like imprecise arithmetic.", evidence)
    return Diagnosis("unknown", "No known fault explains it.", evidence)


def _residual(y: torch.Tensor, values: torch.Tensor) -> float:
    """Distance of `y` from `values`, in units of the distance of their correct rounding."""
    rounding = (values.to(y.dtype).double() - values).norm().item()
    distance = (y.double() - values).norm().item()
    return 0.0 if distance == 0 else distance / rounding if rounding else math.inf


def _spread(output: _Output) -> str:
    return f"the error is {_times(output.residual)} that of a correct rounding"


def _times(factor: float) -> str:
    return f"{factor:.2f} times" if factor < 100 else f"{factor:.3g} times"


def _slope(y: torch.Tensor, of: torch.Tensor) -> float:
    """The least-squares fit of y = slope * of."""
    return float((y * of).sum() / of.square().sum())


def _beta_match(output: _Output) -> str:
    missing = (output.golden - output.y.double()).mean(0)
    correlation = torch.corrcoef(torch.stack([missing, output.beta]))[0, 1].item()
    return f"what is missing, averaged by column, correlates with beta by {correlation:.5f}"


def _fitted_epsilon(output: _Output) -> tuple[float, str] | None:
    """The epsilon that makes the right formula's rows as large as the output's, and how far their sizes differ; None if
    no epsilon does."""
    formula, x, golden = output.norm.formula, output.x.double(), output.before_beta
    size = x.var(dim=1, correction=0) if formula.subtract_mean else x.square().mean(1)
    scales = ((output.y.double() - output.beta) * golden).sum(1) / golden.square().sum(1)
    row = int(size.argmin())  # epsilon scales the row with the smallest variance most
    epsilon = ((size[row] + formula.epsilon) / scales[row].square() - size[row]).item()
    if not 0 <= epsilon < math.inf:
        return None
    return (
        epsilon,
        f"rows come out {scales.min().item():.4f} to {scales.max().item():.4f} times as large, by their variance",
    )


def _relation(fitted: torch.Tensor, loaded: torch.Tensor) -> str:
    """What the fitted values have to do with the loaded ones: a factor, another order, or nothing."""
    size = loaded.norm()
    factor = _slope(fitted, loaded)
    if (fitted - factor * loaded).norm() <= 0.01 * size:  # a fit's noise, and gamma's own rounding to bfloat16
        return f": about {factor:.4f} times the one loaded"
    sorted_apart = (fitted.sort().values - loaded.sort().values).norm()
    if sorted_apart <= 0.02 * size and sorted_apart <= 0.25 * (fitted - loaded).norm():
        return ": the values as loaded, in another order"
    return ""


def _which(what: str, bad: torch.Tensor) -> str:
    """Names the places of a mask (N,): "row 3", "columns 96 to 127", "17 columns from 3 to 88"."""
    places = bad.nonzero().flatten().tolist()
    if not places:
        return f"no {what}"
    if len(places) == 1:
        return f"{what} {places[0]}"
    if places[-1] - places[0] + 1 == len(places):
        return f"{what}s {places[0]} to {places[-1]}"
    if len(places) <= 4:
        return f"{what}s {', '.join(map(str, places))}"
    return f"{len(places)} {what}s from {places[0]} to {places[-1]}"
