# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A plan's program: the descriptors of its CBs and kernels, with their compile-time and runtime arguments."""

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, WEIGHT_PAGE_ELEMENTS, Operands
from micro_ops.layernorm.cost import MAX_PARTS
from micro_ops.layernorm.placement import Core, Runs, placement_of, rows_of_matrix
from micro_ops.layernorm.plan import (
    CB_BETA,
    CB_GAMMA,
    CB_INPUT,
    CB_NAMES,
    CB_RESIDUAL,
    CB_STATISTICS,
    CB_STREAM,
    GROUPS_IN_FLIGHT,
    HALF_FACE_ELEMENTS,
    MOST_MEMBERS,
    RECORD_ELEMENTS,
    STATISTICS_PAGE_ROWS,
    TILE_ELEMENTS,
    CbContractError,
    Chip,
    Dtypes,
    Plan,
    Share,
    Stage,
)
from micro_ops.layernorm.tile_plan import TilePlan

KERNELS = Path(__file__).parent / "kernels"
CB_ARGUMENTS = {name.lower(): index for index, name in CB_NAMES.items()}
MAX_RECTANGLES = 16  # that a core multicasts to
# Of an argument that is a list: a word for each stripe and each quad (tile_program.py), and two a rectangle. All have
# this length, since ttnn's program cache does not look at it, and a program has no room for more than at first.
LIST_WORDS = 24 + 2 * MAX_RECTANGLES
# Semaphores: whether each part of gamma, and of beta, has arrived; the numbers from 1 on, to be sent; how many parts of
# a row have arrived. Or, where cores send one another s = x + residual: the number 1 alone; whether each core's has
GAMMA_SEMAPHORES = 0
BETA_SEMAPHORES = GAMMA_SEMAPHORES + MAX_PARTS
COUNTS = BETA_SEMAPHORES + MAX_PARTS
INPUT_SEMAPHORE = COUNTS + MAX_PARTS
STREAM_SEMAPHORES = COUNTS + 1


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
        round_inverse_rms: 1 / rms is rounded to bfloat16 before x is multiplied by it
        tap: an intermediate to write in place of the result
    """

    subtract_mean: bool
    round_before_gamma: bool = False
    round_inverse_rms: bool = False
    tap: Tap = Tap.NONE


def create_program(
    plan: Plan,
    chip: Chip,
    variant: Variant,
    operands: Operands,
    output: ttnn.Tensor,
    stream: ttnn.Tensor | None,
    epsilon: float,
    statistics: ttnn.Tensor | None = None,
) -> ttnn.ProgramDescriptor:
    """The program that runs `plan`, which was made for `chip` and the shapes and dtypes of `operands`.

    Args:
        output: of `statistics_shape` where the plan's stage makes statistics
        stream: where s = x + residual goes, if there is one
        statistics: of all chips, where the stage takes them
    """
    weights = _Weights.of(plan, operands)
    tensors = {"input": operands.input, "residual": operands.residual, "output": output, "stream": stream}
    return ttnn.ProgramDescriptor(
        kernels=[
            _create_reader_descriptor(plan, chip, operands, statistics or operands.input, weights),
            _create_writer_descriptor(plan, chip, operands.input, output, stream or output, weights),
            _create_compute_descriptor(plan, variant, dtypes_of(operands), epsilon),
        ],
        semaphores=_create_semaphores(plan),
        cbs=_create_cb_descriptors(plan, tensors),
    )


def _create_semaphores(plan: Plan) -> list[ttnn.SemaphoreDescriptor]:
    if not plan.rows_are_cut and plan.weight_part is None:
        return []
    values = [0] * COUNTS + ([1, *[0] * MOST_MEMBERS] if plan.stream_is_sent else [*range(1, MAX_PARTS + 1), 0])
    return [
        ttnn.SemaphoreDescriptor(id=index, core_ranges=core_ranges(plan), initial_value=value)
        for index, value in enumerate(values)
    ]


def dtypes_of(operands: Operands) -> Dtypes:
    return Dtypes(**{name: None if tensor is None else tensor.dtype for name, tensor in vars(operands).items()})


class Rectangle(NamedTuple):
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


def core_ranges(plan: Plan | TilePlan) -> ttnn.CoreRangeSet:
    ranges = rectangles(share.core for share in plan.shares)
    return ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(*r.first), ttnn.CoreCoord(*r.last)) for r in ranges])


def _sends(plan: Plan, chip: Chip, share: Share) -> tuple[int, list[int]]:
    """What a core sends of gamma and beta, as kernels/weights.h takes it; and where to, `multicast_words`."""
    if not share.sends:
        return 0, []
    words = multicast_words(chip, ttnn.NOC.NOC_1, plan.weight_receivers(share))
    return sum(1 << part + (8 if name == "beta" else 0) for name, part in share.sends) | len(words) // 2 << 16, words


def multicast_words(chip: Chip, noc: ttnn.NOC, receivers: Iterable[Core]) -> list[int]:
    """Two for each rectangle of receivers, as kernels/parts.h takes them: its corners, and how many cores.

    Raises:
        CbContractError: more rectangles than a kernel has room for
    """
    found = rectangles(map(chip.noc, receivers))
    if len(found) > MAX_RECTANGLES:
        raise CbContractError(f"a core must send to {MAX_RECTANGLES} rectangles at most, but has {len(found)}")
    words = []
    for rectangle in found:
        # A NoC's routers go through a rectangle from its first to its last corner: right and down, or left and up.
        (x, y), (last_x, last_y) = rectangle if noc == ttnn.NOC.NOC_0 else reversed(rectangle)
        words += [x | y << 8 | last_x << 16 | last_y << 24, rectangle.cores]
    return words


def _create_cb_descriptors(plan: Plan, tensors: Mapping[str, ttnn.Tensor | None]) -> list[ttnn.CBDescriptor]:
    cores = core_ranges(plan)
    descriptors = []
    for cb in plan.cbs:
        page = ttnn.CBFormatDescriptor(
            buffer_index=cb.index, data_format=cb.dtype, page_size=cb.page_size, tile=ttnn.TileDescriptor(*cb.tile)
        )
        if cb.over:
            descriptor = ttnn.cb_descriptor_from_sharded_tensor(cb.index, tensors[cb.over], core_ranges=cores)
            descriptor.format_descriptors = [page]  # of a piece, not of a page of the tensor
        else:
            descriptor = ttnn.CBDescriptor(total_size=cb.size, core_ranges=cores, format_descriptors=[page])
        descriptors.append(descriptor)
    return descriptors


def create_kernel_descriptor(
    name: str,
    plan: Plan | TilePlan,
    config: ttnn.ReaderConfigDescriptor | ttnn.WriterConfigDescriptor | ttnn.ComputeConfigDescriptor,
    *,
    compile_time: Mapping[str, int],
    runtime: Callable[[Any], Mapping[str, int | list[int]]],
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
        of_last = [*last, *[0] * (LIST_WORDS - len(last))] if isinstance(last, list) else [last]
        runtime_args[x][y] = [*words, *of_last]
    return ttnn.KernelDescriptor(
        kernel_source=str(KERNELS / f"{name}.cpp"),
        core_ranges=core_ranges(plan),
        compile_time_args=accessors,
        named_compile_time_args=list((dict(compile_time) | positions).items()),
        runtime_args=runtime_args,
        defines=list((defines or {}).items()),
        config=config,
    )


def _create_reader_descriptor(
    plan: Plan, chip: Chip, operands: Operands, statistics: ttnn.Tensor, weights: "_Weights"
) -> ttnn.KernelDescriptor:
    input_tensor, residual = operands.input, operands.residual or operands.input
    size = ELEMENT_SIZES[input_tensor.dtype]
    receivers = plan.row_receivers()
    chip_pages = statistics_shape(plan.rows)[0]
    chips = statistics.shape[0] // chip_pages if plan.stage == Stage.RESULT else 1

    def arguments(share: Share) -> dict[str, int | list[int]]:
        words = multicast_words(chip, ttnn.NOC.NOC_0, receivers.get(share.core, []))
        return {
            **_place(plan, share),
            **weights.runtime,
            "sends": _sends(plan, chip, share)[0],
            "steps": plan.steps,
            "input_address": input_tensor.buffer_address(),
            "residual_address": residual.buffer_address(),
            "input_stick": plan.width * size,
            "statistics_address": statistics.buffer_address(),
            "chip_pages": chip_pages,
            "members": len(plan.team(share)),
            "stream_pages": plan.stream_pages,
            "exchange": (share.input_from is not None) | len(words) // 2 << 1,
            "rectangles": words,
        }

    return create_kernel_descriptor(
        plan.reader,
        plan,
        ttnn.ReaderConfigDescriptor(),
        compile_time={
            **CB_ARGUMENTS,
            **weights.compile_time,
            "rows_are_cut": plan.rows_are_cut,
            "input_piece": plan.piece * size,
            "input_size": size,
            "group_rows": plan.group_rows,
            "row_stride": plan.row_stride,
            "ring_groups": plan.ring_rows // plan.group_rows,
            "groups_in_flight": GROUPS_IN_FLIGHT,
            "input_semaphore": INPUT_SEMAPHORE,
            "input_is_sharded": plan.input_is_sharded,
            **stage_arguments(plan),
            "chips": chips,
            **_runs(input_tensor),
        },
        runtime=arguments,
        tensors=(input_tensor, residual, statistics, *weights.tensors),
    )


@dataclass(frozen=True)
class _Weights:
    """What reader and writer are told of gamma and beta (kernels/weights.h)."""

    tensors: tuple[ttnn.Tensor, ttnn.Tensor]
    compile_time: dict[str, int]
    runtime: dict[str, int]

    @classmethod
    def of(cls, plan: Plan, operands: Operands) -> Self:
        given = {"gamma": operands.gamma, "beta": operands.beta}
        tensors = {name: tensor or operands.input for name, tensor in given.items()}
        sizes = {name: ELEMENT_SIZES[tensor.dtype] for name, tensor in tensors.items()}
        return cls(
            tensors=(tensors["gamma"], tensors["beta"]),
            compile_time={
                **{f"has_{name}": tensor is not None for name, tensor in given.items()},
                **{f"{name}_size": size for name, size in sizes.items()},
                **{f"{name}_piece": plan.piece * size for name, size in sizes.items()},
                **{f"{name}_page": WEIGHT_PAGE_ELEMENTS * size for name, size in sizes.items()},
                **{
                    f"{name}_is_paged": tensor is not None and math.prod(tuple(tensor.shape)[:-1]) > 1
                    for name, tensor in given.items()
                },
                "weights_are_sent": plan.weight_part is not None,
                "has_residual": plan.has_residual,
                "stream_semaphores": STREAM_SEMAPHORES,
                "reader_has_rows": plan.input_is_sharded,
                "gamma_semaphores": GAMMA_SEMAPHORES,
                "beta_semaphores": BETA_SEMAPHORES,
                "max_parts": MAX_PARTS,
                "max_rectangles": MAX_RECTANGLES,
                "counts": COUNTS,
            },
            runtime={
                **{f"{name}_address": tensor.buffer_address() for name, tensor in tensors.items()},
                "weight_pages": max(len(plan.steps_of(share)) for share in plan.shares),
                "weight_part_pages": plan.weight_part or 0,
            },
        )


def _create_compute_descriptor(plan: Plan, variant: Variant, dtypes: Dtypes, epsilon: float) -> ttnn.KernelDescriptor:
    config = compute_config(
        {
            CB_INPUT: dtypes.input,
            CB_RESIDUAL: dtypes.residual,
            CB_STREAM: dtypes.residual,
            CB_GAMMA: dtypes.gamma,
            CB_BETA: dtypes.beta,
            CB_STATISTICS: ttnn.float32,
        }
    )
    common = {
        "steps": plan.steps,
        "ring_rows": plan.source_rows,
        "term_pages": plan.cb(CB_INPUT).pages,
        "stream_pages": plan.stream_pages,
        **row_constants(plan.width, dtypes, epsilon),
        "last_piece_elements": plan.width - (plan.steps - 1) * plan.piece,
    }
    return create_kernel_descriptor(
        "compute",
        plan,
        config,
        compile_time={
            **CB_ARGUMENTS,
            **arithmetic(variant, dtypes),
            **stage_arguments(plan),
            "by_tiles": False,
            "rows_are_gathered": False,
            "rows_are_striped": False,
            "rows_are_cut": plan.rows_are_cut,
            "has_residual": plan.has_residual,
            "output_is_sharded": plan.output_is_sharded,
            "group_rows": plan.group_rows,
            "piece_half_faces": plan.piece // HALF_FACE_ELEMENTS,
        },
        runtime=lambda share: {"rows": plan.row_count(share), **_own_steps(plan, share), **common},
        defines={"TAP": variant.tap.value},
    )


def statistics_shape(rows: int) -> tuple[int, int]:
    """Of a chip's statistics, float32: a record of 4 for each of `rows`, of which the mean and the variance are two."""
    return math.ceil(rows / STATISTICS_PAGE_ROWS), STATISTICS_PAGE_ROWS * RECORD_ELEMENTS


def stage_arguments(plan: Plan | TilePlan) -> dict[str, int]:
    """Compile-time arguments of all kernels: which launch of a norm it is, and how statistics lie in DRAM."""
    return {
        "emits_statistics": plan.stage == Stage.STATISTICS,
        "takes_statistics": plan.stage == Stage.RESULT,
        "page_rows": STATISTICS_PAGE_ROWS,
        "record_size": RECORD_ELEMENTS * ELEMENT_SIZES[ttnn.float32],
    }


def compute_config(unpacked: Mapping[int, ttnn.DataType | None]) -> ttnn.ComputeConfigDescriptor:
    """
    Args:
        unpacked: dtypes by CB
    """
    # dst_full_sync_en: Dest is one buffer of all 512 rows, which the kernels divide themselves (kernels/dest.h).
    config = ttnn.ComputeConfigDescriptor(fp32_dest_acc_en=True, dst_full_sync_en=True)
    unpack_modes = [ttnn.UnpackToDestMode.Default] * 64  # ttnn wants one for each CB that there could be
    for index, dtype in unpacked.items():
        if dtype == ttnn.float32:
            unpack_modes[index] = ttnn.UnpackToDestMode.UnpackToDestFp32  # else it would pass SrcA, as TF32
    config.unpack_to_dest_mode = unpack_modes
    return config


def arithmetic(variant: Variant, dtypes: Dtypes) -> dict[str, int]:
    """What kernels/variant.h is compiled for beside the layout, and what host and kernels agree on of Dest."""
    is_bfloat16 = dtypes.input == ttnn.bfloat16  # float32 is rounded already
    return {
        "has_gamma": dtypes.gamma is not None,
        "has_beta": dtypes.beta is not None,
        "subtract_mean": variant.subtract_mean,
        "round_before_gamma": variant.round_before_gamma and is_bfloat16,
        "round_inverse_rms": variant.round_inverse_rms and is_bfloat16,
        "input_float32": dtypes.input == ttnn.float32,
        "gamma_float32": dtypes.gamma == ttnn.float32,
        "beta_float32": dtypes.beta == ttnn.float32,
        "half_face_elements": HALF_FACE_ELEMENTS,
        "tile_elements": TILE_ELEMENTS,
    }


def row_constants(width: int, dtypes: Dtypes, epsilon: float) -> dict[str, int]:
    """What the SFPU is told of rows of `width` elements (kernels/statistics.h)."""
    # What a sum is divided by for a mean: the FPU adds up x + x, the SFPU x.
    divisor = width if dtypes.input == ttnn.float32 else 2 * width
    return {
        "divisor_bits": float32_bits(divisor),
        "inverse_divisor_bits": float32_bits(1 / divisor),
        "epsilon_bits": float32_bits(epsilon),
        "lane_count_bits": float32_bits(4 * (width // HALF_FACE_ELEMENTS)),
        "lane_count_remainder": width % HALF_FACE_ELEMENTS,
    }


def _create_writer_descriptor(
    plan: Plan, chip: Chip, x: ttnn.Tensor, output: ttnn.Tensor, stream: ttnn.Tensor, weights: "_Weights"
) -> ttnn.KernelDescriptor:
    size = ELEMENT_SIZES[x.dtype]

    def arguments(share: Share) -> dict[str, int | list[int]]:
        sends, words = _sends(plan, chip, share)
        team = plan.team(share)
        of_team = multicast_words(chip, ttnn.NOC.NOC_1, [core for core in team if core != share.core])
        return {
            **_place(plan, share),
            **weights.runtime,
            "sends": sends,
            "member": team.index(share.core),
            "team_rectangles": len(of_team) // 2,
            "output_address": output.buffer_address(),
            "stream_address": stream.buffer_address(),
            "output_stick": plan.width * size,
            "matrix_rows": rows_of_matrix(tuple(output.shape)),
            "rectangles": [*words, *of_team],
        }

    return create_kernel_descriptor(
        plan.writer,
        plan,
        ttnn.WriterConfigDescriptor(),
        compile_time={
            **CB_ARGUMENTS,
            **weights.compile_time,
            "rows_are_cut": plan.rows_are_cut,
            "group_rows": plan.group_rows,
            "row_stride": plan.row_stride,
            "piece_elements": plan.piece,
            "output_piece": plan.piece * size,
            "tile_size": TILE_ELEMENTS * size,
            "output_is_sharded": plan.output_is_sharded,
            "output_tile_height": _tile_height(output),
            **stage_arguments(plan),
            **_runs(stream if _tile_height(output) or plan.stage == Stage.STATISTICS else output),
        },
        runtime=arguments,
        tensors=(output, stream, *weights.tensors),
    )


def _tile_height(tensor: ttnn.Tensor) -> int:
    """Rows of a tile; 0 if its rows are sticks."""
    placement = placement_of(tensor)
    assert placement is not None
    return 0 if placement.is_sticks else placement.tile_height or 0


def _runs(tensor: ttnn.Tensor) -> dict[str, int]:
    """How a tensor's rows lie (kernels/parts.h)."""
    placement = placement_of(tensor)
    assert placement is not None
    found = placement.runs(tensor.shape[-1])
    runs = found or Runs(1, 1, 1)  # which no kernel looks at
    return {
        "rows_are_pages": found is None,
        "run": runs.run * ELEMENT_SIZES[tensor.dtype],
        "run_pages": runs.run // runs.page,
        "row_pages": runs.row_pages,
        "run_page_size": tensor.buffer_aligned_page_size(),
    }


def _place(plan: Plan, share: Share) -> dict[str, int]:
    """Which rows and columns are a core's."""
    groups = share.groups
    return {
        "rows": plan.row_count(share),
        "first_row": plan.first_row(groups.start),
        "group_stride": groups.step * plan.group_rows,  # from the first row of a group to that of the next
        **_own_steps(plan, share),
        "own_columns": len(share.columns),
    }


def _own_steps(plan: Plan, share: Share) -> dict[str, int]:
    steps = plan.steps_of(share)
    return {"first_step": steps.start, "own_steps": len(steps)}


def float32_bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])
