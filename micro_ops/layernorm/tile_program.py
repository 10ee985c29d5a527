# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A tile plan's program: as program.py, of tile_plan.py's plans."""

import math

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, LayerNormArgumentError, Operands, paged_shape
from micro_ops.layernorm.placement import TILE_WIDTH, Core, rows_of_matrix
from micro_ops.layernorm.plan import (
    CB_BETA,
    CB_GAMMA,
    CB_INPUT,
    CB_RESIDUAL,
    CB_STATISTICS,
    CB_STREAM,
    CbContractError,
    Chip,
    Stage,
)
from micro_ops.layernorm.program import (
    MAX_RECTANGLES,
    Variant,
    arithmetic,
    compute_config,
    core_ranges,
    create_kernel_descriptor,
    dtypes_of,
    multicast_words,
    row_constants,
    stage_arguments,
    statistics_shape,
)
from micro_ops.layernorm.tile_plan import (
    CB_ROWS,
    CB_SUMS,
    CHUNK_TILES,
    QUAD_ROWS,
    RUN_TILES,
    TILE_CB_NAMES,
    TilePlan,
    TileShare,
)

CB_ARGUMENTS = {name.lower(): index for index, name in TILE_CB_NAMES.items()}
SEMAPHORES = 16
# How many have come to a core of its stripes (float32: of each of its quads), and of sums for its quads; of each quad,
# of how many rows its statistics are there
ROWS_SEMAPHORES = 0
SUMS_SEMAPHORE = 1
STATISTICS_SEMAPHORES = 8
MOST_STRIPES, MOST_QUADS = 16, 8  # of a row of tiles
ONE_PAGE = 2**30  # elements, more than a row has


def create_tile_program(
    plan: TilePlan,
    chip: Chip,
    variant: Variant,
    operands: Operands,
    output: ttnn.Tensor,
    stream: ttnn.Tensor | None,
    epsilon: float,
    statistics: ttnn.Tensor | None = None,
) -> ttnn.ProgramDescriptor:
    """The program that runs `plan`; as program.py's, but for

    Args:
        chip: all of it: shards may lie on any core
    """
    tensors = {"input": operands.input, "residual": operands.residual, "output": output, "stream": stream}
    cores = core_ranges(plan)
    semaphores = [ttnn.SemaphoreDescriptor(id=index, core_ranges=cores, initial_value=0) for index in range(SEMAPHORES)]
    return ttnn.ProgramDescriptor(
        kernels=[
            _create_reader_descriptor(plan, chip, operands, statistics or operands.input),
            _create_writer_descriptor(plan, chip, operands.input, output, stream or output, variant.subtract_mean),
            _create_compute_descriptor(plan, variant, operands, epsilon),
        ],
        semaphores=semaphores if plan.gathered else [],
        cbs=_create_cb_descriptors(plan, tensors),
    )


def _create_cb_descriptors(plan: TilePlan, tensors: dict[str, ttnn.Tensor | None]) -> list[ttnn.CBDescriptor]:
    cores = core_ranges(plan)
    descriptors = []
    for cb in plan.cbs:
        if cb.over:
            descriptors.append(ttnn.cb_descriptor_from_sharded_tensor(cb.index, tensors[cb.over], core_ranges=cores))
        else:
            page = ttnn.CBFormatDescriptor(
                buffer_index=cb.index,
                data_format=cb.dtype,
                page_size=cb.page_size,
                tile=ttnn.TileDescriptor(plan.tile_height, TILE_WIDTH),  # by which the packer knows a tile's faces
            )
            descriptors.append(ttnn.CBDescriptor(total_size=cb.size, core_ranges=cores, format_descriptors=[page]))
    return descriptors


def _layout(plan: TilePlan, input_size: int) -> dict[str, int]:
    """Compile-time arguments of kernels/gather.h."""
    return {
        **CB_ARGUMENTS,
        "rows_are_gathered": plan.gathered,
        "rows_are_striped": plan.striped,
        "has_residual": plan.has_residual,
        "input_is_sharded": plan.input_is_sharded,
        "input_size": input_size,
        "tile_quads": plan.tile_quads,
        "page_tiles": plan.page_tiles,
        "rows_semaphores": ROWS_SEMAPHORES,
        "sums_semaphore": SUMS_SEMAPHORE,
        "statistics_semaphores": STATISTICS_SEMAPHORES,
        "max_rectangles": MAX_RECTANGLES,
        "chips": plan.chips,
        **stage_arguments(plan),
    }


def _place(plan: TilePlan, share: TileShare) -> dict[str, int]:
    """Which tiles are a core's, which stripes or quads it adds up, and of which quads it makes the statistics."""
    adders, makers = plan.adders(share), plan.makers(share)
    parts = plan.stripes if plan.striped else plan.quads
    return {
        "tile_rows": len(share.tile_rows),
        "first_tile_row": share.tile_rows.start,
        "tiles_across": plan.tiles_across,
        "own_tiles": len(share.tiles),
        "row_pages": plan.row_pages,
        "term_pages": plan.term_pages(share),
        "ring_terms": plan.cb(CB_INPUT).pages,
        "first_tile": share.tiles.start,
        "rows_pages": plan.cb(CB_ROWS).pages if plan.gathered else 0,
        "sums_pages": plan.cb(CB_SUMS).pages if plan.striped else 0,
        "quads": plan.quads,
        "last_quads": plan.last_quads if share.tile_rows.stop == plan.tile_rows else plan.quads,
        "first_stripe": adders.index(share.core) if share.core in adders else plan.stripes,
        "adders": len(adders),
        "first_quad": makers.index(share.core) if share.core in makers else plan.quads,
        "makers": len(makers),
        "start": 2 * share.member % parts if plan.is_wide else 0,
        "members": len(share.team),
        "last_columns": plan.width - (plan.tiles_across - 1) * TILE_WIDTH,
    }


def _peers(plan: TilePlan, chip: Chip, share: TileShare) -> list[int]:
    """Of each stripe (or quad) who adds it up, of each quad who makes its statistics: kernels/gather.h's Peers."""

    def words(cores: tuple[Core, ...], count: int, pages: int) -> list[int]:
        at = [chip.noc(core) for core in cores]
        found = [(*at[i % len(at)], i // len(at) * pages) for i in range(count)]
        return [x | y << 8 | in_front << 16 for x, y, in_front in found]

    if not plan.gathered:
        return []
    adders = words(plan.adders(share), plan.stripes if plan.striped else plan.quads, plan.part_pages)
    makers = words(plan.makers(share), plan.quads, 1)
    return [*_padded(adders, MOST_STRIPES), *_padded(makers, MOST_QUADS)]


def _padded(words: list[int], length: int) -> list[int]:
    return words + [0] * (length - len(words))


def _create_reader_descriptor(
    plan: TilePlan, chip: Chip, operands: Operands, statistics: ttnn.Tensor
) -> ttnn.KernelDescriptor:
    size = ELEMENT_SIZES[operands.input.dtype]
    residual = operands.residual or operands.input
    shape = tuple(operands.input.shape)
    matrix_rows, chip_pages = rows_of_matrix(shape), statistics_shape(math.prod(shape[:-1]))[0]
    given = {"gamma": operands.gamma, "beta": operands.beta}
    tensors = {name: operands.input if tensor is None else tensor for name, tensor in given.items()}
    weights: dict[str, int] = {}
    addresses: dict[str, int] = {}
    for name, tensor in tensors.items():
        page, first = _pages(tensor, plan.width)
        element = ELEMENT_SIZES[tensor.dtype]
        weights |= {
            f"has_{name}": given[name] is not None,
            f"{name}_size": element,
            f"{name}_page": page,
            f"{name}_first_page": first,
        }
        addresses |= {
            f"{name}_address": tensor.buffer_address(),
            f"{name}_page_size": (tensor.shape[-1] if page else math.prod(tensor.tile.tile_shape)) * element,
        }

    def arguments(share: TileShare) -> dict[str, int | list[int]]:
        columns = range(share.tiles.start * TILE_WIDTH, min(share.tiles.stop * TILE_WIDTH, plan.width))
        return {
            **_place(plan, share),
            **addresses,
            "own_columns": len(columns),
            "input_address": operands.input.buffer_address(),
            "residual_address": residual.buffer_address(),
            "ring_tiles": plan.cb(plan.source).pages,
            "matrix_rows": matrix_rows,
            "statistics_address": statistics.buffer_address(),
            "chip_pages": chip_pages,
            "peers": _peers(plan, chip, share),
        }

    return create_kernel_descriptor(
        "tile_reader",
        plan,
        ttnn.ReaderConfigDescriptor(),
        compile_time={**_layout(plan, size), **weights, "run_tiles": RUN_TILES},
        runtime=arguments,
        tensors=(operands.input, tensors["gamma"], tensors["beta"], residual, statistics),
    )


def _pages(weight: ttnn.Tensor, width: int) -> tuple[int, int]:
    """How a weight lies: elements of a page, 0 for tiles, and how many pages are in front of the first element."""
    if weight.layout == ttnn.TILE_LAYOUT:
        return 0, 0
    shape: tuple[int, ...] = (1, *tuple(weight.shape))
    pages, page = shape[-2:]
    if pages == 1:
        return ONE_PAGE, 0  # whatever the width, which costs no recompile
    return page, int(pages > 1 and (pages, page) == paged_shape(width))


def _create_writer_descriptor(
    plan: TilePlan, chip: Chip, x: ttnn.Tensor, output: ttnn.Tensor, stream: ttnn.Tensor, subtract_mean: bool
) -> ttnn.KernelDescriptor:
    def arguments(share: TileShare) -> dict[str, int | list[int]]:
        others = [core for core in share.team if core != share.core]
        sends = plan.gathered and share.core in plan.makers(share)
        try:
            words = multicast_words(chip, ttnn.NOC.NOC_1, others) if sends else []
        except CbContractError as error:
            raise LayerNormArgumentError(f"shards must lie on cores that are few rectangles: {error}") from error
        return {
            **_place(plan, share),
            "output_address": output.buffer_address(),
            "output_page": output.buffer_aligned_page_size(),
            "matrix_rows": rows_of_matrix(tuple(x.shape)),
            "stream_address": stream.buffer_address(),
            "rectangles": len(words) // 2,
            "peers": [*_peers(plan, chip, share), *words],
        }

    return create_kernel_descriptor(
        "tile_writer",
        plan,
        ttnn.WriterConfigDescriptor(),
        compile_time={
            **_layout(plan, ELEMENT_SIZES[x.dtype]),
            "output_is_sharded": plan.output_is_sharded,
            "stream_is_sharded": plan.stream_is_sharded,
            "output_is_sticks": output.layout == ttnn.ROW_MAJOR_LAYOUT and plan.stage != Stage.STATISTICS,
            "subtract_mean": subtract_mean,
            "first_maker": MOST_STRIPES,
            "first_rectangle": MOST_STRIPES + MOST_QUADS,
        },
        runtime=arguments,
        tensors=(output, stream),
    )


def _create_compute_descriptor(
    plan: TilePlan, variant: Variant, operands: Operands, epsilon: float
) -> ttnn.KernelDescriptor:
    dtypes = dtypes_of(operands)
    of_weights = {"gamma": operands.gamma, "beta": operands.beta}
    strides = {
        # Of tiles, the reader leaves 64 bytes from 16 columns to the next.
        f"{name}_stride": 64 // ELEMENT_SIZES[tensor.dtype] if tensor and tensor.layout == ttnn.TILE_LAYOUT else 16
        for name, tensor in of_weights.items()
    }
    constants = {
        "ring_tiles": plan.cb(plan.source).pages,
        **row_constants(plan.width, dtypes, epsilon),
    }
    return create_kernel_descriptor(
        "tile_compute",
        plan,
        compute_config(
            {
                CB_INPUT: dtypes.input,
                CB_RESIDUAL: dtypes.input,
                CB_STREAM: dtypes.input,
                CB_GAMMA: dtypes.gamma,
                CB_BETA: dtypes.beta,
                CB_STATISTICS: ttnn.float32,
                CB_SUMS: ttnn.float32,
            }
        ),
        compile_time={
            **CB_ARGUMENTS,
            **arithmetic(variant, dtypes),
            **strides,
            "by_tiles": True,
            "rows_are_cut": False,
            "rows_are_gathered": plan.gathered,
            "rows_are_striped": plan.striped,
            "chips": plan.chips,
            **stage_arguments(plan),
            "has_residual": plan.has_residual,
            "output_is_sharded": plan.output_is_sharded,
            "stream_is_sharded": plan.stream_is_sharded,
            "group_rows": QUAD_ROWS,
            "piece_half_faces": CHUNK_TILES,
            "tile_quads": plan.tile_quads,
        },
        runtime=lambda share: {**_place(plan, share), **constants},
        defines={"TAP": variant.tap.value},
    )
