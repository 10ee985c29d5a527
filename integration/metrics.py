"""How far a bfloat16 result is from its reference. No single figure tells: PCC is blind to scale and offset, ULPs
blame cancellation on the op, norms hide a single bad element."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Errors:
    """Errors of a result against a float64 reference, which is rounded once to bfloat16 where ULPs are counted.

    Attributes:
        pcc: Pearson correlation; 1.0 for results that equal a constant reference
        max_abs: largest |result - reference|
        exact: share of elements that are the correctly rounded value
        raw: share within 1 ULP of it, counted in representable values
        scaled: |result - rounded reference| in units of bfloat16's spacing at the size of the operands, the largest
        relative_norm: Frobenius norm of the error over that of the reference
        worst: index of the element of `scaled`
        worst_values: result and reference there
    """

    pcc: float
    max_abs: float
    exact: float
    raw: float
    scaled: float
    relative_norm: float
    worst: tuple[int, ...]
    worst_values: tuple[float, float]


def compare(result: torch.Tensor, reference: torch.Tensor, operands: torch.Tensor | None = None) -> Errors:
    """
    Args:
        result: (..., W), bfloat16 or wider. A wider one is not rounded.
        reference: (..., W), float64 or the other implementation's dtype
        operands: (..., W), size of the terms that were added to make each element, where they may cancel: for a norm
            |x_hat * gamma| + |beta|. Default: |reference|.
    """
    y, exact = result.detach().to(torch.float64), reference.detach().to(torch.float64)
    rounded = exact.to(torch.bfloat16)
    size = exact.abs() if operands is None else operands.detach().to(torch.float64)
    # An element far below its row is no measure of the row's scale: 1/64 of the row's RMS is the least that counts.
    row_rms = exact.square().mean(dim=-1, keepdim=True).sqrt()
    scaled = (y - rounded.to(torch.float64)).abs() / bfloat16_spacing(torch.maximum(size, row_rms / 64))
    scaled = torch.nan_to_num(scaled, nan=torch.inf)
    worst = torch.unravel_index(scaled.argmax(), scaled.shape)
    return Errors(
        pcc=pearson(y, exact),
        max_abs=(y - exact).abs().max().item(),
        exact=(y == rounded).double().mean().item(),
        raw=((_position(y.to(torch.bfloat16)) - _position(rounded)).abs() <= 1).double().mean().item(),
        scaled=scaled[worst].item(),
        relative_norm=((y - exact).norm() / exact.norm()).item(),
        worst=tuple(int(i) for i in worst),
        worst_values=(y[worst].item(), exact[worst].item()),
    )


def bfloat16_spacing(size: torch.Tensor) -> torch.Tensor:
    """Distance of neighbouring bfloat16 values at `size`: 2^(exponent - 7), 8 bits of significand."""
    smallest_normal = torch.finfo(torch.bfloat16).tiny
    return torch.exp2(torch.floor(torch.log2(size.clamp(min=smallest_normal))) - 7)


def pearson(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    if torch.equal(a, b):
        return 1.0
    return (a @ b / (a.norm() * b.norm())).item()


def _position(values: torch.Tensor) -> torch.Tensor:
    """Index of each bfloat16 among all of them in order, zero for both zeros."""
    bits = values.view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
