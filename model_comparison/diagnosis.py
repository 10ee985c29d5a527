"""What kind of fault a norm's output looks like: which wrong formula gives it, and how well.

Each fault that is known is a formula of its own. A result is explained by one if it is hardly farther from that
formula, evaluated in float64, than a correct rounding of it would be. That is a hint: two faults may give the same.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from integration import Formula
from model_comparison.block import NormTap
from model_comparison.metrics import scaled_ulps
from model_comparison.recording import RecordedNorm

# Of a correct rounding's error: what is left of a fault that is explained.
MAX_RESIDUAL = 1.5
# An explanation makes the squared residual smaller by so much of its own scatter (chi squared, five sigmas) ...
MIN_GAIN = 25.0
# ... and one with more free parameters leaves so much less than a simpler one.
SIMPLER = 0.9
FEW_TOKENS = 4  # below, neither a token nor a column can be told from the rest
LOCAL_ULP = 3.0  # an element that is off by more is bad whatever the others are


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
    """A wrong formula, evaluated: `values` (T, W) float64; `freedom` is how many parameters were fitted per column."""

    kind: str
    hint: str
    values: torch.Tensor
    order: int  # 0: nothing was fitted, 1: one number was, 2: one for each column
    note: str = ""


def diagnose(norm: RecordedNorm, tap: NormTap, holds: bool) -> Diagnosis:
    """
    Args:
        tap: of the device
        holds: the verdict on it against float64
    """
    if not norm.launches:
        return Diagnosis("not run", "The device ran no launch for it.", "launches: 0")
    width = tap.output.shape[-1]
    x, y = tap.input.reshape(-1, width), tap.output.reshape(-1, width)
    golden, operands = norm.golden(x)
    if not (y.isfinite() & golden.isfinite()).all():
        return _not_finite(norm, x, y, golden)
    own = _residual(y, golden)
    spread = f"the error is {_times(own)} that of a correct rounding"
    if holds:
        return Diagnosis("rounding", "Nothing but rounding is left.", spread)
    return _local(y, golden, operands) or _explained(norm, x, y, golden, own) or _unexplained(y, golden, own, spread)


def applied_weights(norm: RecordedNorm, tap: NormTap) -> tuple[torch.Tensor, torch.Tensor] | None:
    """gamma and beta as the device applied them, (W,) float64 each: per column the least-squares fit of the output to
    gamma * x_hat + beta. None if there are too few tokens to tell."""
    width = tap.output.shape[-1]
    x, y = tap.input.reshape(-1, width), tap.output.reshape(-1, width).double()
    if len(y) < FEW_TOKENS:
        return None
    x_hat = norm.formula.golden(x, None, None)
    if norm.beta is None:
        return (y * x_hat).sum(0) / x_hat.square().sum(0), torch.zeros(width, dtype=torch.float64)
    mean = x_hat.mean(0)
    gamma = ((x_hat - mean) * y).sum(0) / (x_hat - mean).square().sum(0)
    return gamma, y.mean(0) - gamma * mean


def _not_finite(norm: RecordedNorm, x: torch.Tensor, y: torch.Tensor, golden: torch.Tensor) -> Diagnosis:
    bad = ~y.isfinite()
    evidence = (
        f"{int(y.isnan().sum())} NaN and {int(y.isinf().sum())} Inf in the result, {int((~golden.isfinite()).sum())} in"
        f" float64: {_which('token', bad.any(1))}, {_which('column', bad.any(0))}"
    )
    causes = [("its input", x), ("gamma", norm.gamma), ("beta", norm.beta)]
    sources = [name for name, tensor in causes if tensor is not None and not tensor.isfinite().all()]
    if sources:
        hint = f"There is NaN or Inf in {' and '.join(sources)}."
    elif golden.isfinite().all():
        hint = "The device made NaN or Inf of finite weights and input."
    else:
        hint = "Finite weights and input overflow, in float64, too."
    return Diagnosis("NaN or Inf", hint, evidence)


def _local(y: torch.Tensor, golden: torch.Tensor, operands: torch.Tensor) -> Diagnosis | None:
    """A fault of few tokens or few columns, with all else right."""
    bad = scaled_ulps(y, golden, operands).abs() > LOCAL_ULP
    tokens, columns = bad.any(1), bad.any(0)
    rest = (
        f"{int(bad.sum())} elements are off by more than {LOCAL_ULP:g} ULP, the largest by"
        f" {(y.double() - golden).abs().max().item():.3g}"
    )
    if not bad.any():
        return None
    if len(y) >= FEW_TOKENS and tokens.sum() <= len(y) / 4 and _residual(y[~tokens], golden[~tokens]) <= MAX_RESIDUAL:
        which, token = _which("token", tokens), int(tokens.nonzero()[0])
        others = [other for other in range(len(y)) if other != token]
        stale = [other for other in others if _residual(y[token], golden[other]) <= MAX_RESIDUAL]
        what = "is zero" if not y[token].any() else f"holds the result of token {stale[0]}" if stale else "is wrong"
        return Diagnosis("bad token", f"Only {which} {what}: the others are right.", rest)
    good = ~columns
    if good.any() and columns.sum() <= y.shape[1] / 4 and _residual(y[:, good], golden[:, good]) <= MAX_RESIDUAL:
        tail = bool(columns[-1]) and bool(columns[int(columns.nonzero()[0]) :].all())
        hint = f"Only {_which('column', columns)} {'is' if columns.sum() == 1 else 'are'} wrong"
        hint += ", the end of the row: suspect the padding mask or the last piece." if tail else "."
        return Diagnosis("bad columns", hint, rest)
    return None


def _explained(
    norm: RecordedNorm, x: torch.Tensor, y: torch.Tensor, golden: torch.Tensor, own: float
) -> Diagnosis | None:
    explaining: list[tuple[float, _Suspect]] = []
    for suspect in _suspects(norm, x, y, golden):
        residual = _residual(y, suspect.values)
        if suspect.order == 2:
            residual *= (len(y) / (len(y) - 1)) ** 0.5  # a fit of each column takes one token's freedom
        if residual <= MAX_RESIDUAL and y.numel() * (1 - (residual / own) ** 2) > MIN_GAIN:
            explaining.append((residual, suspect))
    if not explaining:
        return None
    residual, suspect = min(explaining, key=lambda found: found[0] / SIMPLER ** found[1].order)
    others = [
        other.kind
        for near, other in explaining
        if other is not suspect and other.order <= suspect.order and near <= residual / SIMPLER
    ]
    evidence = f"the error is {_times(own)} that of a correct rounding, and {_times(residual)} for that formula"
    notes = [suspect.note] if suspect.note else []
    if others:
        notes.append(f"nearly as well explained by: {', '.join(others)}")
    return Diagnosis(suspect.kind, suspect.hint, "; ".join([evidence, *notes]))


def _suspects(norm: RecordedNorm, x: torch.Tensor, y: torch.Tensor, golden: torch.Tensor) -> Iterator[_Suspect]:
    formula = norm.formula
    gamma, beta = norm.gamma, norm.beta
    shift = torch.zeros(1, dtype=torch.float64) if beta is None else beta.double()
    unshifted, device = golden - shift, y.double()

    def of(changed: Formula, gamma: torch.Tensor | None) -> torch.Tensor:
        return changed.golden(x, gamma, None)

    x_hat = of(formula, None)
    yield _Suspect("all zero", "The output is zero: nothing was written.", torch.zeros_like(golden), 0)
    yield _Suspect("not normalized", "The output is the input.", x.double(), 0)
    if beta is not None:
        yield _Suspect(
            "dropped beta", "The output is the norm without beta.", unshifted, 0, _beta_match(device, golden, shift)
        )
    if gamma is not None:
        yield _Suspect("dropped gamma", "The output is the norm without gamma.", x_hat + shift, 0)
        if formula.gamma_offset:
            plain = of(replace(formula, gamma_offset=0.0), gamma) + shift
            yield _Suspect("gamma without 1", "gamma is applied as it is kept, not 1 + gamma.", plain, 0)
    if gamma is not None and beta is not None:
        swapped = of(formula, beta) + gamma.double()
        yield _Suspect("swapped gamma and beta", "gamma and beta have changed places.", swapped, 0)
    other = replace(formula, subtract_mean=not formula.subtract_mean)
    hint = "The mean is not subtracted." if formula.subtract_mean else "The mean is subtracted, as in a LayerNorm."
    yield _Suspect("no mean" if formula.subtract_mean else "mean", hint, of(other, gamma) + shift, 0)
    if not formula.subtract_mean and gamma is not None:
        other = replace(formula, round_before_gamma=not formula.round_before_gamma)
        hint = "once" if formula.round_before_gamma else "before gamma, too"
        yield _Suspect("order of rounding", f"The output is rounded {hint}.", of(other, gamma) + shift, 0)

    scale = _slope(device - shift, unshifted)
    what = "The output" if beta is None else "The normalized part, before beta,"
    hint = f"{what} is scaled by {scale:.4f}: gamma or 1 / std."
    yield _Suspect(f"scale {scale:.4f}", hint, scale * unshifted + shift, 1)
    if beta is not None:
        scale = _slope(device, golden)
        yield _Suspect(
            f"scale {scale:.4f} of all", f"The whole output, with beta, is scaled by {scale:.4f}.", scale * golden, 1
        )
    offset = (device - golden).mean().item()
    yield _Suspect(f"offset {offset:.3g}", f"{offset:.4g} is added to each element.", golden + offset, 1)
    if (found := _fitted_eps(formula, x, device - shift, unshifted)) is not None:
        values = of(replace(formula, epsilon=found[0]), gamma) + shift
        hint = f"eps is about {found[0]:.2g} in place of {formula.epsilon:g}."
        yield _Suspect("wrong eps", hint, values, 1, found[1])

    if len(y) < FEW_TOKENS:
        return
    gain = ((device - shift) * x_hat).sum(0) / x_hat.square().sum(0)
    loaded = torch.ones_like(gain) if gamma is None else gamma.double() + formula.gamma_offset
    yield _Suspect("wrong gamma", f"gamma is another one{_relation(gain, loaded)}.", x_hat * gain + shift, 2)
    offsets = (device - unshifted).mean(0)
    yield _Suspect(
        "wrong beta", f"beta is another one{_relation(offsets, shift.expand_as(gain))}.", unshifted + offsets, 2
    )


def _unexplained(y: torch.Tensor, golden: torch.Tensor, own: float, spread: str) -> Diagnosis:
    error = y.double() - golden
    tokens = error.norm(dim=1) / golden.norm(dim=1)
    even = (tokens.max() / tokens.median()).item()
    evidence = f"{spread}; the worst token's is {even:.2g} times the median token's"
    if own <= 10 * MAX_RESIDUAL and even < 3:
        return Diagnosis("imprecise", "No known fault explains it; it looks like imprecise arithmetic.", evidence)
    return Diagnosis("unknown", "No known fault explains it.", evidence)


def _residual(y: torch.Tensor, values: torch.Tensor) -> float:
    """How far `y` is from `values`, in units of how far their correct rounding is."""
    rounding = (values.to(y.dtype).double() - values).norm().item()
    distance = (y.double() - values).norm().item()
    return 0.0 if distance == 0 else distance / rounding if rounding else math.inf


def _times(factor: float) -> str:
    return f"{factor:.2f} times" if factor < 100 else f"{factor:.3g} times"


def _slope(y: torch.Tensor, of: torch.Tensor) -> float:
    return float((y * of).sum() / of.square().sum())


def _beta_match(device: torch.Tensor, golden: torch.Tensor, beta: torch.Tensor) -> str:
    missing = (golden - device).mean(0)
    correlation = torch.corrcoef(torch.stack([missing, beta]))[0, 1].item()
    return f"what is missing, averaged by column, correlates with beta by {correlation:.5f}"


def _fitted_eps(formula: Formula, x: torch.Tensor, y: torch.Tensor, golden: torch.Tensor) -> tuple[float, str] | None:
    """The eps that makes `golden` (T, W) rows as large as those of `y`, and how far they differ in that; None if no eps
    does."""
    x = x.double()
    size = x.var(dim=1, correction=0) if formula.subtract_mean else x.square().mean(1)
    scales = (y * golden).sum(1) / golden.square().sum(1)
    # The row that shows eps best is the one with the smallest variance.
    row = int(size.argmin())
    eps = ((size[row] + formula.epsilon) / scales[row].square() - size[row]).item()
    if not 0 <= eps < math.inf:
        return None
    return (
        eps,
        f"tokens come out {scales.min().item():.4f} to {scales.max().item():.4f} times as large, by their variance",
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
    """Names the places of a mask (N,): "token 3", "columns 96 to 127", "17 columns from 3 to 88"."""
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
