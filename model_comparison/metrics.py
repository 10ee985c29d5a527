"""How far a result is from its reference. No single figure tells: PCC is blind to scale and offset, ULPs
blame cancellation on the op, norms hide a single bad element."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Errors:
    """Errors of a result against a reference, all in float64. If the result is bfloat16, the reference is rounded once
    for `exact`, `raw` and `scaled`.

    What lies far below its row says little of it. So where something is measured relative to an element (`scaled`,
    `max_relative`), the element counts as no smaller than 1/64 of its row's RMS.

    Attributes:
        pcc: Pearson correlation; 1 where result and reference are equal, whatever they are
        cosine: of the angle between the two
        max_abs: largest |result - reference|
        mean_abs: their mean
        max_relative: largest |result - reference| / |reference|
        relative_norm: Frobenius norm of the error over that of the reference
        exact: share of elements that equal the rounded reference
        nearest: share of elements that no value of the result's type beats: as `exact`, but of a tie either is right
        raw: share within 1 ULP of it, counted in representable bfloat16 values
        scaled: largest distance from it, in units of bfloat16's spacing at the size of the operands
        scaled_p99: what 99% of those distances do not exceed
        worst: index of the element of `scaled`
        worst_values: result and reference there
        worst_row: index of the row with the largest relative norm
        worst_row_norm: that relative norm; infinite if the row holds a NaN
        scale, offset: of the least-squares fit result = scale * reference + offset, of what is finite in both; NaN if
            the reference is constant
        nans, infs: how many the result has
        reference_nans, reference_infs: how many the reference has
    """

    pcc: float
    cosine: float
    max_abs: float
    mean_abs: float
    max_relative: float
    relative_norm: float
    exact: float
    nearest: float
    raw: float
    scaled: float
    scaled_p99: float
    worst: tuple[int, ...]
    worst_values: tuple[float, float]
    worst_row: tuple[int, ...]
    worst_row_norm: float
    scale: float
    offset: float
    nans: int
    infs: int
    reference_nans: int
    reference_infs: int


def compare(result: torch.Tensor, reference: torch.Tensor, operands: torch.Tensor | None = None) -> Errors:
    """
    Args:
        result: (..., W) bfloat16, or wider
        reference: (..., W), float64 or as the other implementation gives it
        operands: (..., W), size of the terms that were added to make each element, where they may cancel: for a norm
            |x_hat * gamma| + |beta|. Default: |reference|.
    """
    y, exact = result.detach().double(), reference.detach().double()
    rounded = exact.to(result.dtype).double()
    error = (y - exact).abs()
    scaled = scaled_ulps(result, reference, operands).abs()
    worst = torch.unravel_index(scaled.argmax(), scaled.shape)
    rows = torch.nan_to_num(_ratio(error.norm(dim=-1), exact.norm(dim=-1)), nan=torch.inf)
    worst_row = torch.unravel_index(rows.argmax(), rows.shape)
    scale, offset = fit(y, exact)
    return Errors(
        pcc=pearson(y, exact),
        cosine=1.0 if torch.equal(y, exact) else float(y.flatten() @ exact.flatten() / (y.norm() * exact.norm())),
        max_abs=error.max().item(),
        mean_abs=error.mean().item(),
        max_relative=_ratio(error, torch.maximum(exact.abs(), _least_size(exact))).max().item(),
        relative_norm=_ratio(error.norm(), exact.norm()).item(),
        exact=(y == rounded).double().mean().item(),
        nearest=(error <= (rounded - exact).abs()).double().mean().item(),
        raw=((_position(y) - _position(rounded)).abs() <= 1).double().mean().item(),
        scaled=scaled[worst].item(),
        scaled_p99=scaled.flatten().kthvalue(math.ceil(0.99 * scaled.numel())).values.item(),
        worst=tuple(int(i) for i in worst),
        worst_values=(y[worst].item(), exact[worst].item()),
        worst_row=tuple(int(i) for i in worst_row),
        worst_row_norm=rows[worst_row].item(),
        scale=scale,
        offset=offset,
        nans=int(y.isnan().sum()),
        infs=int(y.isinf().sum()),
        reference_nans=int(exact.isnan().sum()),
        reference_infs=int(exact.isinf().sum()),
    )


def scaled_ulps(
    result: torch.Tensor, reference: torch.Tensor, operands: torch.Tensor | None = None, rounded: bool = True
) -> torch.Tensor:
    """Each element's signed error in units of bfloat16's spacing at the size of its operands; infinite for a NaN.

    Args: as `compare`'s, and
        rounded: against the reference rounded to the result's type, else as it is
    Returns: (..., W) float64
    """
    y, exact = result.detach().double(), reference.detach().double()
    size = exact.abs() if operands is None else operands.detach().double()
    target = exact.to(result.dtype).double() if rounded else exact
    return torch.nan_to_num((y - target) / bfloat16_spacing(torch.maximum(size, _least_size(exact))), nan=torch.inf)


def _least_size(exact: torch.Tensor) -> torch.Tensor:
    """(..., 1): what an element counts as at least, 1/64 of its row's RMS."""
    return exact.square().mean(dim=-1, keepdim=True).sqrt() / 64


def _ratio(error: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """error / size; no error of nothing is none."""
    return torch.where(error == 0, 0.0, error / size)


def fit(y: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    """Scale and offset of the least-squares fit y = scale * exact + offset of what is finite in both."""
    y, exact = y.flatten(), exact.flatten()
    if not (finite := y.isfinite() & exact.isfinite()).all():
        y, exact = y[finite], exact[finite]
    if not len(y):
        return math.nan, math.nan
    centred = exact - exact.mean()
    if not centred.any():
        return math.nan, math.nan
    scale = float(centred @ y / (centred @ centred))
    return scale, float(y.mean() - scale * exact.mean())


def bfloat16_spacing(size: torch.Tensor) -> torch.Tensor:
    """Distance of neighbouring bfloat16 values at `size`: 2^(exponent - 7), 8 bits of significand."""
    smallest_normal = torch.finfo(torch.bfloat16).tiny
    return torch.exp2(torch.floor(torch.log2(size.clamp(min=smallest_normal))) - 7)


def pearson(a: torch.Tensor, b: torch.Tensor) -> float:
    """Correlation of all elements, in float64."""
    if torch.equal(a, b):
        return 1.0
    a, b = (t.double().flatten() - t.double().mean() for t in (a, b))
    return float(a @ b / (a.norm() * b.norm()))


def _position(values: torch.Tensor) -> torch.Tensor:
    """Index of each value, rounded to bfloat16, among all of them in order; zero for both zeros."""
    bits = values.to(torch.bfloat16).view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
