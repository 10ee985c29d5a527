# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The kernels' arithmetic without the machine: bfloat16 LayerNorm and RMSNorm in torch, to the kernels' bits.

The two functions are the algorithm; those below them are how the chip adds. Each operation is the kernels', in their
order and with their rounding; tests/test_reference.py holds the two to the same bits. All values are float32, but for
x, gamma, beta and the result.

Not modelled: subnormals, which the chip flushes to zero, and exponent 255, which the FPU treats as an ordinary one. So
the values must be finite, and their squares too.
"""

import torch

from micro_ops.layernorm.plan import HALF_FACE_ELEMENTS


def layer_norm(
    x: torch.Tensor, gamma: torch.Tensor | None, beta: torch.Tensor | None, epsilon: float = 1e-6
) -> torch.Tensor:
    """LayerNorm of `x` (rows, W) with gamma and beta (W,), all bfloat16; gives bfloat16."""
    width = x.shape[-1]
    sums, squares = (_lanes(partial) for partial in _partial_sums(x))
    mean = _mean(_total(sums), divisor=2 * width)
    pivot = _bfloat16(mean).float()
    counts = _lanes(_partial_sums(torch.ones(1, width))[0] / 2)
    pivot_lanes = pivot[:, :, None]
    squares = _mad(pivot_lanes, _mad(pivot_lanes, counts, -sums), squares)  # of x - pivot: x^2 - pivot * 2 x + pivot^2
    total, offset = _total(squares), mean - pivot
    variance = _mad(total + total, _inverse(2 * width), -offset * offset)
    scale = torch.where(variance == 0, 0.0, _inverse_sqrt(variance + epsilon))
    y = _mad(x.float(), scale, -(mean * scale))
    if gamma is not None and beta is not None:
        return _bfloat16(_mad(y, gamma.float(), beta.float()))
    y = y if gamma is None else y * gamma.float()
    return _bfloat16(y if beta is None else y + beta.float())


def rms_norm(
    x: torch.Tensor,
    gamma: torch.Tensor | None,
    epsilon: float = 1e-6,
    *,
    round_before_gamma: bool = False,
    round_inverse_rms: bool = False,
) -> torch.Tensor:
    """RMSNorm of `x` (rows, W) with gamma (W,), both bfloat16; gives bfloat16. The flags as in the op."""
    total = _total(_lanes(_partial_sums(x)[1]))
    scale = _inverse_sqrt(_mad(total + total, _inverse(2 * x.shape[-1]), torch.tensor(epsilon)))
    if round_inverse_rms:
        scale = _bfloat16(scale).float()
    if gamma is None:
        return _bfloat16(x.float() * scale)
    if round_before_gamma:
        return _bfloat16(_bfloat16(x.float() * scale).float() * gamma.float())
    return _bfloat16(x.float() * gamma.float() * scale)  # the first product is exact


def _partial_sums(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """128 partial sums a row, of 2 x and of x^2: element e goes to partial sum e % 128 (fpu.h).

    x^2 takes the fidelity phases 1, 2, 3 and 0. SrcA gives the leading 5 bits of its mantissa, or the others in
    phases 1 and 3; SrcB the leading 7, or the others in phases 2 and 3. A phase's exponent is that of its bits'
    places, even if the bits are zero.
    """
    padded = torch.nn.functional.pad(x.float(), (0, -x.shape[-1] % HALF_FACE_ELEMENTS))
    sums = squares = torch.zeros(len(x), HALF_FACE_ELEMENTS)
    for a in padded.reshape(len(x), -1, HALF_FACE_ELEMENTS).unbind(1):
        exponent = _exponent(a)
        sums = _fpu_add(sums, a + a, exponent)
        a_high, b_high = _leading_bits(a, 5), _leading_bits(a, 7)
        squares = _fpu_add(squares, (a - a_high) * b_high, 2 * exponent - 5)
        squares = _fpu_add(squares, a_high * (a - b_high), 2 * exponent - 7)
        squares = _fpu_add(squares, (a - a_high) * (a - b_high), 2 * exponent - 12)
        squares = _fpu_add(squares, a_high * b_high, 2 * exponent)
    return sums, squares


def _lanes(partial_sums: torch.Tensor) -> torch.Tensor:
    """The four vectors of a half face added to one, as (rows, 4 rows of lanes, 8 lanes) (vectors.h, load_sum)."""
    upper, lower = partial_sums.reshape(-1, 2, 4, 8, 2).unbind(1)
    return (upper[..., 0] + upper[..., 1]) + (lower[..., 0] + lower[..., 1])


def _total(lanes: torch.Tensor) -> torch.Tensor:
    """All lanes of each row added up, as (rows, 1) (vectors.h, totals)."""
    eighths = (lanes[:, 0] + lanes[:, 1]) + (lanes[:, 2] + lanes[:, 3])
    quarters = eighths + eighths.roll(4, -1)
    halves = quarters + quarters.roll(2, -1)
    return (halves + halves.roll(1, -1))[:, :1]


def _mean(total: torch.Tensor, divisor: int) -> torch.Tensor:
    """total / divisor, by a product with the rounded 1 / divisor and a Newton step (statistics.h, make_mean)."""
    quotient = total * _inverse(divisor)
    residual = _mad(-quotient, torch.tensor(float(divisor)), total)
    return _mad(residual, _inverse(divisor), quotient)


def _inverse_sqrt(x: torch.Tensor) -> torch.Tensor:
    """A guess from the exponent, and three Newton steps (vectors.h, inverse_sqrt)."""
    y = (0x5F3759DF - (x.view(torch.int32) >> 1)).view(torch.float32)
    for _ in range(3):
        residual = _mad(-(x * y), y, torch.tensor(1.0))
        y = _mad(residual, y / 2, y)
    return y


def _inverse(divisor: int) -> torch.Tensor:
    return torch.tensor(1 / divisor, dtype=torch.float32)


def _fpu_add(dest: torch.Tensor, term: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """dest + term as the FPU accumulates in Dest: both are rounded to float32's last place at the greater of their
    exponents, then the sum to 24 bits. Ties go away from zero, but a negative term's towards it. Source: ttsim's
    model.

    Args:
        exponent: of the term's leading place, which may hold a zero
    """
    unit = torch.exp2(torch.maximum(exponent, _exponent(dest)).double() - 23)
    total = torch.floor(term / unit + 0.5) + dest.sign() * torch.floor(dest.abs() / unit + 0.5)
    excess = torch.exp2((torch.frexp(total).exponent - 24).clamp(min=0).double())
    return (total.sign() * torch.floor(total.abs() / excess + 0.5) * excess * unit).float()


def _mad(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a * b + c as SFPMAD computes it: product and c are cut to 3 bits below float32's last place at the greater of
    their exponents, the lowest bit standing for all that is cut off (rounding to odd), and their sum is rounded
    once.

    A fused multiply-add (float64 rounded to float32) differs from that where product and c cancel. Source: ttsim's
    model.
    """
    unit = torch.exp2(torch.maximum(_exponent(a) + _exponent(b), _exponent(c)).double() - 26)

    def cut(value: torch.Tensor) -> torch.Tensor:
        units = value / unit
        return torch.where(units == units.trunc(), units, 2 * torch.floor(units / 2) + 1)

    return ((cut(a.double() * b.double()) + cut(c.double())) * unit).float()


def _exponent(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x == 0, -127, torch.frexp(x).exponent - 1)


def _leading_bits(x: torch.Tensor, bits: int) -> torch.Tensor:
    """x cut off behind the leading `bits` of its mantissa, the implicit one among them."""
    return (x.view(torch.int32) & -(1 << (24 - bits))).view(torch.float32)


def _bfloat16(x: torch.Tensor) -> torch.Tensor:
    """To nearest, ties away from zero, as the packer and SFPSTOCHRND round."""
    return ((x.view(torch.int32) + 0x8000) & -0x10000).view(torch.float32).to(torch.bfloat16)
