# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Where a tensor lies: sticks or tiles, DRAM or L1, interleaved over banks or in shards on cores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ttnn

TILE_WIDTH = 32
Core = tuple[int, int]  # logical x and y


@dataclass(frozen=True)
class Shards:
    """A sharded tensor's, as a matrix of the product of all its dimensions but the last.

    Attributes:
        cores: of each shard, those side by side one after another
        height, width: of a shard, elements
        across: how many lie side by side
    """

    cores: tuple[Core, ...]
    height: int
    width: int
    across: int


@dataclass(frozen=True)
class Runs:
    """Where the elements of a stick lie that is in shards or in tiles.

    Attributes:
        run: as many elements in order, from the start of a page on
        page: elements
        row_pages: from a row's first page to the next row's
    """

    run: int
    page: int
    row_pages: int


@dataclass(frozen=True)
class Placement:
    """
    Attributes:
        tile_height: rows of a tile, 32 columns wide; None for row-major
        in_l1: else in DRAM
        shards: None if its pages are interleaved over banks
    """

    tile_height: int | None
    in_l1: bool
    shards: Shards | None = None

    @property
    def is_sticks(self) -> bool:
        """Whether a row lies in order: a tile of one row has two faces of 1 x 16, one behind the other."""
        return self.tile_height in (None, 1)

    def runs(self, width: int) -> Runs | None:
        """Of sticks of `width` elements; None if they are pages that are interleaved."""
        if self.tile_height is None and self.shards is None:
            return None
        run = TILE_WIDTH if self.shards is None else self.shards.width
        page = run if self.tile_height is None else TILE_WIDTH
        return Runs(run, page, math.ceil(width / page))

    def __str__(self) -> str:
        layout = "ROW_MAJOR" if self.tile_height is None else f"TILE ({self.tile_height}, {TILE_WIDTH})"
        memory = "L1" if self.in_l1 else "DRAM"
        if self.shards is None:
            return f"{layout}, interleaved in {memory}"
        shards = self.shards
        return f"{layout}, in {memory} in {len(shards.cores)} shards of {shards.height} x {shards.width}"


def placement_of(tensor: ttnn.Tensor) -> Placement | None:
    """Of a tensor on a device; None if it is sharded by no two-dimensional spec."""
    return placement_like(tensor, tensor.memory_config(), _tile_height(tensor))


def placement_like(tensor: ttnn.Tensor, memory: ttnn.MemoryConfig, tile_height: int | None) -> Placement | None:
    """Of a tensor of the same shape in such memory and tiles, or row-major; None if it is sharded by no two-dimensional
    spec."""
    in_l1 = memory.buffer_type == ttnn.BufferType.L1
    if not memory.is_sharded():
        return Placement(tile_height, in_l1)
    if memory.shard_spec is None:
        return None
    padded = tuple(tensor.padded_shape)
    if tile_height != _tile_height(tensor):
        *leading, rows, columns = (1, *tuple(tensor.shape))
        padded = (*leading, rows, columns)
        if tile_height is not None:
            padded = (*leading, rows + -rows % tile_height, columns + -columns % TILE_WIDTH)
    return Placement(tile_height, in_l1, _shards(memory, math.prod(padded[:-1]), padded[-1]))


def _tile_height(tensor: ttnn.Tensor) -> int | None:
    return int(tensor.tile.tile_shape[0]) if tensor.layout == ttnn.TILE_LAYOUT else None


def rows_of_matrix(shape: Sequence[int]) -> int:
    """H of a tensor (..., H, W), whose matrices are padded to whole tiles one by one."""
    return shape[-2] if len(shape) > 1 else 1


def have_the_same_rows(one: Placement, other: Placement, shape: tuple[int, ...]) -> bool:
    """Whether each core has whole rows of a tensor (..., H, W) in one, and the same rows in the other. Tiles of several
    rows pad each matrix of H rows, so that the next one may be on another core than it would be as sticks."""
    if one.shards is None or other.shards is None:
        return False
    matrix_rows = rows_of_matrix(shape)
    padded = math.prod(shape[:-2]) > 1 and matrix_rows % max(one.tile_height or 1, other.tile_height or 1) != 0
    return (
        one.shards.across == other.shards.across == 1
        and one.shards.cores == other.shards.cores
        and (len(one.shards.cores) == 1 or (one.shards.height == other.shards.height and not padded))
    )


def _shards(memory: ttnn.MemoryConfig, rows: int, columns: int) -> Shards:
    spec = memory.shard_spec
    height, width = spec.shape
    down, across = math.ceil(rows / height), math.ceil(columns / width)
    row_wise = spec.orientation == ttnn.ShardOrientation.ROW_MAJOR
    if memory.memory_layout == ttnn.TensorMemoryLayout.BLOCK_SHARDED:
        # The grid is a rectangle: shards side by side stand side by side, or by columns one below the other.
        box = spec.grid.bounding_box()
        places = [(x, y) if row_wise else (y, x) for y in range(down) for x in range(across)]
        cores = [(box.start.x + x, box.start.y + y) for x, y in places]
    else:
        ordered = ttnn.corerange_to_cores(spec.grid, None, row_wise)
        cores = [(core.x, core.y) for core in ordered[: down * across]]
    return Shards(tuple(cores), height, width, across)


def share_memory(one: ttnn.Tensor, other: ttnn.Tensor) -> bool:
    """Whether they are of one buffer, as views of it are (`ttnn.narrow`), and not of shards on other cores."""
    if one.buffer_unique_id() != other.buffer_unique_id():
        return False
    shards = [placement.shards for placement in map(placement_of, (one, other)) if placement and placement.shards]
    return len(shards) < 2 or bool(set(shards[0].cores) & set(shards[1].cores))
