# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A plan's program: the descriptors of its CBs and kernels, with their compile-time and runtime arguments."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, Operands
from micro_ops.layernorm.plan import (
    CB_BETA,
    CB_GAMMA,
    CB_INPUT,
    CB_NAMES,
    GROUPS_IN_FLIGHT,
    HALF_FACE_ELEMENTS,
    RING_GROUPS,
    TILE_ELEMENTS,
    Dtypes,
    Plan,
    Share,
)

KERNELS = Path(__file__).parent / "kernels"
CB_ARGUMENTS = {name.lower(): index for index, name in CB_NAMES.items()}


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
    plan: Plan, variant: Variant, operands: Operands, output: ttnn.Tensor, epsilon: float
) -> ttnn.ProgramDescriptor:
    """The program that runs `plan`, which was made for the shapes and dtypes of `operands`."""
    return ttnn.ProgramDescriptor(
        kernels=[
            _create_reader_descriptor(plan, operands),
            _create_writer_descriptor(plan, output),
            _create_compute_descriptor(plan, variant, dtypes_of(operands), epsilon),
        ],
        semaphores=[],
        cbs=_create_cb_descriptors(plan),
    )


def dtypes_of(operands: Operands) -> Dtypes:
    gamma, beta = (None if tensor is None else tensor.dtype for tensor in (operands.gamma, operands.beta))
    return Dtypes(operands.input.dtype, gamma, beta)


def _core_ranges(plan: Plan) -> ttnn.CoreRangeSet:
    cores = [ttnn.CoreCoord(*share.core) for share in plan.shares]
    return ttnn.CoreRangeSet([ttnn.CoreRange(core, core) for core in cores])


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
    runtime: Mapping[Share, Mapping[str, int]],
    tensors: tuple[ttnn.Tensor, ...] = (),
    defines: Mapping[str, str] | None = None,
) -> ttnn.KernelDescriptor:
    """Kernel `name`.cpp, which finds its runtime arguments by their names (kernels/agreement.h).

    Args:
        runtime: each share's arguments, of the same names in the same order
    """
    positions = {f"arg_{key}": position for position, key in enumerate(runtime[plan.shares[0]])}
    accessors = [arg for tensor in tensors for arg in ttnn.TensorAccessorArgs(tensor).get_compile_time_args()]
    runtime_args = ttnn.RuntimeArgs()
    for share, arguments in runtime.items():
        x, y = share.core
        runtime_args[x][y] = list(arguments.values())
    return ttnn.KernelDescriptor(
        kernel_source=str(KERNELS / f"{name}.cpp"),
        core_ranges=_core_ranges(plan),
        compile_time_args=accessors,
        named_compile_time_args=list((dict(compile_time) | positions).items()),
        runtime_args=runtime_args,
        defines=list((defines or {}).items()),
        config=config,
    )


def _create_reader_descriptor(plan: Plan, operands: Operands) -> ttnn.KernelDescriptor:
    tensors = {
        "input": operands.input,
        "gamma": operands.gamma or operands.input,
        "beta": operands.beta or operands.input,
    }
    common = {"steps": plan.steps}
    common |= {f"{name}_address": tensor.buffer_address() for name, tensor in tensors.items()}
    common |= {f"{name}_stick": plan.width * ELEMENT_SIZES[tensor.dtype] for name, tensor in tensors.items()}
    return _create_kernel_descriptor(
        plan.reader,
        plan,
        ttnn.ReaderConfigDescriptor(),
        compile_time={
            **CB_ARGUMENTS,
            "has_gamma": operands.gamma is not None,
            "has_beta": operands.beta is not None,
            "group_rows": plan.group_rows,
            "ring_groups": RING_GROUPS,
            "groups_in_flight": GROUPS_IN_FLIGHT,
            **{f"{name}_piece": plan.piece * ELEMENT_SIZES[tensor.dtype] for name, tensor in tensors.items()},
        },
        runtime={share: {"rows": len(share.rows), **common} for share in plan.shares},
        tensors=tuple(tensors.values()),
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
        runtime={share: {"rows": len(share.rows), **common} for share in plan.shares},
        defines={"TAP": variant.tap.value},
    )


def _create_writer_descriptor(plan: Plan, output: ttnn.Tensor) -> ttnn.KernelDescriptor:
    element_size = ELEMENT_SIZES[output.dtype]
    common = {
        "steps": plan.steps,
        "output_address": output.buffer_address(),
        "output_stick": plan.width * element_size,
    }
    return _create_kernel_descriptor(
        plan.writer,
        plan,
        ttnn.WriterConfigDescriptor(),
        compile_time={
            **CB_ARGUMENTS,
            "group_rows": plan.group_rows,
            "output_piece": plan.piece * element_size,
            "tile_size": TILE_ELEMENTS * element_size,
        },
        runtime={share: {"rows": len(share.rows), **common} for share in plan.shares},
        tensors=(output,),
    )


def _float32_bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])
