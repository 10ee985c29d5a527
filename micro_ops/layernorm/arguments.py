# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What the ops take, and the refusal of all else before anything is compiled, launched or allocated."""

import math
from dataclasses import dataclass

import torch
import ttnn

ELEMENT_SIZES = {ttnn.bfloat16: 2, ttnn.float32: 4}  # bytes, of the dtypes that an operand may have
FLOAT32_TINY, FLOAT32_MAX = (
    torch.finfo(torch.float32).tiny,
    torch.finfo(torch.float32).max,
)  # the chip flushes what is smaller to zero
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


def paged_shape(width: int) -> tuple[int, int]:
    """Of gamma or beta of `width` elements in pages of `WEIGHT_PAGE_ELEMENTS`, which DRAM's banks take in turn.

    The first page is empty, because it shares its bank with the first row of x and of the result; what follows the last
    element is not read, either. (1, width), all in one page, if there are no more elements than that.
    """
    if width <= WEIGHT_PAGE_ELEMENTS:
        return (1, width)
    return (1 + math.ceil(width / WEIGHT_PAGE_ELEMENTS), WEIGHT_PAGE_ELEMENTS)


def validate(operands: Operands, output: ttnn.Tensor | None, epsilon: float) -> None:
    """
    Raises:
        LayerNormArgumentError: an argument that does not fit, named with what it is and what it must be
    """
    optional = {"gamma": operands.gamma, "beta": operands.beta, "output": output}
    tensors = {"input": operands.input, **{name: tensor for name, tensor in optional.items() if tensor is not None}}
    for name, tensor in tensors.items():
        _validate_tensor(name, tensor, operands.input)
    shape = tuple(operands.input.shape)
    validate_shape(shape)
    for name in tensors.keys() & {"gamma", "beta"}:
        if tuple(tensors[name].shape) not in ((1, shape[-1]), paged_shape(shape[-1])):
            raise LayerNormArgumentError(
                f"{name} must have shape (1, W) or {paged_shape(shape[-1])}, but"
                f" {name}.shape={tuple(tensors[name].shape)} and input.shape={shape}"
            )
    if output is not None:
        _validate_output(output, tensors)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        raise LayerNormArgumentError(f"epsilon must be a number, but is {epsilon!r}")
    if not FLOAT32_TINY <= epsilon <= FLOAT32_MAX:  # a NaN is neither
        raise LayerNormArgumentError(f"epsilon must be positive and finite in float32, but is {epsilon}")


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
    if tensor.layout != ttnn.ROW_MAJOR_LAYOUT:
        raise LayerNormArgumentError(f"{name}.layout must be ROW_MAJOR, but is {tensor.layout}")
    if tensor.dtype not in ELEMENT_SIZES:
        raise LayerNormArgumentError(f"{name}.dtype must be bfloat16 or float32, but is {tensor.dtype}")
    if tensor.memory_config() != ttnn.DRAM_MEMORY_CONFIG:
        raise LayerNormArgumentError(f"{name} must be interleaved in DRAM, but is {tensor.memory_config()}")
    if tensor.device() != input_tensor.device():
        raise LayerNormArgumentError(
            f"{name} must be on the input's device {input_tensor.device()}, but is on {tensor.device()}"
        )


def _validate_output(output: ttnn.Tensor, tensors: dict[str, ttnn.Tensor]) -> None:
    shape, dtype = tuple(tensors["input"].shape), tensors["input"].dtype
    if (tuple(output.shape), output.dtype) != (shape, dtype):
        raise LayerNormArgumentError(
            f"output must have the input's shape {shape} and dtype {dtype},"
            f" but has {tuple(output.shape)} and {output.dtype}"
        )
    for name, tensor in tensors.items():
        if name != "output" and tensor.buffer_address() == output.buffer_address() and math.prod(shape) > 0:
            raise LayerNormArgumentError(f"output must not be {name}: both start at {output.buffer_address():#x}")
