# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What the ops take, and the refusal of all else before anything is compiled, launched or allocated."""

import math
from dataclasses import dataclass

import torch
import ttnn

from micro_ops.layernorm.placement import TILE_WIDTH, Placement, have_the_same_rows, placement_of, share_memory

ELEMENT_SIZES = {ttnn.bfloat16: 2, ttnn.float32: 4}  # bytes, of the dtypes that an operand may have
FLOAT32_TINY, FLOAT32_MAX = (
    torch.finfo(torch.float32).tiny,
    torch.finfo(torch.float32).max,
)  # the chip flushes what is smaller to zero
TILE_HEIGHTS = (32, 16)  # of tiles in whole faces
NOC_ALIGNMENT = 16  # bytes, of addresses in L1
MOST_ROWS = 2**31  # the kernels count rows in 32 bits, and add to them what a group or a ring has
WEIGHT_PAGE_ELEMENTS = 1024  # so that a weight's reads are spread over DRAM's banks, a page each


class LayerNormArgumentError(ValueError):
    """An argument that the op can't serve; raised before anything is compiled, launched or allocated."""


@dataclass(frozen=True)
class Operands:
    """What a call reads, of the shapes of `LayerNorm.op`."""

    input: ttnn.Tensor
    gamma: ttnn.Tensor | None
    beta: ttnn.Tensor | None
    residual: ttnn.Tensor | None = None


def paged_shape(width: int) -> tuple[int, int]:
    """Of gamma or beta of `width` elements in pages of `WEIGHT_PAGE_ELEMENTS`, which DRAM's banks take in turn.

    The first page is empty, because it shares its bank with the first row of x and of the result; what follows the last
    element is not read, either. (1, width), all in one page, if there are no more elements than that.
    """
    if width <= WEIGHT_PAGE_ELEMENTS:
        return (1, width)
    return (1 + math.ceil(width / WEIGHT_PAGE_ELEMENTS), WEIGHT_PAGE_ELEMENTS)


def validate(
    operands: Operands, output: ttnn.Tensor | None, residual_output: ttnn.Tensor | None, epsilon: float
) -> None:
    """
    Args:
        residual_output: for input + residual
    Raises:
        LayerNormArgumentError: an argument that does not fit, named with what it is and what it must be
    """
    _validate_tensor("input", operands.input, operands.input)
    source = _placement("input", operands.input)
    _validate_source(source, operands.input)
    shape = tuple(operands.input.shape)
    validate_shape(shape)
    for name, weight in (("gamma", operands.gamma), ("beta", operands.beta)):
        if weight is not None:
            _validate_tensor(name, weight, operands.input)
            _validate_weight(name, weight, shape, source)
    if operands.residual is not None:
        _validate_residual(operands.residual, operands.input)
    elif residual_output is not None:
        raise LayerNormArgumentError("residual_output must be None where residual is, but is a tensor")
    for name, tensor in (("output", output), ("residual_output", residual_output)):
        if tensor is not None:
            _validate_tensor(name, tensor, operands.input)
            _validate_output(name, tensor, operands)
            validate_target(_placement(name, tensor), source, operands.input, name)
    if output is not None and residual_output is not None and math.prod(shape) > 0:
        _refuse_shared("residual_output", residual_output, "output", output)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        raise LayerNormArgumentError(f"epsilon must be a number, but is {epsilon!r}")
    if not FLOAT32_TINY <= epsilon <= FLOAT32_MAX:  # a NaN is neither
        raise LayerNormArgumentError(f"epsilon must be positive and finite in float32, but is {epsilon}")


def validate_target(target: Placement, source: Placement, x: ttnn.Tensor, name: str = "output") -> None:
    """Of the output `name`, where the input x lies as `source`.

    Raises:
        LayerNormArgumentError: the result would have to leave its core for another's L1, or has a layout that is not
            written
    """
    if target.shards and not target.in_l1:
        raise LayerNormArgumentError(f"{name} must be interleaved, or sharded in L1, but is {target}")
    if target.tile_height != source.tile_height:
        if name != "output":
            raise LayerNormArgumentError(f"{name} must have the input's layout, {source}, but is {target}")
        _validate_other_layout(target, source, tuple(x.shape))
    elif target.shards and source.shards and target.shards != source.shards:
        raise LayerNormArgumentError(
            f"{name} must be interleaved, or have the input's shards, {source}, but is {target}"
        )
    _validate_pieces(name, target, x.dtype, x.shape[-1])


def _validate_other_layout(target: Placement, source: Placement, shape: tuple[int, ...]) -> None:
    """Of an output in another layout than the input's: the writer takes it there, over the NoC."""
    others = "ROW_MAJOR or TILE of 32, 16 or 1 x 32" if source.is_sticks else "ROW_MAJOR"
    if target.tile_height not in ((None, 1, *TILE_HEIGHTS) if source.is_sticks else (None,)):
        raise LayerNormArgumentError(f"output must have the input's layout, {source}, or be {others}, but is {target}")
    if target.shards and source.shards and not have_the_same_rows(target, source, shape):
        raise LayerNormArgumentError(
            f"output must be interleaved, or have whole rows on the cores that have the input's, {source}, but is"
            f" {target}"
        )
    if target.shards and target.shards.across > 1 and not source.is_sticks:
        raise LayerNormArgumentError(f"output must have whole rows in each shard beside {source}, but is {target}")


def _validate_pieces(name: str, placement: Placement, dtype: ttnn.DataType, width: int) -> None:
    """Of sticks in pieces: these go over the NoC, and of row-major ones ttnn has no last piece that is less wide."""
    shards = placement.shards
    if not placement.is_sticks or shards is None or shards.across == 1:
        return
    columns = NOC_ALIGNMENT // ELEMENT_SIZES[dtype]
    if shards.width % columns or (placement.tile_height is None and width % shards.width):
        raise LayerNormArgumentError(
            f"{name}'s shards must be a multiple of {columns} columns wide and divide {width} columns, but it is"
            f" {placement}"
        )


def validate_shape(shape: tuple[int, ...]) -> None:
    """Of the input.

    Raises:
        LayerNormArgumentError: a rank, width or number of rows that the kernels don't take
    """
    if not 1 <= len(shape) <= 4 or shape[-1] == 0:
        raise LayerNormArgumentError(f"input must have rank 1 to 4 and a column at least, but has shape {shape}")
    if math.prod(shape[:-1]) >= MOST_ROWS:
        raise LayerNormArgumentError(f"input must have fewer than {MOST_ROWS} rows, but has shape {shape}")


def _validate_tensor(name: str, tensor: ttnn.Tensor, input_tensor: ttnn.Tensor) -> None:
    if not isinstance(tensor, ttnn.Tensor):
        raise LayerNormArgumentError(f"{name} must be a ttnn.Tensor, but is {type(tensor).__qualname__}")
    if tensor.storage_type() != ttnn.StorageType.DEVICE:
        raise LayerNormArgumentError(f"{name} must be on the device, but is in {tensor.storage_type()}")
    if not tensor.is_allocated():
        raise LayerNormArgumentError(f"{name} must be allocated, but its buffer has been freed")
    if tensor.dtype in (ttnn.bfloat8_b, ttnn.bfloat4_b):
        raise LayerNormArgumentError(
            f"{name}.dtype must be bfloat16 or float32, but is {tensor.dtype}:"
            f" ttnn.typecast({name}, ttnn.bfloat16) converts it"
        )
    if tensor.dtype not in ELEMENT_SIZES:
        raise LayerNormArgumentError(f"{name}.dtype must be bfloat16 or float32, but is {tensor.dtype}")
    if tensor.device() != input_tensor.device():
        raise LayerNormArgumentError(
            f"{name} must be on the input's device {input_tensor.device()}, but is on {tensor.device()}"
        )


def _placement(name: str, tensor: ttnn.Tensor) -> Placement:
    placement = placement_of(tensor)
    if placement is None:
        raise LayerNormArgumentError(
            f"{name} must be interleaved, or sharded by height, width or block, but is {tensor.memory_config()}"
        )
    return placement


def _validate_source(source: Placement, x: ttnn.Tensor) -> None:
    if source.shards and not source.in_l1:
        raise LayerNormArgumentError(f"input must be interleaved, or sharded in L1, but is {source}")
    if not source.is_sticks and source.tile_height not in TILE_HEIGHTS:
        raise LayerNormArgumentError(f"input's tiles must be 32, 16 or 1 x {TILE_WIDTH}, but it is {source}")
    _validate_pieces("input", source, x.dtype, x.shape[-1])


def _validate_weight(name: str, weight: ttnn.Tensor, shape: tuple[int, ...], source: Placement) -> None:
    if weight.memory_config().is_sharded():
        raise LayerNormArgumentError(f"{name} must be interleaved, but is {weight.memory_config()}")
    width = shape[-1]
    of_weight: tuple[int, ...] = (1, 1, *tuple(weight.shape))
    *leading, rows, columns = of_weight
    taken = {"(1, W)": (1, width), f"paged_shape(W) = {paged_shape(width)}": paged_shape(width)}
    if not source.is_sticks and width % TILE_WIDTH == 0:
        taken["(W / 32, 32)"] = (width // TILE_WIDTH, TILE_WIDTH)
    if weight.layout == ttnn.TILE_LAYOUT:
        if source.is_sticks:
            raise LayerNormArgumentError(
                f"{name}.layout must be ROW_MAJOR beside an input in {source}, but is {weight.layout}"
            )
        if weight.tile.tile_shape[0] not in TILE_HEIGHTS:
            raise LayerNormArgumentError(f"{name}'s tiles must be 32 x 32 or 16 x 32, but are {weight.tile.tile_shape}")
        taken = {"(1, W)": (1, width)}
    if any(size != 1 for size in leading) or (rows, columns) not in taken.values():
        raise LayerNormArgumentError(
            f"{name} must have shape {' or '.join(taken)}, but"
            f" {name}.shape={tuple(weight.shape)} and input.shape={shape}"
        )


def _validate_residual(residual: ttnn.Tensor, input_tensor: ttnn.Tensor) -> None:
    _validate_tensor("residual", residual, input_tensor)
    theirs, ours = ((tuple(tensor.shape), tensor.dtype, placement_of(tensor)) for tensor in (residual, input_tensor))
    if theirs != ours:
        raise LayerNormArgumentError(
            f"residual must have the input's shape {ours[0]}, dtype {ours[1]} and layout {ours[2]},"
            f" but has {theirs[0]}, {theirs[1]} and {theirs[2]}"
        )


def _validate_output(output_name: str, output: ttnn.Tensor, operands: Operands) -> None:
    shape, dtype = tuple(operands.input.shape), operands.input.dtype
    if (tuple(output.shape), output.dtype) != (shape, dtype):
        raise LayerNormArgumentError(
            f"{output_name} must have the input's shape {shape} and dtype {dtype},"
            f" but has {tuple(output.shape)} and {output.dtype}"
        )
    if math.prod(shape) == 0:
        return
    for name, tensor in vars(operands).items():
        in_place = name in ("input", "residual") and tensor is not None and _same_place(tensor, output)
        if tensor is not None and not in_place:
            _refuse_shared(output_name, output, name, tensor)


def _same_place(one: ttnn.Tensor, other: ttnn.Tensor) -> bool:
    return one.buffer_address() == other.buffer_address() and placement_of(one) == placement_of(other)


def _refuse_shared(output_name: str, output: ttnn.Tensor, name: str, tensor: ttnn.Tensor) -> None:
    if share_memory(output, tensor):
        raise LayerNormArgumentError(
            f"{output_name} must not share memory with {name}, but starts at {output.buffer_address():#x} in the buffer"
            f" in which that starts at {tensor.buffer_address():#x}"
        )
