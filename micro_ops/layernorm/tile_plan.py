# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How a launch over tiles is laid out: which core has which tiles, and which cores share rows.

As plan.py's, these plans are values, made without a device. Rows go by rows of tiles. The tiles of a shard stay on its
core; interleaved ones are dealt out. Cores that share a row of tiles are a team: each normalizes its tiles, and some
add the rows up, of which the others send them copies: bfloat16 by *stripes*, float32 four rows (a *quad*) at a time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, LayerNormArgumentError
from micro_ops.layernorm.cost import Costs, estimate_tiles
from micro_ops.layernorm.placement import TILE_WIDTH, Core, Placement, Shards, rows_of_matrix
from micro_ops.layernorm.plan import (
    CB_BETA,
    CB_CHIPS,
    CB_GAMMA,
    CB_INPUT,
    CB_NAMES,
    CB_OUTPUT,
    CB_OWN_STATISTICS,
    CB_RESIDUAL,
    CB_STATISTICS,
    CB_STREAM,
    RECORD_ELEMENTS,
    STATISTICS_PAGE_ROWS,
    CbContractError,
    Chip,
    Dtypes,
    Stage,
)

CB_ROWS = 4
CB_SUMS = 9
TILE_CB_NAMES = {
    **CB_NAMES,
    CB_ROWS: "CB_ROWS",
    CB_SUMS: "CB_SUMS",
}
QUAD_ROWS = 4  # that are normalized together (kernels/dest.h)
HALF_QUADS = 4  # of a row of tiles' upper faces, and of its lower ones
HALF_STRIPES = 8  # likewise: what a core adds up of bfloat16 where cores share rows
CHUNK_TILES = 4  # of a quad in Dest's sums: 128 columns, as of a stick
STATISTICS_BYTES = 64  # of a row: 16 columns of float32, as Dest has them
OWN_STATISTICS_BYTES = 4096  # of what the packer writes, 64 rows of Dest, and of a quad's sums
RING_ROWS = 2  # of tiles that CB_INPUT holds where they are not a shard, if L1 has room
RUN_TILES = 4  # of x and of the residual that are read at once, where they are no shard
RUNS = 4  # of those that CB_INPUT and CB_RESIDUAL hold: two are on their way, and two at hand
WIDE_TILES = 96  # of a row that is shared by stripes in bfloat16, where it is one: measured at 48 and 224
OUTPUT_TILES = 8  # that CB_OUTPUT holds where it lies over no shard
MAX_CB_PAGES = 2**16 - 1  # as wide as the CBs' counters are


@dataclass(frozen=True)
class TileBuffer:
    """One CB, the same on every core of the plan.

    Attributes:
        page_size: bytes
        over: the tensor over whose shards it lies: input, residual, output or stream; None if it has memory of its own
    """

    index: int
    pages: int
    page_size: int
    dtype: ttnn.DataType
    over: str | None = None

    @property
    def size(self) -> int:
        """Bytes of L1."""
        return self.pages * self.page_size


@dataclass(frozen=True)
class TileShare:
    """What one core does: of `tile_rows` the tiles `tiles`.

    Attributes:
        team: cores that share these rows, itself among them, in the order of their tiles
    """

    core: Core
    tile_rows: range
    tiles: range
    team: tuple[Core, ...]

    @property
    def member(self) -> int:
        """Its place in the team."""
        return self.team.index(self.core)


@dataclass(frozen=True)
class TilePlan:
    """
    Attributes:
        width: W, elements of a row
        tile_height: rows of a tile, as the plan counts them
        page_tiles: of these in a tile of the tensor: 2 where one of 32 rows is dealt out as two of 16, its upper faces
            and its lower ones
        tile_rows: rows of tiles
        quads, last_quads: quads with rows that are no padding, of a row of tiles and of the last one
        gathered: whether rows are added up from copies in one piece: where cores share rows, or where a shard's padding
            must not be added
        striped: gathered by stripes, whose sums then go to the cores that make a quad's statistics; else by quads
        has_residual: whether s = x + residual is normalized, and given back, too
        input_is_sharded, output_is_sharded, stream_is_sharded: whether CB_INPUT and CB_RESIDUAL, CB_OUTPUT, CB_STREAM
            lie over shards
        row_pages: from one row of tiles to the next in `source`, and in a CB_OUTPUT over shards; a core may have fewer
        stage: of a norm, that the launch does
        chips: whose statistics it takes, if it does
    """

    width: int
    tile_height: int
    page_tiles: int
    tile_rows: int
    quads: int
    last_quads: int
    gathered: bool
    striped: bool
    has_residual: bool
    input_is_sharded: bool
    output_is_sharded: bool
    stream_is_sharded: bool
    row_pages: int
    shares: tuple[TileShare, ...]
    cbs: tuple[TileBuffer, ...]
    stage: Stage = Stage.WHOLE
    chips: int = 1

    @property
    def tiles_across(self) -> int:
        return math.ceil(self.width / TILE_WIDTH)

    @property
    def l1_bytes(self) -> int:
        """What the CBs take of a core's L1 beside shards."""
        return sum(cb.size for cb in self.cbs if cb.over is None)

    @property
    def source(self) -> int:
        """The CB of what is added up and normalized: s where there is a residual, else x."""
        return CB_STREAM if self.has_residual else CB_INPUT

    def term_pages(self, share: TileShare) -> int:
        """From one row of tiles to the next in CB_INPUT and CB_RESIDUAL."""
        if self.input_is_sharded:
            return self.row_pages
        return math.ceil(len(share.tiles) / RUN_TILES) * RUN_TILES

    @property
    def tile_quads(self) -> int:
        return self.tile_height // QUAD_ROWS

    @property
    def is_wide(self) -> bool:
        """Whether each core sends another part of a row first: else the first one is added up while the others come.
        But wide ones would wait for the links of the core that all send to at a time."""
        return self.tiles_across >= WIDE_TILES

    @property
    def part_pages(self) -> int:
        """Of CB_ROWS, that a stripe or a quad takes: it has two of a row's faces, or four of its tiles, in each."""
        return math.ceil(self.tiles_across / (HALF_STRIPES if self.striped else CHUNK_TILES))

    @property
    def stripes(self) -> int:
        """Of a row of tiles."""
        return HALF_STRIPES * math.ceil(self.quads / HALF_QUADS)

    def makers(self, share: TileShare) -> tuple[Core, ...]:
        """Those of a share's team that make statistics: quad q's are those of the (q % their number)th."""
        if self.stage == Stage.RESULT:
            return ()
        return _spaced(share.team, self.quads)

    def adders(self, share: TileShare) -> tuple[Core, ...]:
        """Those of a share's team that add rows up, likewise: stripes, or quads, of which they make the statistics."""
        if self.stage == Stage.RESULT:
            return ()
        return _spaced(share.team, self.stripes if self.striped else self.quads)

    def cb(self, index: int) -> TileBuffer:
        return next(cb for cb in self.cbs if cb.index == index)


def _spaced(team: tuple[Core, ...], count: int) -> tuple[Core, ...]:
    """`count` cores of a team or all, as far apart as can be: what others send them takes other links then."""
    return tuple(team[i * len(team) // count] for i in range(count)) if count < len(team) else team


def make_tile_plan(
    shape: Sequence[int],
    dtypes: Dtypes,
    chip: Chip,
    source: Placement,
    target: Placement,
    *,
    tiled_weights: bool,
    stream: Placement | None,
    stage: Stage = Stage.WHOLE,
    chips: int = 1,
) -> TilePlan:
    """
    Args:
        shape: (..., H, W), without padding
        source, target: of the input and the output; where both are sharded, by the same shards
        tiled_weights: gamma or beta come as tiles
        stream: of input + residual, likewise; None without a residual, which lies as the input
    Raises:
        LayerNormArgumentError: L1 has no room
    """
    assert source.tile_height
    matrix_rows = rows_of_matrix(shape)
    matrices = math.prod(shape[:-2])
    across = math.ceil(shape[-1] / TILE_WIDTH)
    shards = source.shards or target.shards
    ways: list[tuple[int, int, tuple[TileShare, ...]]] = []  # with the height of a tile, and how many rows of tiles
    for height in _heights(source.tile_height, matrices, matrix_rows, is_sharded=shards is not None):
        tile_rows = matrices * math.ceil(matrix_rows / height)
        if shards is not None:
            ways.append((height, tile_rows, _sharded_shares(shards, tile_rows, across, height)))
        else:
            sizes = _team_sizes(chip, tile_rows, across)
            ways += [(height, tile_rows, _dealt_shares(chip, tile_rows, across, size)) for size in sizes]
    plans = []
    for height, tile_rows, shares in ways:
        quads = last_quads = min(height, matrix_rows + -matrix_rows % QUAD_ROWS) // QUAD_ROWS
        if matrices == 1 and matrix_rows % height:
            last_quads = math.ceil(matrix_rows % height / QUAD_ROWS)
        for ring_rows in (RING_ROWS, 1):
            team_size = max(len(share.team) for share in shares)
            gathered = stage != Stage.RESULT and (
                team_size > 1 or (source.shards is not None and shape[-1] % TILE_WIDTH != 0)
            )
            plan = TilePlan(
                width=shape[-1],
                tile_height=height,
                page_tiles=source.tile_height // height,
                tile_rows=tile_rows,
                quads=quads,
                last_quads=last_quads,
                gathered=gathered,
                striped=gathered and dtypes.input == ttnn.bfloat16 and across >= WIDE_TILES,
                has_residual=stream is not None,
                input_is_sharded=source.shards is not None,
                output_is_sharded=target.shards is not None,
                stream_is_sharded=stream is not None and stream.shards is not None,
                row_pages=shards.width // TILE_WIDTH if shards else max(len(share.tiles) for share in shares),
                shares=shares,
                cbs=(),
                stage=stage,
                chips=chips,
            )
            plans.append(_with_buffers(plan, dtypes, ring_rows, shards, tiled_weights))
    fitting = [plan for plan in plans if plan.l1_bytes <= chip.l1_bytes]
    if not fitting:
        raise LayerNormArgumentError(
            f"tiles of rows of {shape[-1]} elements need {min(plan.l1_bytes for plan in plans)} bytes of L1, but a core"
            f" has {chip.l1_bytes} left"
        )
    return min(fitting, key=lambda plan: _estimate(chip.costs, plan, dtypes))


def _estimate(costs: Costs, plan: TilePlan, dtypes: Dtypes) -> tuple[float, int]:
    busiest = max(plan.shares, key=lambda share: len(share.tile_rows) * len(share.tiles))
    weights = sum(dtype is not None for dtype in (dtypes.gamma, dtypes.beta))
    cycles = estimate_tiles(
        costs,
        row_bytes=plan.tiles_across * plan.tile_height * TILE_WIDTH * ELEMENT_SIZES[dtypes.input],
        tile_rows=plan.tile_rows,
        across=plan.tiles_across,
        own_rows=len(busiest.tile_rows),
        own_tiles=len(busiest.tiles),
        team_size=len(busiest.team),
        quads=plan.quads,
        stripes=plan.stripes if plan.striped else None,
        weights=weights,
        has_residual=plan.has_residual,
        makes_statistics=plan.stage != Stage.RESULT,
        makes_result=plan.stage != Stage.STATISTICS,
    )
    return cycles, -plan.cb(plan.source).pages  # of two rings the larger


def _heights(tile_height: int, matrices: int, matrix_rows: int, *, is_sharded: bool) -> list[int]:
    """Of tiles, as they may be dealt out: the tensor's, or half of it, unless a row of those would be padding alone."""
    half = TILE_WIDTH // 2
    padded_halves = matrices > 1 and 0 < matrix_rows % tile_height <= half
    return [tile_height] if is_sharded or tile_height == half or padded_halves else [tile_height, half]


def _sharded_shares(shards: Shards, tile_rows: int, across: int, height: int) -> tuple[TileShare, ...]:
    rows, columns = shards.height // height, shards.width // TILE_WIDTH
    shares = []
    for first in range(0, len(shards.cores), shards.across):
        team = shards.cores[first : first + shards.across]
        top = first // shards.across * rows
        for member, core in enumerate(team):
            left = member * columns
            shares.append(
                TileShare(core, range(top, min(top + rows, tile_rows)), range(left, min(left + columns, across)), team)
            )
    return tuple(shares)


def _team_sizes(chip: Chip, tile_rows: int, across: int) -> list[int]:
    cores = len(chip.cores())
    return list(range(1, max(1, min(cores // max(1, min(tile_rows, cores)), across)) + 1))


def _dealt_shares(chip: Chip, tile_rows: int, across: int, team_size: int) -> tuple[TileShare, ...]:
    """Rows over teams, as evenly as can be; the cores of a team stand one below the other."""
    cores = chip.cores()
    count = max(1, min(tile_rows, len(cores) // team_size))
    row_edges = [tile_rows * team // count for team in range(count + 1)]
    tile_edges = [across * member // team_size for member in range(team_size + 1)]
    shares = []
    for number, (top, bottom) in enumerate(pairwise(row_edges)):
        team = tuple(cores[number * team_size : (number + 1) * team_size])
        shares += [
            TileShare(core, range(top, bottom), range(left, right), team)
            for core, (left, right) in zip(team, pairwise(tile_edges), strict=True)
        ]
    return tuple(shares)


def _with_buffers(
    plan: TilePlan, dtypes: Dtypes, ring_rows: int, shards: Shards | None, tiled_weights: bool
) -> TilePlan:
    size = ELEMENT_SIZES[dtypes.input]
    tile_size = plan.tile_height * TILE_WIDTH * size
    own = max(len(share.tiles) for share in plan.shares)
    rows = max(len(share.tile_rows) for share in plan.shares)
    of_shard = 0 if shards is None else shards.height // plan.tile_height * (shards.width // TILE_WIDTH)
    ring = plan.row_pages * max(1, min(ring_rows, rows))

    def buffer(index: int, pages: int, tensor: str, is_sharded: bool) -> TileBuffer:
        if is_sharded:
            return TileBuffer(index, of_shard, tile_size, dtypes.input, tensor)
        return TileBuffer(index, pages, tile_size, dtypes.input)

    cbs = [buffer(CB_INPUT, RUNS * RUN_TILES if plan.has_residual else ring, "input", plan.input_is_sharded)]
    if plan.has_residual:
        cbs += [
            buffer(CB_RESIDUAL, RUNS * RUN_TILES, "residual", plan.input_is_sharded),
            buffer(CB_STREAM, ring, "stream", plan.stream_is_sharded),
        ]
    for index, dtype in ((CB_GAMMA, dtypes.gamma), (CB_BETA, dtypes.beta)):
        if dtype is not None:
            # Of a tile, its first row's two runs of 16 columns, 64 bytes each
            page = 128 if tiled_weights else TILE_WIDTH * ELEMENT_SIZES[dtype]
            cbs.append(TileBuffer(index, own, page, dtype))
    cbs.append(buffer(CB_OUTPUT, OUTPUT_TILES, "output", plan.output_is_sharded))
    if plan.gathered:
        team_size = max(len(share.team) for share in plan.shares)
        turns, quad_turns = (math.ceil(n / min(team_size, n)) for n in (plan.stripes, plan.quads))
        chunk = CHUNK_TILES * QUAD_ROWS * TILE_WIDTH * size
        cbs += [
            TileBuffer(CB_ROWS, (turns if plan.striped else quad_turns) * plan.part_pages, chunk, dtypes.input),
            TileBuffer(CB_STATISTICS, 1, plan.tile_height * STATISTICS_BYTES, ttnn.float32),
        ]
    if plan.gathered or plan.stage == Stage.STATISTICS:
        cbs.append(TileBuffer(CB_OWN_STATISTICS, 1, OWN_STATISTICS_BYTES, ttnn.float32))
    if plan.stage == Stage.RESULT:
        page = STATISTICS_PAGE_ROWS * RECORD_ELEMENTS * ELEMENT_SIZES[ttnn.float32]
        cbs += [
            TileBuffer(CB_STATISTICS, 1, plan.chips * page, ttnn.float32),
            TileBuffer(CB_CHIPS, 2 * plan.chips, page, ttnn.float32),  # a row of tiles may have rows of two pages
        ]
    if plan.striped:
        cbs.append(TileBuffer(CB_SUMS, quad_turns, OWN_STATISTICS_BYTES, ttnn.float32))
    return replace(plan, cbs=tuple(cbs))


def check_tile_contract(plan: TilePlan) -> None:
    """Whether the plan keeps the contracts on top of the kernels.

    Raises:
        CbContractError: a wait that would never end, or tiles that no core would do, or two
    """
    done = sorted((row, tile) for share in plan.shares for row in share.tile_rows for tile in share.tiles)
    if done != [(row, tile) for row in range(plan.tile_rows) for tile in range(plan.tiles_across)]:
        raise CbContractError(
            f"each of {plan.tile_rows} x {plan.tiles_across} tiles must be in one share, but these have {len(done)}"
        )
    teams = {share.team: share.tile_rows for share in plan.shares}
    for share in plan.shares:
        members = [other.core for other in plan.shares if other.team == share.team]
        if sorted(members) != sorted(share.team) or share.tile_rows != teams[share.team]:
            raise CbContractError(f"core {share.core} waits for rows of {share.team}, which does not send them all")
        if len(share.team) > 1 and not plan.gathered and plan.stage != Stage.RESULT:
            raise CbContractError(f"the rows of {share.team} must be gathered, since no core has all of them")
    for cb in plan.cbs:
        if not 0 < cb.pages <= MAX_CB_PAGES:
            raise CbContractError(
                f"{TILE_CB_NAMES[cb.index]} must hold 1 to {MAX_CB_PAGES} pages, but holds {cb.pages}"
            )
    own = max(len(share.tiles) for share in plan.shares)
    parts = plan.stripes if plan.striped else plan.quads
    for share in plan.shares:
        held = {
            CB_ROWS: math.ceil(parts / len(plan.adders(share))) * plan.part_pages if plan.gathered else 0,
            CB_SUMS: math.ceil(plan.quads / len(plan.makers(share))) if plan.striped else 0,
        }
        for index, pages in held.items():
            if pages and plan.cb(index).pages < pages:
                raise CbContractError(
                    f"{TILE_CB_NAMES[index]} must hold the {pages} pages that others send to core {share.core}, but"
                    f" holds {plan.cb(index).pages}"
                )
        terms = plan.term_pages(share)
        if plan.has_residual and (
            plan.cb(CB_INPUT).pages != plan.cb(CB_RESIDUAL).pages
            or plan.cb(CB_INPUT).pages % (terms if plan.input_is_sharded else RUN_TILES)
        ):
            raise CbContractError(
                f"CB_INPUT and CB_RESIDUAL must hold the same whole runs, but hold {plan.cb(CB_INPUT).pages} and"
                f" {plan.cb(CB_RESIDUAL).pages} pages"
            )
    source = plan.cb(plan.source)
    if plan.row_pages < own or source.pages % plan.row_pages:
        raise CbContractError(
            f"{TILE_CB_NAMES[source.index]} must hold whole rows of {own} tiles, but holds {source.pages} in rows of"
            f" {plan.row_pages}"
        )
