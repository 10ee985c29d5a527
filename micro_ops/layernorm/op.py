"""LayerNorm and RMSNorm on one Tensix core: row-major sticks in DRAM in, row-major sticks in DRAM out.

SPEC.md describes the data flow, the circular buffers (CBs), the numerics and the limits.
"""

import math
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
import ttnn

KERNELS = Path(__file__).parent / "kernels"

# CB indices
CB_INPUT = 0
CB_GAMMA = 1
CB_BETA = 2
CB_OUTPUT = 3

TILE_ELEMENTS = 1024
BLOCK_ELEMENTS = 128  # what one FPU instruction works on
GROUP_ROWS = 4  # that go through Dest side by side, unless there is but one, or L1 has no room (kernels/dest.h)
GROUPS_IN_FLIGHT = 2  # that the reader has asked for and not yet pushed
RING_GROUPS = 4  # that the input's CB holds: compute works on two, and two are on their way
OUTPUT_PAGES = 8  # tiles: four steps
FLOAT32_TINY, FLOAT32_MAX = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max  # smaller is zero there
ELEMENT_SIZES = {ttnn.bfloat16: 2, ttnn.float32: 4}  # bytes


class Tap(StrEnum):
    """What `op` writes to each element of the output in place of the result; named as in compute.cpp."""

    NONE = "none"
    INPUT = "input"
    MEAN = "mean"  # of the element's row, as the three below
    VARIANCE = "variance"  # biased, without epsilon
    INVERSE_STD = "inverse_std"
    STANDARDIZED = "standardized"
    SCALED = "scaled"  # standardized times gamma


class LayerNormArgumentError(ValueError):
    """An argument that the op can't serve; raised before anything is compiled, launched or allocated."""


class CbContractError(RuntimeError):
    """CBs that would deadlock the kernels: a fault of this file, not of an argument. Raised before the launch."""


@dataclass(frozen=True)
class Sizes:
    """How a shape goes through the op."""

    width: int  # W, elements of a row
    rows: int  # product of all dimensions but the last
    group_rows: int  # rows in Dest at once
    piece: int  # elements of a row in Dest at once
    steps: int  # pieces of a row


def _calculate_sizes(input_shape: tuple[int, ...], group_rows: int) -> Sizes:
    """Sizes for an input of `input_shape` (..., W), of which `group_rows` rows (4 or 1) are in Dest at once."""
    width = input_shape[-1]
    blocks = math.ceil(width / BLOCK_ELEMENTS)
    piece_blocks = min(blocks, 4) if group_rows > 1 or blocks <= 4 else 8
    piece = piece_blocks * BLOCK_ELEMENTS
    return Sizes(
        width=width,
        rows=math.prod(input_shape[:-1]),
        group_rows=group_rows,
        piece=piece,
        steps=math.ceil(width / piece),
    )


def _create_cb_descriptors(
    core_grid: ttnn.CoreRangeSet,
    sizes: Sizes,
    dtype: ttnn.DataType,
    gamma_dtype: ttnn.DataType | None,
    beta_dtype: ttnn.DataType | None,
) -> list[ttnn.CBDescriptor]:
    """The CBs of SPEC.md's table."""

    def descriptor(index: int, pages: int, page_elements: int, cb_dtype: ttnn.DataType) -> ttnn.CBDescriptor:
        page_size = page_elements * ELEMENT_SIZES[cb_dtype]
        page = ttnn.CBFormatDescriptor(buffer_index=index, data_format=cb_dtype, page_size=page_size)
        return ttnn.CBDescriptor(total_size=pages * page_size, core_ranges=core_grid, format_descriptors=[page])

    weights = ((CB_GAMMA, gamma_dtype), (CB_BETA, beta_dtype))
    return [
        descriptor(CB_INPUT, RING_GROUPS * sizes.group_rows * sizes.steps, sizes.piece, dtype),
        *(descriptor(cb, sizes.steps, sizes.piece, given) for cb, given in weights if given is not None),
        descriptor(CB_OUTPUT, OUTPUT_PAGES, TILE_ELEMENTS, dtype),
    ]


def fit_l1(
    input_shape: tuple[int, ...],
    dtype: ttnn.DataType,
    gamma_dtype: ttnn.DataType | None,
    beta_dtype: ttnn.DataType | None,
) -> tuple[Sizes, list[ttnn.CBDescriptor]]:
    """Sizes and CBs for as many rows side by side as there are, up to `GROUP_ROWS`, or for one if L1 has no more room.

    Raises:
        LayerNormArgumentError: L1 has no room for single rows either
    """
    core_grid = _core_grid()
    available = ttnn.get_max_worker_l1_unreserved_size()
    needed = 0
    for group_rows in (GROUP_ROWS, 1) if math.prod(input_shape[:-1]) > 1 else (1,):
        sizes = _calculate_sizes(input_shape, group_rows)
        cbs = _create_cb_descriptors(core_grid, sizes, dtype, gamma_dtype, beta_dtype)
        needed = sum(cb.total_size for cb in cbs)
        if needed <= available:
            return sizes, cbs
    raise LayerNormArgumentError(
        f"rows of {input_shape[-1]} elements need {needed} bytes of L1, but a core has {available}"
    )


def _check_cbs(sizes: Sizes, cbs: list[ttnn.CBDescriptor]) -> None:
    """Whether the CBs hold what the kernels wait for at once, as the contracts on top of the kernels say.

    Raises:
        CbContractError: a wait that would never end, or pages that would lie apart where the kernels count on a row
    """
    pages = {}
    for cb in cbs:
        (page,) = cb.format_descriptors
        pages[page.buffer_index] = cb.total_size // page.page_size
    group = sizes.group_rows * sizes.steps
    # Compute holds one group while the reader waits for room for all that are in flight.
    if pages[CB_INPUT] % group or pages[CB_INPUT] < (1 + GROUPS_IN_FLIGHT) * group:
        raise CbContractError(
            f"CB_INPUT must hold whole groups of {group} pages, {1 + GROUPS_IN_FLIGHT} at least,"
            f" but holds {pages[CB_INPUT]} pages"
        )
    if pages[CB_INPUT] >= 2**16:  # as wide as the CBs' counters are
        raise CbContractError(f"CB_INPUT must hold fewer than {2**16} pages, but holds {pages[CB_INPUT]}")
    for name, index in (("CB_GAMMA", CB_GAMMA), ("CB_BETA", CB_BETA)):
        if pages.get(index, sizes.steps) != sizes.steps:
            raise CbContractError(f"{name} must hold a row's {sizes.steps} pages, but holds {pages[index]}")
    step = math.ceil(sizes.group_rows * sizes.piece / TILE_ELEMENTS)
    if pages[CB_OUTPUT] % step or not pages[CB_OUTPUT]:
        raise CbContractError(f"CB_OUTPUT must hold whole steps of {step} pages, but holds {pages[CB_OUTPUT]}")


def _create_kernel_descriptor(
    name: str,
    core_grid: ttnn.CoreRangeSet,
    config: ttnn.ReaderConfigDescriptor | ttnn.WriterConfigDescriptor | ttnn.ComputeConfigDescriptor,
    compile_time: dict[str, int],
    runtime: dict[str, int],
    tensors: tuple[ttnn.Tensor, ...] = (),
    defines: dict[str, str] | None = None,
) -> ttnn.KernelDescriptor:
    """Kernel `name`.cpp, which finds its runtime arguments by their names (kernels/agreement.h)."""
    positions = {f"arg_{key}": position for position, key in enumerate(runtime)}
    accessors = [arg for tensor in tensors for arg in ttnn.TensorAccessorArgs(tensor).get_compile_time_args()]
    runtime_args = ttnn.RuntimeArgs()
    core = core_grid.bounding_box().start
    runtime_args[core.x][core.y] = list(runtime.values())
    return ttnn.KernelDescriptor(
        kernel_source=str(KERNELS / f"{name}.cpp"),
        core_ranges=core_grid,
        compile_time_args=accessors,
        named_compile_time_args=list((compile_time | positions).items()),
        runtime_args=runtime_args,
        defines=list((defines or {}).items()),
        config=config,
    )


def _create_reader_descriptor(
    core_grid: ttnn.CoreRangeSet,
    input_tensor: ttnn.Tensor,
    gamma_tensor: ttnn.Tensor | None,
    beta_tensor: ttnn.Tensor | None,
    sizes: Sizes,
) -> ttnn.KernelDescriptor:
    tensors = {"input": input_tensor, "gamma": gamma_tensor or input_tensor, "beta": beta_tensor or input_tensor}
    runtime = {"rows": sizes.rows, "steps": sizes.steps}
    for name, tensor in tensors.items():
        runtime[f"{name}_address"] = tensor.buffer_address()
        runtime[f"{name}_stick"] = sizes.width * ELEMENT_SIZES[tensor.dtype]
    return _create_kernel_descriptor(
        "reader",
        core_grid,
        ttnn.ReaderConfigDescriptor(),
        compile_time={
            "cb_input": CB_INPUT,
            "cb_gamma": CB_GAMMA,
            "cb_beta": CB_BETA,
            "has_gamma": gamma_tensor is not None,
            "has_beta": beta_tensor is not None,
            "group_rows": sizes.group_rows,
            "ring_groups": RING_GROUPS,
            "groups_in_flight": GROUPS_IN_FLIGHT,
            **{f"{name}_piece": sizes.piece * ELEMENT_SIZES[tensor.dtype] for name, tensor in tensors.items()},
        },
        runtime=runtime,
        tensors=tuple(tensors.values()),
    )


def _create_compute_descriptor(
    core_grid: ttnn.CoreRangeSet,
    sizes: Sizes,
    epsilon: float,
    dtype: ttnn.DataType,
    gamma_dtype: ttnn.DataType | None,
    beta_dtype: ttnn.DataType | None,
    tap: Tap = Tap.NONE,
    subtract_mean: bool = True,
    round_before_gamma: bool = False,
) -> ttnn.KernelDescriptor:
    config = ttnn.ComputeConfigDescriptor(fp32_dest_acc_en=True, dst_full_sync_en=True)
    unpack_modes = [ttnn.UnpackToDestMode.Default] * 64  # ttnn wants one for each CB that there could be
    for cb_dtype, cb in ((dtype, CB_INPUT), (gamma_dtype, CB_GAMMA), (beta_dtype, CB_BETA)):
        if cb_dtype == ttnn.float32:
            unpack_modes[cb] = ttnn.UnpackToDestMode.UnpackToDestFp32  # else it would pass SrcA, as TF32
    config.unpack_to_dest_mode = unpack_modes
    sum_width = sizes.width if dtype == ttnn.float32 else 2 * sizes.width  # x + x is what the FPU adds up
    return _create_kernel_descriptor(
        "compute",
        core_grid,
        config,
        compile_time={
            "cb_input": CB_INPUT,
            "cb_gamma": CB_GAMMA,
            "cb_beta": CB_BETA,
            "cb_output": CB_OUTPUT,
            "has_gamma": gamma_dtype is not None,
            "has_beta": beta_dtype is not None,
            "subtract_mean": subtract_mean,
            "round_before_gamma": round_before_gamma,
            "input_float32": dtype == ttnn.float32,
            "gamma_float32": gamma_dtype == ttnn.float32,
            "beta_float32": beta_dtype == ttnn.float32,
            "group_rows": sizes.group_rows,
            "piece_blocks": sizes.piece // BLOCK_ELEMENTS,
        },
        runtime={
            "rows": sizes.rows,
            "steps": sizes.steps,
            "ring_rows": RING_GROUPS * sizes.group_rows,
            "width_bits": _float32_bits(sum_width),
            "inverse_width_bits": _float32_bits(1 / sum_width),
            "epsilon_bits": _float32_bits(epsilon),
            "count_bits": _float32_bits(4 * (sizes.width // BLOCK_ELEMENTS)),
            "count_remainder": sizes.width % BLOCK_ELEMENTS,
            "valid": sizes.width - (sizes.steps - 1) * sizes.piece,
        },
        defines={"TAP": tap.value},
    )


def _create_writer_descriptor(
    core_grid: ttnn.CoreRangeSet, output_tensor: ttnn.Tensor, sizes: Sizes
) -> ttnn.KernelDescriptor:
    element_size = ELEMENT_SIZES[output_tensor.dtype]
    return _create_kernel_descriptor(
        "writer",
        core_grid,
        ttnn.WriterConfigDescriptor(),
        compile_time={
            "cb_output": CB_OUTPUT,
            "group_rows": sizes.group_rows,
            "piece": sizes.piece * element_size,
            "tile_size": TILE_ELEMENTS * element_size,
        },
        runtime={
            "output_address": output_tensor.buffer_address(),
            "rows": sizes.rows,
            "steps": sizes.steps,
            "stick_size": sizes.width * element_size,
        },
        tensors=(output_tensor,),
    )


def _float32_bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


class LayerNormSingleCore:
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over the last dimension, on core (0, 0)."""

    @staticmethod
    def golden(
        input_tensor: torch.Tensor,
        gamma_tensor: torch.Tensor | None,
        beta_tensor: torch.Tensor | None,
        epsilon: float = 1e-6,
    ) -> torch.Tensor:
        """LayerNorm in float64 (biased variance), unrounded.

        Args:
            input_tensor: (..., W), any float dtype
            gamma_tensor, beta_tensor: (W,) or (1, W), or None for 1 and 0
        Returns: (..., W) float64; round it once to compare with a narrower result
        """
        x = input_tensor.to(torch.float64)
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, unbiased=False, keepdim=True)
        y = (x - mean) / torch.sqrt(variance + epsilon)
        if gamma_tensor is not None:
            y = y * gamma_tensor.to(torch.float64).reshape(-1)
        if beta_tensor is not None:
            y = y + beta_tensor.to(torch.float64).reshape(-1)
        return y

    @staticmethod
    def op(
        input_tensor: ttnn.Tensor,
        gamma_tensor: ttnn.Tensor | None,
        beta_tensor: ttnn.Tensor | None,
        output_tensor: ttnn.Tensor | None = None,
        epsilon: float = 1e-6,
        tap: Tap = Tap.NONE,
    ) -> ttnn.Tensor:
        """Runs the kernels and returns the output. With no rows it runs nothing.

        Args:
            input_tensor: (..., W), rank 1 to 4, row-major bfloat16 or float32, interleaved in DRAM
            gamma_tensor, beta_tensor: (1, W) row-major bfloat16 or float32, interleaved in DRAM, each optional
            output_tensor: the input's shape and dtype, likewise; overwritten. None allocates one.
            epsilon: added to the variance; positive and finite in float32. Another value costs no recompile.
            tap: an intermediate to write in place of the result, for tests
        Raises:
            LayerNormArgumentError: an argument that does not fit, named with what it is and what it must be
        """
        return _launch(input_tensor, gamma_tensor, beta_tensor, output_tensor, epsilon, tap)


class RMSNormSingleCore:
    """y = x / sqrt(mean(x^2) + epsilon) * gamma over the last dimension: LayerNorm's kernels without mean and beta."""

    @staticmethod
    def golden(
        input_tensor: torch.Tensor,
        gamma_tensor: torch.Tensor | None,
        epsilon: float = 1e-6,
        round_before_gamma: bool = False,
    ) -> torch.Tensor:
        """RMSNorm in float64, unrounded but for `round_before_gamma`.

        Args:
            input_tensor: (..., W), any float dtype
            gamma_tensor: (W,) or (1, W), or None for 1
            round_before_gamma: as `op`'s
        Returns: (..., W) float64
        """
        x = input_tensor.to(torch.float64)
        y = x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + epsilon)
        if round_before_gamma:
            y = y.to(input_tensor.dtype).to(torch.float64)
        return y if gamma_tensor is None else y * gamma_tensor.to(torch.float64).reshape(-1)

    @staticmethod
    def op(
        input_tensor: ttnn.Tensor,
        gamma_tensor: ttnn.Tensor | None,
        output_tensor: ttnn.Tensor | None = None,
        epsilon: float = 1e-6,
        round_before_gamma: bool = False,
    ) -> ttnn.Tensor:
        """Runs the kernels and returns the output. Arguments and errors are those of `LayerNormSingleCore.op`.

        Args:
            round_before_gamma: round the normalized value to the input's dtype before it is multiplied by gamma, as
                HuggingFace's RMSNorms do, and again after; else round once, as DeepSeek's own code does. The two
                differ by an ULP in about a quarter of bfloat16 elements.
        """
        return _launch(
            input_tensor,
            gamma_tensor,
            None,
            output_tensor,
            epsilon,
            subtract_mean=False,
            round_before_gamma=round_before_gamma,
        )


def _launch(
    input_tensor: ttnn.Tensor,
    gamma_tensor: ttnn.Tensor | None,
    beta_tensor: ttnn.Tensor | None,
    output_tensor: ttnn.Tensor | None,
    epsilon: float,
    tap: Tap = Tap.NONE,
    subtract_mean: bool = True,
    round_before_gamma: bool = False,
) -> ttnn.Tensor:
    _validate(input_tensor, gamma_tensor, beta_tensor, output_tensor, epsilon)
    gamma_dtype, beta_dtype = (None if t is None else t.dtype for t in (gamma_tensor, beta_tensor))
    dtype, dtypes = input_tensor.dtype, (input_tensor.dtype, gamma_dtype, beta_dtype)
    shape = tuple(input_tensor.shape)
    sizes, cbs = fit_l1(shape, *dtypes)
    _check_cbs(sizes, cbs)
    if output_tensor is None:
        output_tensor = ttnn.allocate_tensor_on_device(
            input_tensor.shape, dtype, ttnn.ROW_MAJOR_LAYOUT, input_tensor.device(), ttnn.DRAM_MEMORY_CONFIG
        )
    if sizes.rows == 0:
        return output_tensor
    rounds = round_before_gamma and dtype == ttnn.bfloat16  # float32 is rounded already
    core_grid = _core_grid()
    program = ttnn.ProgramDescriptor(
        kernels=[
            _create_reader_descriptor(core_grid, input_tensor, gamma_tensor, beta_tensor, sizes),
            _create_writer_descriptor(core_grid, output_tensor, sizes),
            _create_compute_descriptor(core_grid, sizes, epsilon, *dtypes, tap, subtract_mean, rounds),
        ],
        semaphores=[],
        cbs=cbs,
    )
    tensors = [t for t in (input_tensor, gamma_tensor, beta_tensor, output_tensor) if t is not None]
    return ttnn.generic_op(tensors, program)


def _core_grid() -> ttnn.CoreRangeSet:
    core = ttnn.CoreCoord(0, 0)
    return ttnn.CoreRangeSet([ttnn.CoreRange(core, core)])


def _validate(
    input_tensor: ttnn.Tensor,
    gamma_tensor: ttnn.Tensor | None,
    beta_tensor: ttnn.Tensor | None,
    output_tensor: ttnn.Tensor | None,
    epsilon: float,
) -> None:
    optional = {"gamma": gamma_tensor, "beta": beta_tensor, "output": output_tensor}
    tensors = {"input": input_tensor, **{name: t for name, t in optional.items() if t is not None}}
    for name, tensor in tensors.items():
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
    shape = tuple(input_tensor.shape)
    if not 1 <= len(shape) <= 4 or shape[-1] == 0:
        raise LayerNormArgumentError(f"input must have rank 1 to 4 and a column at least, but has shape {shape}")
    for name in tensors.keys() & {"gamma", "beta"}:
        if tuple(tensors[name].shape) != (1, shape[-1]):
            raise LayerNormArgumentError(
                f"{name} must have shape (1, W), but {name}.shape={tuple(tensors[name].shape)} and input.shape={shape}"
            )
    if output_tensor is not None:
        _validate_output(output_tensor, tensors)
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        raise LayerNormArgumentError(f"epsilon must be a number, but is {epsilon!r}")
    if not FLOAT32_TINY <= epsilon <= FLOAT32_MAX:  # a NaN is neither
        raise LayerNormArgumentError(f"epsilon must be positive and finite in float32, but is {epsilon}")


def _validate_output(output_tensor: ttnn.Tensor, tensors: dict[str, ttnn.Tensor]) -> None:
    shape, dtype = tuple(tensors["input"].shape), tensors["input"].dtype
    if (tuple(output_tensor.shape), output_tensor.dtype) != (shape, dtype):
        raise LayerNormArgumentError(
            f"output must have the input's shape {shape} and dtype {dtype},"
            f" but has {tuple(output_tensor.shape)} and {output_tensor.dtype}"
        )
    for name, tensor in tensors.items():
        if name != "output" and tensor.buffer_address() == output_tensor.buffer_address() and math.prod(shape) > 0:
            raise LayerNormArgumentError(
                f"output must not be {name}: both start at {output_tensor.buffer_address():#x}"
            )
