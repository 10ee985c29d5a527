# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""MXFP4 matrices as DeepSeek-V4's checkpoints hold those of routed experts: two E2M1 in a byte, one E8M0 scale for 32.

E2M1 is a sign, two bits of exponent and one of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4, 6, and their negatives. Of the two in
a byte, the low nibble is the column on the left. So (R, C) is stored as (R, C / 2) int8 and (R, C / 32) float8_e8m0fnu.
"""

from itertools import pairwise

import torch

from weights_tools.float8 import E8M0, power_of_two_above

PACKED = torch.int8
GROUP = 32  # columns that share a scale
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_STRIP = 128  # rows that are unpacked at once


def unpacked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the matrix that is stored in `shape` bytes."""
    return (*shape[:-1], 2 * shape[-1])


def dequantize(packed: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The matrix's values, rounded once: bfloat16 holds each product of an E2M1 and a power of two. 128 rows at a time,
    so that no second copy of the whole is needed.

    Args:
        packed: (R, C / 2) int8, C a multiple of 32
        scale: (R, C / 32) float8_e8m0fnu
        dtype: of the result

    Returns:
        (R, C)
    """
    rows, columns = unpacked_shape(tuple(packed.shape))
    values = torch.empty(rows, columns, dtype=dtype)
    if not values.numel():  # or a shape like (2**30, 0) would take 2**23 turns of the loop
        return values
    e2m1 = torch.tensor([*_POSITIVE, *(-value for value in _POSITIVE)], dtype=torch.bfloat16)
    pairs = torch.stack([e2m1.repeat(16), e2m1.repeat_interleave(16)], dim=1)
    # By a byte's value, its two E2M1 as one word: numpy looks these up five times as fast as torch.
    words = pairs.view(torch.int32).flatten().numpy()
    for start in range(0, rows, _STRIP):
        strip = slice(start, start + _STRIP)
        unpacked = torch.from_numpy(words[packed[strip].view(torch.uint8).numpy()]).view(torch.bfloat16)
        groups = unpacked.view(-1, columns // GROUP, GROUP) * scale[strip].to(torch.bfloat16).unsqueeze(-1)
        values[strip] = groups.flatten(1)
    return values


def quantize(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, C) float32 as MXFP4: (R, C / 2) int8 and (R, C / 32) float8_e8m0fnu. A scale is the least by which no value
    exceeds 6; values halfway between two go to the one nearer to zero."""
    groups = values.view(len(values), -1, GROUP)
    scale = power_of_two_above(groups.abs().amax(dim=2) / _POSITIVE[-1])
    scaled = (groups / scale[..., None]).flatten(1)
    between = torch.tensor([(low + high) / 2 for low, high in pairwise(_POSITIVE)])
    nibble = torch.bucketize(scaled.abs(), between) + 8 * scaled.signbit()
    packed = nibble[:, 0::2] + 16 * nibble[:, 1::2]
    return packed.to(torch.uint8).view(PACKED), scale.to(E8M0)
