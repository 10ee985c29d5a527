# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""LayerNorm and RMSNorm of sticks and of tiles, in DRAM and in L1, on all cores of a chip or on some.

arguments.py refuses what can't be served, plan.py and tile_plan.py lay the launch out, program.py and tile_program.py
describe it to ttnn, kernels/ has what runs. reference.py has the arithmetic without the machine; SPEC.md the data flow,
the circular buffers (CBs), the numerics and the limits.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from typing import Any, NamedTuple

import torch
import ttnn

from micro_ops.layernorm.arguments import LayerNormArgumentError, Operands, validate, validate_target
from micro_ops.layernorm.cost import BLACKHOLE, WORMHOLE
from micro_ops.layernorm.launch import Prepared, Result, free_l1, run_together
from micro_ops.layernorm.placement import TILE_WIDTH, Placement, Shards, placement_like, placement_of
from micro_ops.layernorm.plan import Chip, Plan, Stage, check_contract, make_plan, make_shard_plan, stays_on_its_cores
from micro_ops.layernorm.program import Tap, Variant, create_program, dtypes_of, statistics_shape
from micro_ops.layernorm.tile_plan import TilePlan, check_tile_contract, make_tile_plan
from micro_ops.layernorm.tile_program import create_tile_program

type Cores = int | ttnn.CoreRange | None  # at most so many of the device's cores; none but these; all

CHIPS = (1, 2, 4, 8)  # over which columns may be cut: as many as divide the lanes of a row in Dest
FIRST_CORE = ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(0, 0))
COSTS = {ttnn.device.Arch.BLACKHOLE: BLACKHOLE, ttnn.device.Arch.WORMHOLE_B0: WORMHOLE}


class Outputs(NamedTuple):
    """What a call says of what it writes, as `LayerNorm.prepare` takes it."""

    output_tensor: ttnn.Tensor | None
    residual_output: ttnn.Tensor | None
    memory_config: ttnn.MemoryConfig | None
    layout: ttnn.Layout | None


def _as_op[**P](prepare: Callable[P, Prepared]) -> Callable[P, Result]:
    """Takes what `prepare` takes, runs it and returns its result."""

    @wraps(prepare, assigned=["__doc__"])
    def op(*arguments: P.args, **keywords: P.kwargs) -> Result:
        return run_together(prepare(*arguments, **keywords))[0]

    return op


class _Norm:
    """What `LayerNorm` and `RMSNorm` share."""

    _subtract_mean: bool

    @classmethod
    def partial_statistics(
        cls,
        input_tensor: ttnn.Tensor,
        *,
        residual: ttnn.Tensor | None = None,
        residual_output: ttnn.Tensor | None = None,
        cores: Cores = None,
    ) -> Result:
        """Of rows whose columns are cut over chips, as many on each: the statistics of a chip's own, for
        `normalize_with`.

        Args:
            input_tensor: (..., W / n), as `prepare` takes it
            residual, residual_output, cores: as `prepare`'s
        Returns: `program.statistics_shape(rows)` float32 row-major in DRAM, of each row (mean, variance, and once more
            the two), or of RMSNorm its mean square four times; with a residual, those of the sum, and the sum
        Raises:
            LayerNormArgumentError: an argument that does not fit, named with what it is and what it must be
        """
        operands = Operands(input_tensor, None, None, residual)
        return run_together(_prepare_statistics(operands, residual_output, Variant(cls._subtract_mean), cores))[0]


class LayerNorm(_Norm):
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over the last dimension."""

    _subtract_mean = True

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
    def prepare(
        input_tensor: ttnn.Tensor,
        gamma_tensor: ttnn.Tensor | None,
        beta_tensor: ttnn.Tensor | None,
        output_tensor: ttnn.Tensor | None = None,
        epsilon: float = 1e-6,
        *,
        residual: ttnn.Tensor | None = None,
        residual_output: ttnn.Tensor | None = None,
        memory_config: ttnn.MemoryConfig | None = None,
        layout: ttnn.Layout | None = None,
        cores: Cores = None,
        tap: Tap = Tap.NONE,
    ) -> Prepared:
        """Checks and lays out a norm and allocates its outputs, for `run_together`. `op` takes the same, runs it and
        returns the output; with a residual, the output and the sum. With no rows nothing runs.

        A row's result has the same bits whatever the other rows are, wherever it stands, on whichever cores, and in
        whichever layout.

        Args:
            input_tensor: (..., W), rank 1 to 4, bfloat16 or float32. Row-major, or TILE of 32, 16 or 1 x 32:
                interleaved in DRAM or L1, or height-, width- or block-sharded in L1. What pads a tile may be anything.
                Row-major shards beside one another must divide W, in multiples of 16 bytes.
            gamma_tensor, beta_tensor: bfloat16 or float32, interleaved, each optional. (1, W) row-major, or faster if W
                is more than 1,024: `arguments.paged_shape`(W). Beside tiles of 32 or 16 rows also (W / 32, 32)
                row-major, or (1, W) TILE of 32 or 16 x 32.
            output_tensor: the input's shape and dtype, and its layout or another (`layout`); overwritten. The input
                itself, or interleaved, or with the input's shards. None allocates one.
            epsilon: added to the variance; positive and finite in float32. Another value costs no recompile.
            residual: of the input's shape, dtype and layout. What is normalized is the input + residual, rounded once
                to their dtype, as torch does (a NaN may come out as an infinity).
            residual_output: where that sum goes, as `output_tensor`; it may be the input or the residual itself. None
                allocates one. Where the output has another layout, it keeps the input's layout, memory and shards.
            memory_config: of the outputs that are allocated; None takes the input's
            layout: of the output; None takes `output_tensor`'s, or the input's. An input in TILE of 32 or 16 rows may
                go to ROW_MAJOR, and a ROW_MAJOR one to TILE, of 32 x 32 or as `output_tensor` has it; TILE 1 x 32 to
                either. From shards it goes to what is interleaved, or to shards of the same whole rows on the same
                cores; to shards of sticks in whole rows. What pads a tile is not written.
            cores: at most so many of the device's cores, or none but these; None allows all. The plan takes as many as
                make it faster (cost.py). A shard stays on its core, which must be among them, unless it is row-major or
                of tiles of one row and `plan.stays_on_its_cores` says no.
            tap: an intermediate to write in place of the result, for tests, of rows as sticks
        Raises:
            LayerNormArgumentError: an argument that does not fit, named with what it is and what it must be
        """
        operands = Operands(input_tensor, gamma_tensor, beta_tensor, residual)
        variant = Variant(subtract_mean=True, tap=tap)
        outputs = Outputs(output_tensor, residual_output, memory_config, layout)
        return _prepare(operands, outputs, epsilon, variant, cores)

    op = staticmethod(_as_op(prepare))

    @staticmethod
    def normalize_with(
        input_tensor: ttnn.Tensor,
        statistics: ttnn.Tensor,
        gamma_tensor: ttnn.Tensor | None,
        beta_tensor: ttnn.Tensor | None,
        output_tensor: ttnn.Tensor | None = None,
        epsilon: float = 1e-6,
        *,
        memory_config: ttnn.MemoryConfig | None = None,
        layout: ttnn.Layout | None = None,
        cores: Cores = None,
    ) -> ttnn.Tensor:
        """The norm of rows whose columns are cut over chips, from the statistics of all of them.

        Args:
            input_tensor: (..., W / n), as `partial_statistics` took it or, with a residual, gave it back
            statistics: of 1, 2, 4 or 8 chips, one's pages behind another's: (n * pages, columns) of
                `program.statistics_shape(rows)`, as `ttnn.all_gather(..., dim=0)` makes it
            gamma_tensor, beta_tensor: of this chip's columns; these and the others as `prepare`'s
        Raises:
            LayerNormArgumentError: an argument that does not fit, named with what it is and what it must be
        """
        operands = Operands(input_tensor, gamma_tensor, beta_tensor)
        outputs = Outputs(output_tensor, None, memory_config, layout)
        prepared = _prepare(operands, outputs, epsilon, Variant(subtract_mean=True), cores, statistics)
        y: ttnn.Tensor = run_together(prepared)[0]
        return y


class RMSNorm(_Norm):
    """y = x / sqrt(mean(x^2) + epsilon) * gamma over the last dimension: LayerNorm's kernels without mean and beta."""

    _subtract_mean = False

    @staticmethod
    def golden(
        input_tensor: torch.Tensor,
        gamma_tensor: torch.Tensor | None,
        epsilon: float = 1e-6,
        *,
        round_before_gamma: bool = False,
        round_inverse_rms: bool = False,
    ) -> torch.Tensor:
        """RMSNorm in float64, unrounded but for what it is told to round to the input's dtype on the way.

        Args:
            input_tensor: (..., W), any float dtype
            gamma_tensor: (W,) or (1, W), or None for 1
            round_before_gamma, round_inverse_rms: as `op`'s
        Returns: (..., W) float64
        """
        x = input_tensor.to(torch.float64)
        rms = torch.sqrt(x.square().mean(dim=-1, keepdim=True) + epsilon)
        y = x * (1 / rms).to(input_tensor.dtype).to(torch.float64) if round_inverse_rms else x / rms
        if round_before_gamma:
            y = y.to(input_tensor.dtype).to(torch.float64)
        return y if gamma_tensor is None else y * gamma_tensor.to(torch.float64).reshape(-1)

    @staticmethod
    def prepare(
        input_tensor: ttnn.Tensor,
        gamma_tensor: ttnn.Tensor | None,
        output_tensor: ttnn.Tensor | None = None,
        epsilon: float = 1e-6,
        *,
        residual: ttnn.Tensor | None = None,
        residual_output: ttnn.Tensor | None = None,
        memory_config: ttnn.MemoryConfig | None = None,
        layout: ttnn.Layout | None = None,
        cores: Cores = None,
        round_before_gamma: bool = False,
        round_inverse_rms: bool = False,
    ) -> Prepared:
        """As `LayerNorm.prepare`, with its arguments and errors; `op` takes the same, runs it and returns what
        `LayerNorm.op` does.

        Args:
            round_before_gamma: round the normalized value to the input's dtype before it is multiplied by gamma, as
                HuggingFace's RMSNorms do, and again after; else round once, as DeepSeek's own code does. The two
                differ by an ULP in about a quarter of bfloat16 elements.
            round_inverse_rms: round 1 / rms to the input's dtype before x is multiplied by it, as HuggingFace's
                DeepSeek-V4 does where a norm has no weight. It moves whole rows, by up to an ULP. Of float32 input
                neither flag changes anything: all on the way is float32.
        """
        operands = Operands(input_tensor, gamma_tensor, None, residual)
        variant = Variant(
            subtract_mean=False, round_before_gamma=round_before_gamma, round_inverse_rms=round_inverse_rms
        )
        outputs = Outputs(output_tensor, residual_output, memory_config, layout)
        return _prepare(operands, outputs, epsilon, variant, cores)

    op = staticmethod(_as_op(prepare))

    @staticmethod
    def normalize_with(
        input_tensor: ttnn.Tensor,
        statistics: ttnn.Tensor,
        gamma_tensor: ttnn.Tensor | None,
        output_tensor: ttnn.Tensor | None = None,
        epsilon: float = 1e-6,
        *,
        memory_config: ttnn.MemoryConfig | None = None,
        layout: ttnn.Layout | None = None,
        cores: Cores = None,
        round_before_gamma: bool = False,
        round_inverse_rms: bool = False,
    ) -> ttnn.Tensor:
        """As `LayerNorm.normalize_with`, with `prepare`'s `round_before_gamma` and `round_inverse_rms`."""
        operands = Operands(input_tensor, gamma_tensor, None)
        outputs = Outputs(output_tensor, None, memory_config, layout)
        variant = Variant(
            subtract_mean=False, round_before_gamma=round_before_gamma, round_inverse_rms=round_inverse_rms
        )
        y: ttnn.Tensor = run_together(_prepare(operands, outputs, epsilon, variant, cores, statistics))[0]
        return y


class LayerNormSingleCore(LayerNorm):
    """`LayerNorm` on core (0, 0)."""

    @staticmethod
    def prepare(*arguments: Any, **keywords: Any) -> Prepared:
        """`LayerNorm.prepare` without `cores`."""
        return LayerNorm.prepare(*arguments, cores=FIRST_CORE, **keywords)

    op = staticmethod(_as_op(prepare))


class RMSNormSingleCore(RMSNorm):
    """`RMSNorm` on core (0, 0)."""

    @staticmethod
    def prepare(*arguments: Any, **keywords: Any) -> Prepared:
        """`RMSNorm.prepare` without `cores`."""
        return RMSNorm.prepare(*arguments, cores=FIRST_CORE, **keywords)

    op = staticmethod(_as_op(prepare))


def chip_of(device: ttnn.Device, cores: Cores = None) -> Chip:
    """What a plan may use of an open device.

    Args:
        cores: as `LayerNorm.op`'s
    Raises:
        LayerNormArgumentError: no core, or cores that the device does not have
    """
    grid = device.compute_with_storage_grid_size()
    start, end = (0, 0), (grid.x - 1, grid.y - 1)
    max_cores = grid.x * grid.y
    if isinstance(cores, ttnn.CoreRange):
        start, end = (cores.start.x, cores.start.y), (cores.end.x, cores.end.y)
        if end[0] >= grid.x or end[1] >= grid.y:
            raise LayerNormArgumentError(
                f"cores must be within the device's {grid.x} x {grid.y}, but are {start} to {end}"
            )
    elif cores is not None:
        if isinstance(cores, bool) or not isinstance(cores, int) or cores < 1:
            raise LayerNormArgumentError(f"cores must be a number from 1 on or a ttnn.CoreRange, but is {cores!r}")
        max_cores = min(cores, max_cores)
    return Chip(
        costs=COSTS[device.arch()],
        l1_bytes=free_l1(device),
        origin=start,
        noc_x=tuple(_noc(device, x, start[1])[0] for x in range(start[0], end[0] + 1)),
        noc_y=tuple(_noc(device, start[0], y)[1] for y in range(start[1], end[1] + 1)),
        max_cores=max_cores,
        bank_cores=tuple(
            (core.x, core.y) for core in device.get_optimal_dram_bank_to_logical_worker_assignment(ttnn.NOC.NOC_1)
        ),
    )


def _noc(device: ttnn.Device, x: int, y: int) -> tuple[int, int]:
    core = device.worker_core_from_logical_core(ttnn.CoreCoord(x, y))
    return core.x, core.y


def _prepare(
    operands: Operands,
    outputs: Outputs,
    epsilon: float,
    variant: Variant,
    cores: Cores,
    statistics: ttnn.Tensor | None = None,
) -> Prepared:
    """
    Args:
        statistics: of all chips that have columns of the input's rows, if this one does not have all
    """
    output_tensor, residual_output, memory_config, layout = outputs
    validate(operands, output_tensor, residual_output, epsilon)
    x = operands.input
    memory = memory_config or (x if output_tensor is None else output_tensor).memory_config()
    tile = _tile_of_output(x, output_tensor, layout)
    source, target = placement_of(x), placement_like(x, memory, None if tile is None else tile.tile_shape[0])
    assert source is not None
    if target is None:
        raise LayerNormArgumentError(f"the output can't be sharded by {memory_config}")
    validate_target(target, source, x)
    chips = None if statistics is None else _chips_of(statistics, x)
    keeps_layout = target.tile_height == source.tile_height
    stream = target if keeps_layout else source
    as_output = "memory_config says" if memory_config else "the output"
    for name, tensor, place, as_what in (
        ("output", output_tensor, target, as_output),
        ("residual_output", residual_output, stream, as_output if keeps_layout else "the input"),
    ):
        if tensor is not None and place != placement_of(tensor):
            raise LayerNormArgumentError(f"{name} must lie as {as_what}, {place}, but is {placement_of(tensor)}")
    if variant.tap != Tap.NONE and not source.is_sticks:
        raise LayerNormArgumentError(f"tap must be none where rows are no sticks, but is {variant.tap} of {source}")
    stage = Stage.WHOLE if chips is None else Stage.RESULT
    return _lay_out(
        operands,
        _spec_like(x, memory, tile) if output_tensor is None else output_tensor,
        residual_output or _stream_spec(operands, memory if keeps_layout else x.memory_config()),
        partial(_plan, operands, source, target, cores, stage, chips or 1),
        variant,
        epsilon,
        cores,
        statistics,
    )


def _prepare_statistics(
    operands: Operands, residual_output: ttnn.Tensor | None, variant: Variant, cores: Cores
) -> Prepared:
    x, epsilon = operands.input, 1.0
    validate(operands, None, residual_output, epsilon)
    source = placement_of(x)
    assert source is not None
    shape = ttnn.Shape(statistics_shape(math.prod(tuple(x.shape)[:-1])))
    return _lay_out(
        operands,
        ttnn.TensorSpec(shape, ttnn.float32, ttnn.ROW_MAJOR_LAYOUT, buffer_type=ttnn.BufferType.DRAM),
        residual_output or _stream_spec(operands, x.memory_config()),
        partial(_plan, operands, source, source, cores, Stage.STATISTICS, 1),
        variant,
        epsilon,
        cores,
    )


def _stream_spec(operands: Operands, memory: ttnn.MemoryConfig) -> ttnn.TensorSpec | None:
    """Of input + residual, if there is one, in the input's layout."""
    x = operands.input
    return None if operands.residual is None else _spec_like(x, memory, _tile_of_output(x, None, None))


def _lay_out(
    operands: Operands,
    output: ttnn.Tensor | ttnn.TensorSpec,
    stream: ttnn.Tensor | ttnn.TensorSpec | None,
    planned: Callable[[Chip], Plan | TilePlan],
    variant: Variant,
    epsilon: float,
    cores: Cores,
    statistics: ttnn.Tensor | None = None,
) -> Prepared:
    """Plans, and then allocates what is given by a spec alone.

    Args:
        stream: where s = x + residual goes, if there is one
    """
    device = operands.input.device()
    chip = chip_of(device, cores)
    plan = None if 0 in tuple(operands.input.shape) else planned(chip)
    if isinstance(output, ttnn.TensorSpec):
        output = ttnn.allocate_tensor_on_device(output, device)
    if isinstance(stream, ttnn.TensorSpec):
        stream = ttnn.allocate_tensor_on_device(stream, device)
    if plan is None:
        return Prepared(operands, output, stream)
    free = free_l1(device)
    if plan.l1_bytes > free:  # now that the outputs are there
        plan = planned(replace(chip, l1_bytes=free))
    if isinstance(plan, Plan):
        program = create_program(plan, chip, variant, operands, output, stream, epsilon, statistics)
    else:
        whole_chip = chip if cores is None else chip_of(device)
        program = create_tile_program(plan, whole_chip, variant, operands, output, stream, epsilon, statistics)
    cores_used = frozenset(share.core for share in plan.shares)
    return Prepared(operands, output, stream, program, cores_used, plan.l1_bytes, statistics)


def _chips_of(statistics: ttnn.Tensor, x: ttnn.Tensor) -> int:
    """How many chips' statistics there are of x.

    Raises:
        LayerNormArgumentError: they are not what `normalize_with` takes
    """
    pages, columns = statistics_shape(math.prod(tuple(x.shape)[:-1]))
    shape = tuple(statistics.shape)
    taken = [(chips * pages, columns) for chips in CHIPS]
    if shape not in taken or (statistics.dtype, statistics.layout) != (ttnn.float32, ttnn.ROW_MAJOR_LAYOUT):
        raise LayerNormArgumentError(
            f"statistics must have shape {' or '.join(map(str, taken))}, dtype {ttnn.float32} and be ROW_MAJOR, but"
            f" have {shape} and {statistics.dtype} and are {statistics.layout}"
        )
    if statistics.device() != x.device():
        raise LayerNormArgumentError(
            f"statistics must be on the input's device {x.device()}, but are on {statistics.device()}"
        )
    if statistics.memory_config().is_sharded():
        raise LayerNormArgumentError(f"statistics must be interleaved, but are {statistics.memory_config()}")
    return CHIPS[taken.index(shape)]


def _tile_of_output(x: ttnn.Tensor, output_tensor: ttnn.Tensor | None, layout: ttnn.Layout | None) -> ttnn.Tile | None:
    """None for row-major.

    Raises:
        LayerNormArgumentError: a layout that there is none of, or another one than the output has
    """
    if layout not in (None, ttnn.ROW_MAJOR_LAYOUT, ttnn.TILE_LAYOUT):
        raise LayerNormArgumentError(f"layout must be ROW_MAJOR, TILE or None, but is {layout!r}")
    if output_tensor is not None and layout not in (None, output_tensor.layout):
        in_place = output_tensor.buffer_address() == x.buffer_address()
        raise LayerNormArgumentError(
            f"output must have the layout that is asked for, {layout}, but has {output_tensor.layout}"
            + (": in the input's place it keeps the input's" if in_place else "")
        )
    tensor = x if output_tensor is None else output_tensor
    if (tensor.layout if layout is None else layout) == ttnn.ROW_MAJOR_LAYOUT:
        return None
    return tensor.tile if tensor.layout == ttnn.TILE_LAYOUT else ttnn.Tile((32, TILE_WIDTH))


def _plan(
    operands: Operands, source: Placement, target: Placement, cores: Cores, stage: Stage, chips: int, chip: Chip
) -> Plan | TilePlan:
    """
    Args:
        source, target: of the input and the output
        chips: whose statistics are taken, where the stage takes them
    Raises:
        LayerNormArgumentError: L1 has no room, or shards lie on cores that are not to be taken
    """
    shape, dtypes = tuple(operands.input.shape), dtypes_of(operands)
    if source.is_sticks and stage != Stage.WHOLE:
        plan = make_plan(shape, dtypes, chip, stage, chips)
        check_contract(plan)
        return plan
    stream = target
    if target.tile_height != source.tile_height or stage == Stage.STATISTICS:
        target, stream = replace(target, shards=None), source  # the writer takes the result to shards, not the packer
    stays = not source.is_sticks or stays_on_its_cores(source, shape[-1])
    if stays:
        _check_shards(chip, source.shards or target.shards, cores)
    if source.is_sticks:
        if stays and source.shards:
            plan = make_shard_plan(shape, dtypes, chip, source.shards, target)
        else:
            plan = make_plan(shape, dtypes, chip)
        check_contract(plan)
        return plan
    tile_plan = make_tile_plan(
        shape,
        dtypes,
        chip,
        source,
        target,
        tiled_weights=any(w is not None and w.layout == ttnn.TILE_LAYOUT for w in (operands.gamma, operands.beta)),
        stream=None if operands.residual is None else stream,
        stage=stage,
        chips=chips,
    )
    check_tile_contract(tile_plan)
    return tile_plan


def _spec_like(x: ttnn.Tensor, memory: ttnn.MemoryConfig, tile: ttnn.Tile | None) -> ttnn.TensorSpec:
    """In such tiles, which `ttnn.allocate_tensor_on_device` knows of a spec alone; or row-major.

    Raises:
        LayerNormArgumentError: ttnn has no such tensors
    """
    where = (memory.memory_layout, memory.shard_spec) if memory.is_sharded() else ()
    layout = ttnn.ROW_MAJOR_LAYOUT if tile is None else ttnn.TILE_LAYOUT
    try:
        return ttnn.TensorSpec(x.shape, x.dtype, layout, *where, buffer_type=memory.buffer_type, tile=tile)
    except RuntimeError as error:
        reason = str(error).partition("info:\n")[2].partition("\n")[0]
        raise LayerNormArgumentError(f"output can't be {layout} in {memory}: {reason}") from error


def _check_shards(chip: Chip, shards: Shards | None, cores: Cores) -> None:
    """
    Raises:
        LayerNormArgumentError: shards on cores that are not to be taken
    """
    if shards is None or cores is None:
        return
    if isinstance(cores, int) and len(shards.cores) > cores:
        raise LayerNormArgumentError(f"cores must be as many as have shards, {len(shards.cores)}, but is {cores}")
    if isinstance(cores, ttnn.CoreRange) and not set(shards.cores) <= set(chip.cores()):
        raise LayerNormArgumentError(f"cores must be those that have shards, {shards.cores}, but is {cores}")
