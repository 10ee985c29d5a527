# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a weight's values look like, without a second copy of a large one."""

from typing import NamedTuple

import numpy as np
import torch

from weights_tools.checkpoint import Checkpoint
from weights_tools.float8 import FLOAT8

_CHUNK = 2**20  # elements that are looked at at a time, in float64: 8 MB


class Statistics(NamedTuple):
    """Of a weight's finite values, in float64, quantized ones multiplied by their scales. None where there are none.

    std is the population's: divided by the number of values. absmax is the largest absolute value.
    """

    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    absmax: float | None
    nan: int
    inf: int


def statistics(checkpoint: Checkpoint, key: str) -> Statistics:
    """Reads the one tensor.

    Raises:
        CheckpointError: as `Checkpoint.weight`
    """
    dtype = torch.float32 if checkpoint.scale_key(key) else checkpoint.dtype(key)
    values = checkpoint.weight(key, dtype).flatten()
    count, total, squares, low, high, nan = 0, 0.0, 0.0, torch.inf, -torch.inf, 0
    for start in range(0, values.numel(), _CHUNK):
        chunk = values[start : start + _CHUNK].double()
        finite = chunk.isfinite()
        if not finite.all():
            nan += int(chunk.isnan().sum())
            chunk = chunk[finite]
        if chunk.numel():
            count += chunk.numel()
            total += chunk.sum().item()
            squares += chunk.dot(chunk).item()
            low, high = min(low, chunk.min().item()), max(high, chunk.max().item())
    inf = values.numel() - nan - count
    if not count:
        return Statistics(None, None, None, None, None, nan, inf)
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)  # rounding may make it negative, as of constant values
    return Statistics(mean, variance**0.5, low, high, max(abs(low), abs(high)), nan, inf)


def count_non_finite(stored: torch.Tensor) -> tuple[int, int]:
    """How many NaN and how many Inf a tensor holds, as stored. float8_e4m3 has a NaN for each sign, float8_e8m0fnu
    one, and neither an Inf."""
    values = stored.flatten()
    nan = inf = 0
    for start in range(0, values.numel(), _CHUNK):
        chunk = values[start : start + _CHUNK]
        if chunk.dtype == FLOAT8:  # torch has no isfinite of it, and numpy no such type
            nan += np.count_nonzero((chunk.view(torch.uint8).numpy() & 0x7F) == 0x7F)
        elif not chunk.isfinite().all():
            nan += int(chunk.isnan().sum())
            inf += int(chunk.isinf().sum())
    return nan, inf
