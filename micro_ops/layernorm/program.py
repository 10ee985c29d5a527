# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A plan's program: the descriptors of its CBs and kernels, with their compile-time and runtime arguments."""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, groupby
from pathlib import Path
from typing import Self, get_args

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, WEIGHT_PAGE_ELEMENTS, Operands
from micro_ops.layernorm.plan import (
    CB_BETA,
    CB_GAMMA,
    CB_INPUT,
    CB_NAMES,
    GROUPS_IN_FLIGHT,
    HALF_FACE_ELEMENTS,
    RING_GROUPS,
    TILE_ELEMENTS,
    Chip,
    Core,
    Dtypes,
    Operand,
    Plan,
    Share,
)

KERNELS = Path(__file__).parent / "kernels"
CB_ARGUMENTS = {name.lower(): index for index, name in CB_NAMES.items()}
OPERANDS = get_args(Operand)  # an operand's place is the id of its semaphore
MAX_RECTANGLES = 16  # that a core multicasts to, of all operands
MAX_PARTS = 4  # in which the first group, gamma and beta reach a core


class Tap(StrEnum):
    """What `op` writes to each element of the output in place of the result; named as in compute.cpp."""

    NONE = "none"
    INPUT = "input"
    MEAN = "mean"  # of the element's row, as the three below
    VARIANCE = "variance"  # biased, without epsilon
    INVERSE_STD = "inverse_std"
    STANDARDIZED = "standardized"
    SCALED = "scaled"  # standardized times gamma


@dataclass(frozen=True)
class Variant:
    """What the compute kernel is compiled to compute of each row, beside the operands' dtypes.

    Attributes:
        subtract_mean: LayerNorm, else RMSNorm
        round_before_gamma: the normalized value is rounded to bfloat16 before it is multiplied by gamma
        tap: an intermediate to write in place of the result
    """

    subtract_mean: bool
    round_before_gamma: bool = False
    tap: Tap = Tap.NONE


def create_program(
    plan: Plan, chip: Chip, variant: Variant, operands: Operands, output: ttnn.Tensor, epsilon: float
) -> ttnn.ProgramDescriptor:
    """The program that runs `plan`, which was made for `chip` and the shapes and dtypes of `operands`."""
    return ttnn.ProgramDescriptor(
        kernels=[
            _create_reader_descriptor(plan, chip, operands),
            _create_writer_descriptor(plan, operands, output),
            _create_compute_descriptor(plan, variant, dtypes_of(operands), epsilon),
        ],
        semaphores=_create_semaphores(plan),
        cbs=_create_cb_descriptors(plan),
    )


def _create_semaphores(plan: Plan) -> list[ttnn.SemaphoreDescriptor]:
    """One an operand, for the parts that have arrived of it; then the numbers from 1 on, for a sender to send."""
    if not any(plan.exchanges(operand) for operand in OPERANDS):
        return []
    values = [0] * len(OPERANDS) + list(range(1, MAX_PARTS + 1))
    return [
        ttnn.SemaphoreDescriptor(id=index, core_ranges=_core_ranges(plan), initial_value=value)
        for index, value in enumerate(values)
    ]


def dtypes_of(operands: Operands) -> Dtypes:
    gamma, beta = (None if tensor is None else tensor.dtype for tensor in (operands.gamma, operands.beta))
    return Dtypes(operands.input.dtype, gamma, beta)


@dataclass(frozen=True)
class Rectangle:
    """Cores from `first` to `last`, both included and in NoC coordinates, with nothing between that is no core."""

    first: tuple[int, int]
    last: tuple[int, int]

    @property
    def cores(self) -> int:
        return (self.last[0] - self.first[0] + 1) * (self.last[1] - self.first[1] + 1)


def rectangles(places: Iterable[tuple[int, int]]) -> list[Rectangle]:
    """Rectangles that hold just `places`, NoC coordinates: each column's runs, joined with equal ones beside them."""
    joined: list[Rectangle] = []
    by_column = sorted(places)
    for x, column in groupby(by_column, key=lambda place: place[0]):
        runs: list[list[int]] = []
        for _, y in column:
            if runs and runs[-1][1] == y - 1:
                runs[-1][1] = y
            else:
                runs.append([y, y])
        for top, bottom in runs:
            beside = next((r for r in joined if r.last == (x - 1, bottom) and r.first[1] == top), None)
            if beside:
                joined.remove(beside)
            joined.append(Rectangle((beside.first[0] if beside else x, top), (x, bottom)))
    return joined


def _core_ranges(plan: Plan) -> ttnn.CoreRangeSet:
    ranges = rectangles(share.core for share in plan.shares)
    return ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(*r.first), ttnn.CoreCoord(*r.last)) for r in ranges])


def _multicasts(plan: Plan, chip: Chip, sender: Core, operand: Operand) -> list[tuple[int, int]]:
    """The rectangles to which `sender` multicasts the operand, each as two words: its corners, and how many cores."""
    cores = [chip.noc(share.core) for share in plan.shares if share.sender(operand) == sender]
    return [(r.first[0] | r.first[1] << 8 | r.last[0] << 16 | r.last[1] << 24, r.cores) for r in rectangles(cores)]


def _create_cb_descriptors(plan: Plan) -> list[ttnn.CBDescriptor]:
    cores = _core_ranges(plan)
    return [
        ttnn.CBDescriptor(
            total_size=cb.size,
            core_ranges=cores,
            format_descriptors=[
                ttnn.CBFormatDescriptor(buffer_index=cb.index, data_format=cb.dtype, page_size=cb.page_size)
            ],
        )
        for cb in plan.cbs
    ]


def _create_kernel_descriptor(
    name: str,
    plan: Plan,
    config: ttnn.ReaderConfigDescriptor | ttnn.WriterConfigDescriptor | ttnn.ComputeConfigDescriptor,
    *,
    compile_time: Mapping[str, int],
    runtime: Callable[[Share], Mapping[str, int | list[int]]],
    tensors: tuple[ttnn.Tensor, ...] = (),
    defines: Mapping[str, str] | None = None,
) -> ttnn.KernelDescriptor:
    """Kernel `name`.cpp, which finds its runtime arguments by their names (kernels/agreement.h).

    Args:
        runtime: a share's arguments, of the same names in the same order for each; the last may be a list
    """
    positions = {f"arg_{key}": position for position, key in enumerate(runtime(plan.shares[0]))}
    accessors = [arg for tensor in tensors for arg in ttnn.TensorAccessorArgs(tensor).get_compile_time_args()]
    runtime_args = ttnn.RuntimeArgs()
    for share in plan.shares:
        *words, last = runtime(share).values()
        x, y = share.core
        runtime_args[x][y] = [*words, *last] if isinstance(last, list) else [*words, last]
    return ttnn.KernelDescriptor(
        kernel_source=str(KERNELS / f"{name}.cpp"),
        core_ranges=_core_ranges(plan),
        compile_time_args=accessors,
        named_compile_time_args=list((dict(compile_time) | positions).items()),
        runtime_args=runtime_args,
        defines=list((defines or {}).items()),
        config=config,
    )


def _create_reader_descriptor(plan: Plan, chip: Chip, operands: Operands) -> ttnn.KernelDescriptor:
    size = ELEMENT_SIZES[operands.input.dtype]
    weights = _Weights.of(plan, operands)

    def arguments(share: Share) -> dict[str, int | list[int]]:
        multicasts = [_multicasts(plan, chip, share.core, name) for name in OPERANDS]
        return {
            **_place(plan, share),
            "steps": plan.steps,
            "input_address": operands.input.buffer_address(),
            "input_stick": plan.width * size,
            **weights.runtime,
            "exchange": sum(
                (share.sender(name) is not None) << place | len(rectangles) << 8 * (1 + place)
                for place, (name, rectangles) in enumerate(zip(OPERANDS, multicasts, strict=True))
            ),
            "rectangles": [word for rectangle in chain(*multicasts) for word in rectangle],
        }

    return _create_kernel_descriptor(
        plan.reader,
        plan,
        ttnn.ReaderConfigDescriptor(),
        compile_time={
            **CB_ARGUMENTS,
            **weights.compile_time,
            "input_piece": plan.piece * size,
            "group_rows": plan.group_rows,
            "ring_groups": RING_GROUPS,
            "groups_in_flight": GROUPS_IN_FLIGHT,
            "exchanges_weights": plan.exchanges("gamma") or plan.exchanges("beta"),
            "exchanges_input": plan.exchanges("input"),
            **{f"{name}_semaphore": index for index, name in enumerate(OPERANDS)},
            "counts": len(OPERANDS),
            "max_rectangles": MAX_RECTANGLES,
        },
        runtime=arguments,
        tensors=(operands.input, *weights.tensors),
    )


@dataclass(frozen=True)
class _Weights:
    """What reader and writer are told of gamma and beta, whichever of the two reads them (kernels/sticks.h)."""

    tensors: tuple[ttnn.Tensor, ttnn.Tensor]
    compile_time: dict[str, int]
    runtime: dict[str, int]

    @classmethod
    def of(cls, plan: Plan, operands: Operands) -> Self:
        given = {"gamma": operands.gamma, "beta": operands.beta}
        tensors = {name: tensor or operands.input for name, tensor in given.items()}
        sizes = {name: ELEMENT_SIZES[tensor.dtype] for name, tensor in tensors.items()}
        exchanges = plan.exchanges("gamma") or plan.exchanges("beta")
        paged = {name: tensor is not None and tensor.shape[0] > 1 for name, tensor in given.items()}
        return cls(
            tensors=(tensors["gamma"], tensors["beta"]),
            compile_time={
                **{f"has_{name}": tensor is not None for name, tensor in given.items()},
                **{f"{name}_size": size for name, size in sizes.items()},
                **{f"{name}_piece": plan.piece * size for name, size in sizes.items()},
                **{f"{name}_page": WEIGHT_PAGE_ELEMENTS * size for name, size in sizes.items()},
                **{f"{name}_is_paged": is_paged for name, is_paged in paged.items()},
                # The writer has time before the first result; but it starts later than the reader, and its reads would
                # hold up the reader's if they all went to one bank.
                "reader_reads_weights": exchanges or not any(paged.values()),
                "max_parts": MAX_PARTS,
            },
            runtime={
                **{f"{name}_address": tensor.buffer_address() for name, tensor in tensors.items()},
                "weight_pages": max(len(plan.steps_of(share)) for share in plan.shares),
            },
        )


def _create_compute_descriptor(plan: Plan, variant: Variant, dtypes: Dtypes, epsilon: float) -> ttnn.KernelDescriptor:
    # dst_full_sync_en: Dest is one buffer of all 512 rows, which the kernels divide themselves (kernels/dest.h).
    config = ttnn.ComputeConfigDescriptor(fp32_dest_acc_en=True, dst_full_sync_en=True)
    unpack_modes = [ttnn.UnpackToDestMode.Default] * 64  # ttnn wants one for each CB that there could be
    for dtype, index in ((dtypes.input, CB_INPUT), (dtypes.gamma, CB_GAMMA), (dtypes.beta, CB_BETA)):
        if dtype == ttnn.float32:
            unpack_modes[index] = ttnn.UnpackToDestMode.UnpackToDestFp32  # else it would pass SrcA, as TF32
    config.unpack_to_dest_mode = unpack_modes
    # What a sum is divided by for a mean: the FPU adds up x + x, the SFPU x.
    divisor = plan.width if dtypes.input == ttnn.float32 else 2 * plan.width
    rounds = variant.round_before_gamma and dtypes.input == ttnn.bfloat16  # float32 is rounded already
    common = {
        "steps": plan.steps,
        "ring_rows": RING_GROUPS * plan.group_rows,
        "divisor_bits": _float32_bits(divisor),
        "inverse_divisor_bits": _float32_bits(1 / divisor),
        "epsilon_bits": _float32_bits(epsilon),
        "lane_count_bits": _float32_bits(4 * (plan.width // HALF_FACE_ELEMENTS)),
        "lane_count_remainder": plan.width % HALF_FACE_ELEMENTS,
        "last_piece_elements": plan.width - (plan.steps - 1) * plan.piece,
    }
    return _create_kernel_descriptor(
        "compute",
        plan,
        config,
        compile_time={
            **CB_ARGUMENTS,
            "has_gamma": dtypes.gamma is not None,
            "has_beta": dtypes.beta is not None,
            "subtract_mean": variant.subtract_mean,
            "round_before_gamma": rounds,
            "input_float32": dtypes.input == ttnn.float32,
            "gamma_float32": dtypes.gamma == ttnn.float32,
            "beta_float32": dtypes.beta == ttnn.float32,
            "group_rows": plan.group_rows,
            "half_face_elements": HALF_FACE_ELEMENTS,
            "tile_elements": TILE_ELEMENTS,
            "piece_half_faces": plan.piece // HALF_FACE_ELEMENTS,
        },
        runtime=lambda share: {"rows": plan.row_count(share), **_own_steps(plan, share), **common},
        defines={"TAP": variant.tap.value},
    )


def _create_writer_descriptor(plan: Plan, operands: Operands, output: ttnn.Tensor) -> ttnn.KernelDescriptor:
    size = ELEMENT_SIZES[output.dtype]
    weights = _Weights.of(plan, operands)
    common = {
        "output_address": output.buffer_address(),
        "output_stick": plan.width * size,
        **weights.runtime,
    }
    return _create_kernel_descriptor(
        plan.writer,
        plan,
        ttnn.WriterConfigDescriptor(),
        compile_time={
            **CB_ARGUMENTS,
            **weights.compile_time,
            "group_rows": plan.group_rows,
            "piece_elements": plan.piece,
            "output_piece": plan.piece * size,
            "tile_size": TILE_ELEMENTS * size,
        },
        runtime=lambda share: {**_place(plan, share), **common},
        tensors=(output, *weights.tensors),
    )


def _place(plan: Plan, share: Share) -> dict[str, int]:
    """Which rows and columns are a core's."""
    groups = share.groups
    return {
        "rows": plan.row_count(share),
        "first_row": groups.start * plan.group_rows,
        "group_stride": groups.step * plan.group_rows,  # from the first row of a group to that of the next
        **_own_steps(plan, share),
        "own_columns": len(share.columns),
    }


def _own_steps(plan: Plan, share: Share) -> dict[str, int]:
    steps = plan.steps_of(share)
    return {"first_step": steps.start, "own_steps": len(steps)}


def _float32_bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])
