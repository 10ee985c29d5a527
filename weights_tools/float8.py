# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""float8_e4m3 matrices as DeepSeek's checkpoints hold them: one scale for each scale block of 128x128 weights.

The scales are stored beside their matrix, V3's as `<name>.weight_scale_inv`, V4's as `<name>.scale`: a value is the
float8 times the scale of its block. They are float32, or E8M0: a byte b stands for 2^(b - 127), 255 for NaN. Scale
blocks at the right and lower edge are smaller where a size is no multiple of 128: the 576 rows of V3's
kv_a_proj_with_mqa are 4.5 blocks.
"""

import torch
from torch.nn.functional import pad

FLOAT8 = torch.float8_e4m3fn
E8M0 = torch.float8_e8m0fnu
SCALE_BLOCK = (128, 128)  # rows, columns: `weight_block_size` in DeepSeek's config.json
SCALE_SUFFIX = "_scale_inv"  # of `<name>.weight`'s key
SCALE_NAME = ".scale"  # in the place of its `.weight`


def scale_shape(shape: tuple[int, ...], scale_block: tuple[int, int] = SCALE_BLOCK) -> tuple[int, ...]:
    """The shape of a matrix's scales: its scale blocks along each dimension, the partial ones at the edges included."""
    return tuple(-(-size // step) for size, step in zip(shape, scale_block, strict=True))


def dequantize(
    weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype, scale_block: tuple[int, int] = SCALE_BLOCK
) -> torch.Tensor:
    """The matrix's values, multiplied in float32 and rounded once.

    One row of scale blocks at a time, so that no float32 copy of the whole is needed.

    Args:
        weight: (R, C) float8_e4m3fn
        scale: `scale_shape((R, C), scale_block)` float32 or float8_e8m0fnu
        dtype: of the result
    """
    # config.json may name blocks far larger than the matrix, and a row of scales is repeated by the block's width.
    rows, columns = (min(step, size) for step, size in zip(scale_block, weight.shape, strict=True))
    values = torch.empty(weight.shape, dtype=dtype)
    if not values.numel():  # or a shape like (2**30, 0) would take 2**23 turns of the loop
        return values
    for number, scales in enumerate(scale.float()):
        strip = slice(number * rows, (number + 1) * rows)
        values[strip] = weight[strip].float() * scales.repeat_interleave(columns)[: weight.shape[1]]
    return values


def quantize(values: torch.Tensor, scale_dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, C) float32 as float8_e4m3fn (R, C) and its scales: the largest value of each scale block becomes float8's
    largest, or with E8M0 scales, which are powers of two, more than half of it."""
    rows, columns = SCALE_BLOCK
    weight = torch.empty(values.shape, dtype=FLOAT8, device="cpu")
    scale = torch.empty(scale_shape(tuple(values.shape)), dtype=torch.float32, device="cpu")
    for number, scales in enumerate(scale):
        strip = slice(number * rows, (number + 1) * rows)
        padded = pad(values[strip], (0, scale.shape[1] * columns - values.shape[1]))
        blocks = padded.view(len(padded), -1, columns)
        scales[:] = blocks.abs().amax(dim=(0, 2)) / torch.finfo(FLOAT8).max
        scales[scales == 0] = 1.0  # of zeros alone: 0 / 0 would be NaN
        if scale_dtype == E8M0:
            scales[:] = power_of_two_above(scales)
        weight[strip] = (blocks / scales[:, None]).view(len(padded), -1)[:, : values.shape[1]]
    return weight, scale.to(scale_dtype)


def power_of_two_above(values: torch.Tensor) -> torch.Tensor:
    """float32: the least powers of two that E8M0 has and that are not less than `values`; 1 for zeros."""
    mantissa, exponent = torch.frexp(values)  # mantissa in [0.5, 1), or 0
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent).clamp(-127, 127)
    return torch.ldexp(torch.ones_like(values), exponent)
