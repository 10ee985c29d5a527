# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Programs that tests launch beside the op's own, of kernels in tests/kernels; but for `push_pages`, on core (0, 0)."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import ttnn

from micro_ops.layernorm.plan import Plan
from tests.tensors import upload

KERNELS = Path(__file__).parent / "kernels"
_CORE = ttnn.CoreCoord(0, 0)
_CORES = ttnn.CoreRangeSet([ttnn.CoreRange(_CORE, _CORE)])
# A kernel that waits for ever, for a test's child process, in which `device` is open.
DEADLOCK = """
from tests.programs import deadlock
deadlock(device)
"""


def kernel(
    name: str,
    config: Any,
    arguments: list[int],
    pages_of: ttnn.Tensor | None = None,
    defines: tuple[tuple[str, str], ...] = (),
) -> ttnn.KernelDescriptor:
    """
    Args:
        name: of the file in tests/kernels
        config: of the kernel's core, which runs it
        arguments: at run time
        pages_of: a tensor (pages, elements), row-major in DRAM, whose pages it reads or writes
    """
    compile_time_args = []
    if pages_of is not None:
        page_size = pages_of.shape[-1] * pages_of.element_size()
        compile_time_args = [page_size, *ttnn.TensorAccessorArgs(pages_of).get_compile_time_args()]
    runtime_args = ttnn.RuntimeArgs()
    runtime_args[_CORE.x][_CORE.y] = arguments
    return ttnn.KernelDescriptor(
        kernel_source=str(KERNELS / f"{name}.cpp"),
        core_ranges=_CORES,
        compile_time_args=compile_time_args,
        runtime_args=runtime_args,
        defines=list(defines),
        config=config,
    )


def circular_buffer(index: int, dtype: ttnn.DataType, page_size: int, pages: int) -> ttnn.CBDescriptor:
    """
    Args:
        page_size: bytes
    """
    page = ttnn.CBFormatDescriptor(buffer_index=index, data_format=dtype, page_size=page_size)
    return ttnn.CBDescriptor(total_size=pages * page_size, core_ranges=_CORES, format_descriptors=[page])


def launch(
    tensors: list[ttnn.Tensor], kernels: list[ttnn.KernelDescriptor], cbs: list[ttnn.CBDescriptor]
) -> ttnn.Tensor:
    """The last of `tensors`, which the kernels write. Does not wait for them."""
    return ttnn.generic_op(tensors, ttnn.ProgramDescriptor(kernels=kernels, semaphores=[], cbs=cbs))


def run_semaphores(device: Any, left: int) -> tuple[bool, bool]:
    """Runs kernels/semaphores_compute.cpp, which leaves `left` in UNPACK_MATH_DONE.

    Returns: whether 1 is the maximum of MATH_PACK and of PACK_DONE
    """
    result = upload(torch.zeros(1, 1024, dtype=torch.int32), device)
    writer = kernel("sfpu_writer", ttnn.WriterConfigDescriptor(), [result.buffer_address(), 1], pages_of=result)
    compute = kernel("semaphores_compute", ttnn.ComputeConfigDescriptor(), [left])
    words = ttnn.to_torch(launch([result, result], [writer, compute], [circular_buffer(16, ttnn.uint32, 4096, 1)]))
    return bool(words[0, 0] == 1), bool(words[0, 1] == 1)


def push_pages(device: Any, pages: dict[tuple[int, int], int], hung: tuple[int, int] | None = None) -> None:
    """Launches kernels/pages_writer.cpp, and does not wait for it.

    Args:
        pages: of each core that it runs on, by logical coordinates: how many pages it pushes and pops
        hung: the core that waits for ever afterwards
    """
    x = upload(torch.ones(1, 32, dtype=torch.bfloat16), device)
    cores = ttnn.CoreRangeSet([ttnn.CoreRange(core, core) for core in itertools.starmap(ttnn.CoreCoord, pages)])
    runtime_args = ttnn.RuntimeArgs()
    for (column, row), count in pages.items():
        runtime_args[column][row] = [count, (column, row) == hung]
    writer = ttnn.KernelDescriptor(
        kernel_source=str(KERNELS / "pages_writer.cpp"),
        core_ranges=cores,
        runtime_args=runtime_args,
        config=ttnn.WriterConfigDescriptor(),
    )
    cb = circular_buffer(0, ttnn.bfloat16, 2048, 1)
    cb.core_ranges = cores
    launch([x, x], [writer], [cb])


def deadlock(device: Any) -> None:
    """Launches a program twice of which core (2, 1) does not end: the second launch waits for the first."""
    cores = itertools.product(range(3), range(2))
    pages = dict.fromkeys(cores, 0)
    for which in ("first", "second"):
        print(f"{which} launch", flush=True)
        push_pages(device, pages, hung=(2, 1))


def run_on_last_chip(device: Any, name: str, arguments: list[int]) -> None:
    """Launches kernel `name` of tests/kernels on the last chip of a mesh twice, and on the others one that does
    nothing: the second launch waits for the first on all."""
    x = upload(torch.ones(1, 32, dtype=torch.bfloat16), device)
    programs = ttnn.MeshProgramDescriptor()
    places = list(itertools.product(*map(range, tuple(device.shape))))
    for place in places:
        which = (name, arguments) if place == places[-1] else ("pages_writer", [0, 0])
        writer = kernel(which[0], ttnn.WriterConfigDescriptor(), which[1])
        cb = circular_buffer(0, ttnn.bfloat16, 2048, 1)
        coordinate = ttnn.MeshCoordinate(*place)
        programs[ttnn.MeshCoordinateRange(coordinate, coordinate)] = ttnn.ProgramDescriptor(
            kernels=[writer], semaphores=[], cbs=[cb]
        )
    for _ in range(2):
        ttnn.generic_op([x, x], programs)


def with_pages(plan: Plan, index: int, pages: int) -> Plan:
    """`plan`, of which the CB `index` has `pages` pages."""
    cbs = tuple(replace(cb, pages=pages) if cb.index == index else cb for cb in plan.cbs)
    return replace(plan, cbs=cbs)
