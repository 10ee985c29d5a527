# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How far a result is from its reference.

No single figure tells: PCC is blind to scale and offset, a norm hides a single bad element, and where terms cancel,
ULPs of the small sum charge the op with the rounding of its inputs.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Errors:
    """Errors of a result against a reference, computed in float64. `equal`, `raw` and `scaled` compare with the
    reference rounded once to the result's dtype, all else with the reference as it is.

    An element far below the RMS of its row has a large relative error whatever the op does. So `scaled` and
    `max_relative` take each element's size as at least 1/64 of its row's RMS.

    Attributes:
        pcc: Pearson correlation; 1 where result and reference are equal, even if both are constant
        cosine: of the angle between the two
        max_abs: largest |result - reference|
        mean_abs: mean |result - reference|
        max_relative: largest |result - reference| / |reference|
        relative_norm: Frobenius norm of the error over that of the reference
        equal: share of elements that are the rounded reference (ties to even)
        nearest: share of elements that no value of the result's dtype beats: `equal`, and a tie rounded either way
        raw: share of elements at most one representable bfloat16 value from the rounded reference
        scaled: largest distance from the rounded reference, in units of bfloat16's spacing at the size of the operands
        scaled_p99: what 99% of those distances do not exceed
        worst: index of the element with the largest of those distances
        worst_values: result and reference there
        worst_row: index of the row with the largest relative norm of its error
        worst_row_norm: that relative norm; infinite if the row holds a NaN
        scale, offset: of the least-squares fit result = scale * reference + offset, over elements that are finite in
            both; NaN if the reference is constant
        nans, infs: how many the result has
        reference_nans, reference_infs: how many the reference has
    """

    pcc: float
    cosine: float
    max_abs: float
    mean_abs: float
    max_relative: float
    relative_norm: float
    equal: float
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
        operands: (..., W), sum of the magnitudes of the terms that add up to each element, where they may cancel: for
            a LayerNorm |x_hat * gamma| + |beta|. Default: |reference|.
    """
    y, expected = result.detach().double(), reference.detach().double()
    rounded = expected.to(result.dtype).double()
    error = (y - expected).abs()
    scaled = scaled_ulps(result, reference, operands).abs()
    worst = torch.unravel_index(scaled.argmax(), scaled.shape)
    rows = torch.nan_to_num(_ratio(error.norm(dim=-1), expected.norm(dim=-1)), nan=torch.inf)
    worst_row = torch.unravel_index(rows.argmax(), rows.shape)
    scale, offset = fit(y, expected)
    return Errors(
        pcc=pearson(y, expected),
        cosine=1.0
        if torch.equal(y, expected)
        else float(y.flatten() @ expected.flatten() / (y.norm() * expected.norm())),
        max_abs=error.max().item(),
        mean_abs=error.mean().item(),
        max_relative=_ratio(error, torch.maximum(expected.abs(), _least_size(expected))).max().item(),
        relative_norm=_ratio(error.norm(), expected.norm()).item(),
        equal=(y == rounded).double().mean().item(),
        nearest=(error <= (rounded - expected).abs()).double().mean().item(),
        raw=((_position(y) - _position(rounded)).abs() <= 1).double().mean().item(),
        scaled=scaled[worst].item(),
        scaled_p99=scaled.flatten().kthvalue(math.ceil(0.99 * scaled.numel())).values.item(),
        worst=tuple(int(i) for i in worst),
        worst_values=(y[worst].item(), expected[worst].item()),
        worst_row=tuple(int(i) for i in worst_row),
        worst_row_norm=rows[worst_row].item(),
        scale=scale,
        offset=offset,
        nans=int(y.isnan().sum()),
        infs=int(y.isinf().sum()),
        reference_nans=int(expected.isnan().sum()),
        reference_infs=int(expected.isinf().sum()),
    )


def scaled_ulps(
    result: torch.Tensor, reference: torch.Tensor, operands: torch.Tensor | None = None, rounded: bool = True
) -> torch.Tensor:
    """Each element's signed error in units of bfloat16's spacing at the size of its operands; infinite for a NaN.

    Args: as `compare`'s, and
        rounded: against the reference rounded once to the result's dtype, else against the reference as it is
    Returns: (..., W) float64
    """
    y, expected = result.detach().double(), reference.detach().double()
    size = expected.abs() if operands is None else operands.detach().double()
    target = expected.to(result.dtype).double() if rounded else expected
    return torch.nan_to_num((y - target) / bfloat16_spacing(torch.maximum(size, _least_size(expected))), nan=torch.inf)


def _least_size(expected: torch.Tensor) -> torch.Tensor:
    """(..., 1): 1/64 of each row's RMS, the least size that an element's error is measured against."""
    return expected.square().mean(dim=-1, keepdim=True).sqrt() / 64


def _ratio(error: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """error / size, and 0 rather than NaN where both are 0."""
    return torch.where(error == 0, 0.0, error / size)


def fit(y: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Scale and offset of the least-squares fit y = scale * expected + offset of what is finite in both."""
    y, expected = y.flatten(), expected.flatten()
    if not (finite := y.isfinite() & expected.isfinite()).all():
        y, expected = y[finite], expected[finite]
    if not len(y):
        return math.nan, math.nan
    centred = expected - expected.mean()
    if not centred.any():
        return math.nan, math.nan
    scale = float(centred @ y / (centred @ centred))
    return scale, float(y.mean() - scale * expected.mean())


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
