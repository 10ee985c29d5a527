# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand calls leave the device's memory and the host's where they were after the first hundred."""

import ctypes
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import ttnn
from torch import nn

from integration import TtLayerNorm, TtRMSNorm
from tests.tensors import random_input

CALLS, WARM = 10_000, 100
SMALLEST_CHUNK = 32  # bytes: what malloc takes for one byte, so that no leak in each call is smaller
# What threads beside the calls may take once, however few calls there were. The leak of 2,283 bytes a call that this
# was written for is 228,300 bytes in the fewest.
ONCE_BYTES, ONCE_OBJECTS = 8192, 100


def device_state(device: Any) -> tuple[Any, ...]:
    """How many buffers and bytes there are in each kind of memory, and how many programs are kept."""
    buffers = Counter(str(buffer.buffer_type) for buffer in ttnn._ttnn.reports.get_buffers(device))
    kinds = (ttnn.BufferType.DRAM, ttnn.BufferType.L1)
    used = [ttnn.get_memory_view(device, kind).total_bytes_allocated_per_bank for kind in kinds]
    return buffers, used, device.num_program_cache_entries()


class MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = (("figures", ctypes.c_size_t * 10),)


def host_state() -> tuple[int, int]:
    """Bytes that malloc has given out and not got back, of this process; and objects that Python holds. Unlike resident
    memory, which grows by pages and shrinks when it likes, they are counted to the byte and to the object."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = MallocInfo
    _, _, _, _, mapped, _, _, in_arenas, _, _ = libc.mallinfo2().figures
    return mapped + in_arenas, sys.getallocatedblocks()


@pytest.mark.long
def test_calls_leave_nothing_behind(
    device: Any, pytestconfig: pytest.Config, count: Callable[[str, int], None]
) -> None:
    """Calls of all kinds in turn: two norms, single rows and groups, changed weights, refused arguments."""
    layer_norm, rms_norm = nn.LayerNorm(32, dtype=torch.bfloat16), nn.RMSNorm(32, eps=1e-6, dtype=torch.bfloat16)
    norms = [TtLayerNorm.from_torch(layer_norm, device=device), TtRMSNorm.from_torch(rms_norm, device=device)]
    inputs = [random_input((1, 32)), random_input((5, 32))]
    expected: dict[int, torch.Tensor] = {}
    end = time.monotonic() + pytestconfig.getoption("soak")
    before, started = device_state(device), host_state()
    calls = 0
    for calls in range(1, CALLS + 1):
        if calls % 50 == 0:
            with torch.no_grad():
                layer_norm.weight.neg_()
        if calls % 10 == 0:
            with pytest.raises(ValueError, match="shape"):
                norms[0](torch.zeros(3, 31, dtype=torch.bfloat16))
        kind = calls % 4
        y = norms[kind % 2](inputs[kind // 2])
        if kind == 1:  # a norm whose weights stay
            assert torch.equal(y, expected.setdefault(kind, y))
        del y
        if calls == WARM:
            before, started = device_state(device), host_state()
        if calls >= 2 * WARM and time.monotonic() > end:
            break
    ttnn.synchronize_device(device)
    assert device_state(device) == before
    more_bytes, more_objects = (now - then for now, then in zip(host_state(), started, strict=True))
    assert more_bytes < ONCE_BYTES + SMALLEST_CHUNK * (calls - WARM)
    assert more_objects < ONCE_OBJECTS + calls - WARM
    assert sum(norm.launches for norm in norms) == calls
    count("memory: calls that left nothing behind", calls)
