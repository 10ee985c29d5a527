"""How far a result is from its reference. No single figure tells: PCC is blind to scale and offset, ULPs
blame cancellation on the op, norms hide a single bad element."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Errors:
    """Errors of a result against a reference. If the result is bfloat16, the reference is rounded once for `exact`,
    `raw` and `scaled`.

    Attributes:
        pcc: Pearson correlation; 1 where result and reference are equal, whatever they are
        max_abs: largest |result - reference|
        relative_norm: Frobenius norm of the error over that of the reference
        exact: share of elements that equal the rounded reference
        nearest: share of elements that no value of the result's type beats: as `exact`, but of a tie either is right
        raw: share within 1 ULP of it, counted in representable bfloat16 values
        scaled: largest distance from it, in units of bfloat16's spacing at the size of the operands
        worst: index of the element of `scaled`
        worst_values: result and reference there
    """

    pcc: float
    max_abs: float
    relative_norm: float
    exact: float
    nearest: float
    raw: float
    scaled: float
    worst: tuple[int, ...]
    worst_values: tuple[float, float]


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
    size = exact.abs() if operands is None else operands.detach().double()
    # What lies far below its row says little of it: the spacing is at least that at 1/64 of the row's RMS.
    row_rms = exact.square().mean(dim=-1, keepdim=True).sqrt()
    scaled = (y - rounded).abs() / bfloat16_spacing(torch.maximum(size, row_rms / 64))
    scaled = torch.nan_to_num(scaled, nan=torch.inf)
    worst = torch.unravel_index(scaled.argmax(), scaled.shape)
    return Errors(
        pcc=pearson(y, exact),
        max_abs=(y - exact).abs().max().item(),
        relative_norm=0.0 if torch.equal(y, exact) else ((y - exact).norm() / exact.norm()).item(),
        exact=(y == rounded).double().mean().item(),
        nearest=((y - exact).abs() <= (rounded - exact).abs()).double().mean().item(),
        raw=((_position(y) - _position(rounded)).abs() <= 1).double().mean().item(),
        scaled=scaled[worst].item(),
        worst=tuple(int(i) for i in worst),
        worst_values=(y[worst].item(), exact[worst].item()),
    )


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
