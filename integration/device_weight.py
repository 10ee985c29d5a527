# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A weight's copy on the device, which follows the weight."""

import torch
import ttnn

from integration.formula import DTYPES
from integration.mesh import Distribution


class DeviceWeight:
    """A weight's copy on the chips of a `Distribution`, uploaded anew whenever the weight's bytes are no longer those
    of the copy.

    Comparing bytes costs microseconds, and nothing else tells: `parameter.data.copy_()` leaves no trace in torch's
    version counter.

    Attributes:
        offset: added to the weight on its way
        uploads: how many there were
    """

    def __init__(self, distribution: Distribution, offset: float = 0.0) -> None:
        self.distribution = distribution
        self.offset = offset
        self.uploads = 0
        self._host: torch.Tensor | None = None
        self._copy: ttnn.Tensor | None = None

    def of(self, weight: torch.Tensor) -> ttnn.Tensor:
        """`weight` (W,) as `paged_shape(W)` row-major in DRAM: of its dtype, but float32 if an offset is added to it,
        or if it holds a NaN or an Inf, which the FPU, where it multiplies by a bfloat16 gamma, would take for large
        numbers.

        Raises:
            ValueError: it has no values yet, or is neither bfloat16 nor float32
        """
        if weight.is_meta or weight.dtype not in DTYPES:
            raise ValueError(
                f"a weight must be bfloat16 or float32 and loaded, but is {weight.dtype} on {weight.device}"
            )
        host = weight.detach().cpu().contiguous()
        if self._host is None or not _same_bytes(self._host, host):
            as_it_is = self.offset == 0.0 and bool(host.isfinite().all())
            values = host if as_it_is else host.float() + self.offset
            self._copy = self.distribution.upload_weight(values)
            self._host = host.clone()
            self.uploads += 1
        return self._copy


type Copies = dict[tuple[int, float], DeviceWeight]  # by the id of the Parameter, and the offset


def check_open(device: ttnn.Device) -> None:
    """
    Raises:
        RuntimeError: `device` is closed
    """
    try:
        ttnn.get_memory_view(device, ttnn.BufferType.DRAM)  # the cheapest call that needs it open
    except RuntimeError:
        raise RuntimeError("the norms' device is closed: restore() the model before that") from None


def _same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    # As bytes: a NaN is not equal to itself.
    return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
