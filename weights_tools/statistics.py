"""What a weight's values look like, without a second copy of a large one."""

from typing import NamedTuple

import torch

from weights_tools.checkpoint import Checkpoint
from weights_tools.float8 import FLOAT8

_CHUNK = 2**22  # elements that are held in float64 at a time


class Statistics(NamedTuple):
    """Of a weight's finite values, in float64, float8 multiplied by its scales. None where there are none.

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
    dtype = checkpoint.dtype(key)
    values = checkpoint.weight(key, torch.float32 if dtype == FLOAT8 else dtype).flatten()
    count, total, squares, low, high, nan = 0, 0.0, 0.0, torch.inf, -torch.inf, 0
    for start in range(0, values.numel(), _CHUNK):
        exact = values[start : start + _CHUNK].double()
        nan += int(exact.isnan().sum())
        finite = exact[exact.isfinite()]
        if finite.numel():
            count += finite.numel()
            total += finite.sum().item()
            squares += finite.square().sum().item()
            low, high = min(low, finite.min().item()), max(high, finite.max().item())
    inf = values.numel() - nan - count
    if not count:
        return Statistics(None, None, None, None, None, nan, inf)
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)  # not below zero by rounding, as of constant values
    return Statistics(mean, variance**0.5, low, high, max(abs(low), abs(high)), nan, inf)
