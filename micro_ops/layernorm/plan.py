# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How a launch is laid out: which core does which rows and columns, in what portions, through which circular buffers.

A plan is a value: nothing here asks a device, so plans are made, compared and tested without one. It knows the
operands' shapes, dtypes and layout, not what is computed of them. cost.py says which of the possible plans is fastest.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import islice, pairwise
from typing import Literal, get_args

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, WEIGHT_PAGE_ELEMENTS, LayerNormArgumentError
from micro_ops.layernorm.cost import MAX_PARTS, Costs, Split, estimate, weights_are_multicast
from micro_ops.layernorm.placement import Core, Placement, Shards

# CB indices: from 0 on, because the firmware looks at each index up to the highest before a kernel starts. tile_plan.py
# has those between.
CB_INPUT = 0
CB_GAMMA = 1
CB_BETA = 2
CB_OUTPUT = 3
CB_OWN_STATISTICS = 5
CB_STATISTICS = 6
CB_RESIDUAL = 7
CB_STREAM = 8
CB_CHIPS = 10
CB_NAMES = {
    CB_INPUT: "CB_INPUT",
    CB_GAMMA: "CB_GAMMA",
    CB_BETA: "CB_BETA",
    CB_OUTPUT: "CB_OUTPUT",
    CB_OWN_STATISTICS: "CB_OWN_STATISTICS",
    CB_STATISTICS: "CB_STATISTICS",
    CB_RESIDUAL: "CB_RESIDUAL",
    CB_STREAM: "CB_STREAM",
    CB_CHIPS: "CB_CHIPS",
}

TILE_ELEMENTS = 1024
HALF_FACE_ELEMENTS = 128  # 8 x 16: what one FPU instruction works on (kernels/dest.h holds it to Dest's 8 rows of 16)
GROUP_ROWS = 4  # rows side by side in Dest; 1 if there is but one row, or if L1 has no room (kernels/dest.h)
GROUPS_IN_FLIGHT = 2  # groups whose reads the reader has issued and not yet pushed
RING_GROUPS = 4  # groups that CB_INPUT holds: compute works on two, and two are on their way
TERM_GROUPS = 3  # that CB_INPUT and CB_RESIDUAL hold where there is a residual: compute works on one
MOST_PIECES = 2**13  # that CB_INPUT may hold: the unpackers count them in 13 bits (kernels/unpacker.h)
MOST_MEMBERS = 7  # of a team, with a residual: a semaphore for each (program.py)
OUTPUT_PAGES = 8  # tiles that CB_OUTPUT holds where it lies over no shard: four steps of two, or eight of one
# By half faces of a piece, the tile of as many elements: the packer writes no more to where a row's result belongs
PIECE_TILES = {8: (32, 32), 4: (16, 32), 2: (16, 16), 1: (8, 16)}

STATISTICS_PAGES = 2  # of CB_OWN_STATISTICS and CB_STATISTICS (kernels/dest.h)
BURST_BYTES = 64  # of DRAM, which holds a row's statistics (kernels/reader.cpp)
STATISTICS_PAGE_ROWS = 32  # of a page of chips' statistics: as many bytes as go over the fabric at once well
RECORD_ELEMENTS = 4  # float32 of a row, 16 bytes: what the NoC writes to DRAM at least

Weight = Literal["gamma", "beta"]


class Stage(StrEnum):
    """What a launch does of a norm: all; or, of rows whose columns are on several chips, one of two launches a chip."""

    WHOLE = "whole"
    STATISTICS = "statistics"  # of the chip's own columns
    RESULT = "result"  # from the statistics of all chips


class CbContractError(RuntimeError):
    """A plan on which the kernels would hang or go wrong: our fault, not an argument's; raised before the launch."""


@dataclass(frozen=True)
class Dtypes:
    """Of the operands; gamma, beta and residual None where there is none. The outputs have the input's."""

    input: ttnn.DataType
    gamma: ttnn.DataType | None
    beta: ttnn.DataType | None
    residual: ttnn.DataType | None = None


@dataclass(frozen=True)
class Chip:
    """What of a chip a plan may use.

    Attributes:
        costs: what cost.py knows of its architecture
        l1_bytes: what a core has for CBs, `launch.free_l1` of an open device
        origin: of a rectangle of cores, the one with the least x and y
        noc_x, noc_y: NoC coordinates of the rectangle's columns and rows; between them may lie what is no Tensix core
        max_cores: how many of them at most
        bank_cores: of each DRAM bank, the core nearest to it on the way of writes, in the rectangle or not
    """

    costs: Costs
    l1_bytes: int
    origin: Core
    noc_x: tuple[int, ...]
    noc_y: tuple[int, ...]
    max_cores: int
    bank_cores: tuple[Core, ...]

    def noc(self, core: Core) -> tuple[int, int]:
        """The core's NoC coordinates."""
        return self.noc_x[core[0] - self.origin[0]], self.noc_y[core[1] - self.origin[1]]

    def cores(self) -> list[Core]:
        """Those that may be used, column by column."""
        places = [
            (self.origin[0] + x, self.origin[1] + y) for x in range(len(self.noc_x)) for y in range(len(self.noc_y))
        ]
        return places[: self.max_cores]

    def teams(self, size: int, banks: Sequence[Collection[int]]) -> list[tuple[Core, ...]]:
        """Teams of `size` cores, neighbours in a row with nothing between that is no core: one for each of `banks`, the
        DRAM banks in which its rows lie, or as many as there are.

        They fill a block of the grid, so that cores at equal places of teams make few rectangles to multicast to. What
        is written shares the NoC's links along a core's row, and then along DRAM's column. So the block is high and
        narrow, and a team stands as near as may be to the core that is nearest to one of its banks.
        """
        starts, rows, columns = self._starts(size), len(self.noc_y), len(self.noc_x)
        count = min(len(banks), self.team_count(size))
        across = math.ceil(count / rows)
        height = math.ceil(count / across)
        homes = {x for x, _ in self.bank_cores}
        nearest = sorted(starts, key=lambda x: min((x - home) % columns for home in homes))[:across]
        top = self.origin[1] + (rows - height) // 2
        if height == 1:
            top = min(max(self.bank_cores[min(banks[0])][1], self.origin[1]), self.origin[1] + rows - 1)
        free = [(x, y) for y in range(top, top + height) for x in sorted(nearest)]
        teams_at = dict.fromkeys(range(len(self.bank_cores)), 0)
        teams = []
        for of_team in islice(banks, count):
            bank = min(of_team, key=teams_at.__getitem__)
            teams_at[bank] += 1
            x, y = self.bank_cores[bank]
            place = min(free, key=lambda place: ((place[1] - y) % rows, (place[0] - x) % columns))
            free.remove(place)
            teams.append(tuple((place[0] + member, place[1]) for member in range(size)))
        return teams

    def team_count(self, size: int) -> int:
        """How many teams of `size` there are."""
        return min(len(self._starts(size)) * len(self.noc_y), self.max_cores // size)

    def _starts(self, size: int) -> list[int]:
        """At which x a row's teams of `size` begin."""
        starts, x = [], 0
        while x + size <= len(self.noc_x):
            if self.noc_x[x + size - 1] - self.noc_x[x] == size - 1:
                starts.append(self.origin[0] + x)
                x += size
            else:
                x += 1
        return starts


@dataclass(frozen=True)
class CircularBuffer:
    """One CB, the same on every core of the plan.

    Attributes:
        over: the tensor over whose shards it lies: input, residual, output or stream; None if it has memory of its own
        tile: of a page, which tells the packer how much to write
    """

    index: int
    pages: int
    page_elements: int
    dtype: ttnn.DataType
    over: str | None = None
    tile: tuple[int, int] = (32, 32)

    @property
    def page_size(self) -> int:
        """Bytes."""
        return self.page_elements * ELEMENT_SIZES[self.dtype]

    @property
    def size(self) -> int:
        """Bytes of L1."""
        return self.pages * self.page_size


@dataclass(frozen=True)
class Share:
    """What one core does: `groups` of rows (`Plan.rows_of`), and of each row `columns`.

    All of a row is added up by each core that has columns of it, so that what is added to what does not depend on the
    split.

    Attributes:
        input_from: the core that reads the rows from DRAM and multicasts them to this one; None if this core reads them
            itself
        sends: parts of gamma and beta that this core reads from DRAM and multicasts to all others with the same
            columns; see `Plan.weight_part`
    """

    core: Core
    groups: range
    columns: range
    input_from: Core | None = None
    sends: tuple[tuple[Weight, int], ...] = ()


@dataclass(frozen=True)
class Plan:
    """A launch over sticks.

    Attributes:
        reader, writer: kernels (files of kernels/, without .cpp) that know where the operands lie
        width: W, elements of a row
        rows: product of the input's dimensions but the last
        group_rows: rows in Dest at once, 4 or 1
        row_stride: from a row of a group to the next: 1, or the number of DRAM banks, so that its rows are in one bank
        piece: elements of a row in Dest at once, a multiple of HALF_FACE_ELEMENTS
        steps: pieces of a row; the last is padded with zeros
        shares: the cores, each with its rows and columns; every element is in one share
        cbs: the circular buffers of SPEC.md's table, of each core
        stage: of a norm, that the launch does
        weight_part: pieces of a part of gamma and beta, of which cores send each other at most MAX_PARTS; None if each
            core reads all that it needs itself
    """

    reader: str
    writer: str
    width: int
    rows: int
    group_rows: int
    row_stride: int
    piece: int
    steps: int
    shares: tuple[Share, ...]
    cbs: tuple[CircularBuffer, ...]
    weight_part: int | None = None
    stage: Stage = Stage.WHOLE

    @property
    def l1_bytes(self) -> int:
        """What the CBs take of a core's L1 beside shards."""
        return sum(cb.size for cb in self.cbs if cb.over is None)

    def cb(self, index: int) -> CircularBuffer:
        return next(cb for cb in self.cbs if cb.index == index)

    @property
    def input_is_sharded(self) -> bool:
        """Whether CB_INPUT, and CB_RESIDUAL, lie over shards: then each core does the rows of its shard."""
        return self.cb(CB_INPUT).over is not None

    @property
    def output_is_sharded(self) -> bool:
        """Whether CB_OUTPUT, and CB_STREAM, do."""
        return self.cb(CB_OUTPUT).over is not None

    @property
    def has_residual(self) -> bool:
        """Whether s = x + residual is normalized, and given back, too."""
        return self.has(CB_RESIDUAL)

    @property
    def stream_is_sent(self) -> bool:
        """Whether each core makes s of its own columns, all that CB_INPUT has then, and sends it to its team."""
        return self.has_residual and self.rows_are_cut

    @property
    def ring_rows(self) -> int:
        """Rows that CB_INPUT holds."""
        return 1 if self.stream_is_sent else self.cb(CB_INPUT).pages // self.steps

    @property
    def source_rows(self) -> int:
        """Rows that the CB of what is normalized holds: s where there is a residual, else x."""
        if self.has_residual and not self.output_is_sharded:
            return self.group_rows
        return self.cb(CB_STREAM if self.has_residual else CB_INPUT).pages // self.steps

    @property
    def stream_pages(self) -> int:
        """Of CB_STREAM, that a group takes: over a shard its row's."""
        return self.steps if self.output_is_sharded else _stream_pages(self.group_rows * self.steps, self.piece)

    @property
    def groups(self) -> int:
        return _group_count(self.rows, self.group_rows, self.row_stride)

    def first_row(self, group: int) -> int:
        """Groups take `row_stride` times `group_rows` rows together, each every `row_stride`th of them."""
        block, place = divmod(group, self.row_stride)
        return block * self.row_stride * self.group_rows + place

    def rows_of(self, group: int) -> range:
        """Rows of a group: `group_rows`, or fewer at the end."""
        first = self.first_row(group)
        return range(first, min(first + self.group_rows * self.row_stride, self.rows), self.row_stride)

    def has(self, cb: int) -> bool:
        """Whether there is a CB of this index."""
        return any(buffer.index == cb for buffer in self.cbs)

    @property
    def rows_are_cut(self) -> bool:
        """Whether cores share rows, each with some of their columns."""
        return any(len(share.columns) < self.width for share in self.shares)

    def team(self, share: Share) -> list[Core]:
        """The cores that send one another their parts of s of a share's row, in the order of their columns."""
        if not self.stream_is_sent:
            return [share.core]
        return [other.core for other in self.shares if other.groups == share.groups]

    def row_receivers(self) -> dict[Core, list[Core]]:
        """By sender, the cores that it sends its row to."""
        receivers: dict[Core, list[Core]] = {}
        for share in self.shares:
            if share.input_from:
                receivers.setdefault(share.input_from, []).append(share.core)
        return receivers

    def weight_receivers(self, sender: Share) -> list[Core]:
        """The cores that `sender` sends its parts of gamma and beta to."""
        if not sender.sends:
            return []
        return [share.core for share in self.shares if share.columns == sender.columns and share != sender]

    def row_count(self, share: Share) -> int:
        """Rows of a share: its groups are whole, but for the last."""
        if not share.groups:
            return 0
        return (len(share.groups) - 1) * self.group_rows + len(self.rows_of(share.groups[-1]))

    def steps_of(self, share: Share) -> range:
        """The steps of a row that make `share.columns`."""
        return range(share.columns.start // self.piece, math.ceil(share.columns.stop / self.piece))


def _group_count(rows: int, group_rows: int, row_stride: int) -> int:
    blocks, left = divmod(rows, row_stride * group_rows)
    return blocks * row_stride + min(left, row_stride) if row_stride > 1 else math.ceil(rows / group_rows)


@lru_cache(maxsize=256)
def make_plan(
    input_shape: tuple[int, ...], dtypes: Dtypes, chip: Chip, stage: Stage = Stage.WHOLE, chips: int = 1
) -> Plan:
    """The plan that cost.py expects to take the fewest cycles, among those that fit into L1.

    Rows go in groups of `GROUP_ROWS`, of which no core has more than one more than another. They go one by one where no
    core has two, or where L1 can't hold four side by side. A row that goes alone may be cut over a team of cores.

    Args:
        input_shape: (..., W)
        stage: rows are cut over cores only if the launch does all of a norm
        chips: whose statistics are taken
    Raises:
        LayerNormArgumentError: L1 has no room for single rows either
    """
    rows, width = math.prod(input_shape[:-1]), input_shape[-1]
    one_each = rows <= chip.team_count(1)
    ways = [(GROUP_ROWS, 1), (1, 1)] if rows > 1 else [(1, 1)]
    most = math.ceil(width / WEIGHT_PAGE_ELEMENTS)
    if dtypes.residual is not None:
        most = min(most, MOST_MEMBERS)
    if stage == Stage.WHOLE:
        ways += [(1, size) for size in range(2, most + 1) if rows <= chip.team_count(size)]
    needed = {way: sum(cb.size for cb in _cbs(width, dtypes, *way, stage, chips)) for way in ways}
    fitting = [way for way in ways if needed[way] <= chip.l1_bytes]
    if not fitting:
        raise LayerNormArgumentError(
            f"rows of {width} elements need {min(needed.values())} bytes of L1, but a core has {chip.l1_bytes}"
        )
    if not one_each:
        fitting = fitting[:1]  # of several rows a core does four side by side faster than one by one
    splits = [_split(rows, width, dtypes, chip, *way) for way in fitting]
    return _plan(dtypes, chip, min(splits, key=lambda split: estimate(chip.costs, split)), stage, chips)


def stays_on_its_cores(source: Placement, width: int) -> bool:
    """Whether sticks are normalized where they lie: in whole rows, without the padding that a sum would need."""
    return source.shards is not None and source.shards.width == width and width % HALF_FACE_ELEMENTS == 0


def make_shard_plan(
    input_shape: tuple[int, ...], dtypes: Dtypes, chip: Chip, shards: Shards, target: Placement
) -> Plan:
    """The plan of sticks that stay on the cores that have them (`stays_on_its_cores`): CB_INPUT lies over the shards.

    So does CB_OUTPUT if the result is in the same shards and rows go one by one. With a residual, CB_RESIDUAL does as
    CB_INPUT, and CB_STREAM as CB_OUTPUT. Four rows side by side are faster, but
    the packer leaves a step's pieces one behind the other: the writer copies them to the shard.

    Args:
        input_shape: (..., W)
        shards: the input's
        target: of the output; in the same shards, or interleaved
    Raises:
        LayerNormArgumentError: L1 has no room
    """
    rows, width = math.prod(input_shape[:-1]), input_shape[-1]
    half_faces = width // HALF_FACE_ELEMENTS
    group_rows = GROUP_ROWS if shards.height % GROUP_ROWS == 0 else 1
    if group_rows > 1:
        piece = max(size for size in (1, 2, 3, 4) if half_faces % size == 0)
    else:
        piece = max(size for size in PIECE_TILES if half_faces % size == 0)
    steps = half_faces // piece
    page = piece * HALF_FACE_ELEMENTS
    packs_to_shard = target.shards is not None and group_rows == 1
    weights = ((CB_GAMMA, dtypes.gamma), (CB_BETA, dtypes.beta))
    residual: tuple[CircularBuffer, ...] = ()
    if dtypes.residual is not None:
        residual = (
            CircularBuffer(CB_RESIDUAL, shards.height * steps, page, dtypes.input, over="residual"),
            CircularBuffer(CB_STREAM, shards.height * steps, page, dtypes.input, "stream", PIECE_TILES[piece])
            if packs_to_shard
            else CircularBuffer(CB_STREAM, _stream_pages(group_rows * steps, page), page, dtypes.input),
        )
    groups = math.ceil(rows / group_rows)
    of_shard = shards.height // group_rows
    plan = Plan(
        reader="reader",
        writer="writer",
        width=width,
        rows=rows,
        group_rows=group_rows,
        row_stride=1,
        piece=page,
        steps=steps,
        shares=tuple(
            Share(core, range(index * of_shard, min((index + 1) * of_shard, groups)), range(width))
            for index, core in enumerate(shards.cores)
        ),
        cbs=(
            CircularBuffer(CB_INPUT, shards.height * steps, page, dtypes.input, over="input"),
            *(CircularBuffer(index, steps, page, dtype) for index, dtype in weights if dtype is not None),
            CircularBuffer(CB_OUTPUT, shards.height * steps, page, dtypes.input, "output", PIECE_TILES[piece])
            if packs_to_shard
            else CircularBuffer(CB_OUTPUT, OUTPUT_PAGES, TILE_ELEMENTS, dtypes.input),
            *residual,
        ),
    )
    if plan.l1_bytes > chip.l1_bytes:
        raise LayerNormArgumentError(
            f"rows of {width} elements need {plan.l1_bytes} bytes of L1 beside them, but a core has {chip.l1_bytes}"
        )
    return plan


def least_l1_bytes(width: int, dtypes: Dtypes) -> int:
    """What the CBs take where one core does rows of `width` elements one by one."""
    return sum(cb.size for cb in _cbs(width, dtypes, group_rows=1, team_size=1))


def _piece(width: int, group_rows: int, team_size: int) -> int:
    """A long row that one core has for itself goes in large pieces, which are handed over half as often. Of a short
    one, and of one that is cut, small pieces are written earlier."""
    half_faces = math.ceil(width / HALF_FACE_ELEMENTS)
    return (8 if half_faces > 8 and group_rows == team_size == 1 else min(half_faces, 4)) * HALF_FACE_ELEMENTS


def _cuts(width: int, team_size: int) -> list[range]:
    """A row's columns cut in so many parts, as evenly as can be: each begins with a page of gamma and beta."""
    pages = math.ceil(width / WEIGHT_PAGE_ELEMENTS)
    edges = [pages * member // team_size * WEIGHT_PAGE_ELEMENTS for member in range(team_size)]
    return [range(start, end) for start, end in pairwise([*edges, width])]


def _stream_pages(pieces: int, piece: int) -> int:
    """Of CB_STREAM, for a group's `pieces` of `piece` elements: the packer writes `TILE_ELEMENTS` at a time, from the
    start of a piece on (kernels/pack_thread.h), and may end behind the last."""
    at_once = TILE_ELEMENTS // piece
    return (pieces - 1) // at_once * at_once + math.ceil(TILE_ELEMENTS / piece)


def _cbs(
    width: int, dtypes: Dtypes, group_rows: int, team_size: int, stage: Stage = Stage.WHOLE, chips: int = 1
) -> tuple[CircularBuffer, ...]:
    piece = _piece(width, group_rows, team_size)
    steps = math.ceil(width / piece)
    own_steps = max(math.ceil(len(columns) / piece) for columns in _cuts(width, team_size))
    weights = ((CB_GAMMA, dtypes.gamma), (CB_BETA, dtypes.beta))
    group = group_rows * steps
    ring = (RING_GROUPS if dtypes.residual is None else TERM_GROUPS) * group
    if dtypes.residual is not None and team_size > 1:
        ring = own_steps  # each core reads its own columns
    cbs = (
        CircularBuffer(CB_INPUT, ring, piece, dtypes.input),
        *(CircularBuffer(index, own_steps, piece, dtype) for index, dtype in weights if dtype is not None),
        CircularBuffer(CB_OUTPUT, OUTPUT_PAGES, TILE_ELEMENTS, dtypes.input),
        *_statistics_cbs(stage, piece, group_rows, chips),
    )
    if dtypes.residual is None:
        return cbs
    return (
        *cbs,
        CircularBuffer(CB_RESIDUAL, ring, piece, dtypes.input),
        CircularBuffer(CB_STREAM, _stream_pages(group, piece), piece, dtypes.input),
    )


def _statistics_cbs(stage: Stage, piece: int, group_rows: int, chips: int) -> tuple[CircularBuffer, ...]:
    if stage == Stage.STATISTICS:
        return (CircularBuffer(CB_OWN_STATISTICS, STATISTICS_PAGES, TILE_ELEMENTS, ttnn.float32),)
    if stage == Stage.RESULT:
        burst = BURST_BYTES // ELEMENT_SIZES[ttnn.float32]
        bursts = (GROUPS_IN_FLIGHT + 1) * group_rows * chips
        return (
            CircularBuffer(CB_STATISTICS, STATISTICS_PAGES, piece, ttnn.float32),  # the unpackers count by pieces
            CircularBuffer(CB_CHIPS, bursts, burst, ttnn.float32),
        )
    return ()


def _split(rows: int, width: int, dtypes: Dtypes, chip: Chip, group_rows: int, team_size: int) -> Split:
    most = chip.team_count(team_size)
    row_stride, teams = 1, max(1, min(math.ceil(rows / group_rows), most))
    # With a group's rows in one bank, and as many teams as make each keep to its bank: unless that takes more rounds
    banks = len(chip.bank_cores)
    groups = _group_count(rows, group_rows, banks)
    in_turn = groups if groups <= most else most // banks * banks
    if group_rows > 1 and in_turn and math.ceil(groups / in_turn) == math.ceil(math.ceil(rows / group_rows) / teams):
        row_stride, teams = banks, in_turn
    return Split(
        rows=rows,
        width=width,
        row_bytes=width * ELEMENT_SIZES[dtypes.input],
        weights=sum(dtype is not None for dtype in (dtypes.gamma, dtypes.beta)),
        weight_bytes=sum(width * ELEMENT_SIZES[dtype] for dtype in (dtypes.gamma, dtypes.beta) if dtype is not None),
        has_residual=dtypes.residual is not None,
        group_rows=group_rows,
        row_stride=row_stride,
        teams=teams,
        team_size=team_size,
    )


def _plan(dtypes: Dtypes, chip: Chip, split: Split, stage: Stage = Stage.WHOLE, chips: int = 1) -> Plan:
    width, group_rows, count, row_stride = split.width, split.group_rows, split.teams, split.row_stride
    piece = _piece(width, group_rows, split.team_size)
    groups = _group_count(split.rows, group_rows, row_stride)
    banks = len(chip.bank_cores)
    # Of a team's rows, where they are all in one bank: a row is a page, and page n is in bank n modulo banks.
    in_one_bank = (group_rows == 1 or row_stride == banks) and (groups <= count or count % banks == 0)
    teams = chip.teams(split.team_size, [{team % banks} if in_one_bank else range(banks) for team in range(count)])
    weights = [name for name in get_args(Weight) if getattr(dtypes, name) is not None]
    weight_part = None
    if weights and weights_are_multicast(chip.costs, split):
        pages = math.ceil(max(map(len, _cuts(width, split.team_size))) / WEIGHT_PAGE_ELEMENTS)
        weight_part = math.ceil(pages / MAX_PARTS) * max(1, WEIGHT_PAGE_ELEMENTS // piece)
    shares = []
    for index, team in enumerate(teams):
        for core, columns in zip(team, _cuts(width, split.team_size), strict=True):
            sends: list[tuple[Weight, int]] = []
            if weight_part:
                parts = range(math.ceil(len(columns) / piece / weight_part))
                all_parts = [(name, part) for name in weights for part in parts]
                sends = [part for place, part in enumerate(all_parts) if place % count == index]
            shares.append(
                Share(
                    core=core,
                    groups=range(index, groups, count),
                    columns=columns,
                    input_from=team[0] if core != team[0] and dtypes.residual is None else None,
                    sends=tuple(sends),
                )
            )
    return Plan(
        reader="reader",
        writer="writer",
        width=width,
        rows=split.rows,
        group_rows=group_rows,
        row_stride=row_stride,
        piece=piece,
        steps=math.ceil(width / piece),
        shares=tuple(shares),
        cbs=_cbs(width, dtypes, group_rows, split.team_size, stage, chips),
        weight_part=weight_part,
        stage=stage,
    )


def check_contract(plan: Plan) -> None:
    """Whether the plan keeps the contracts on top of the kernels: the CBs hold what is waited for at once, each element
    is done by one core, and whoever waits for an operand from another core gets it.

    Raises:
        CbContractError: a wait that would never end, pages that would lie apart where the kernels count on a row, or
            elements that no core would do, or two
    """
    _check_shares(plan)
    _check_senders(plan)
    pages = {cb.index: cb.pages for cb in plan.cbs}
    group = plan.group_rows * plan.steps
    # Compute frees a group only when it has all of the next (with a residual, as it adds it); the reader reserves room
    # for two at once.
    least = 1 if plan.input_is_sharded else 1 + GROUPS_IN_FLIGHT
    if not plan.stream_is_sent and (pages[CB_INPUT] % group or pages[CB_INPUT] < least * group):
        raise CbContractError(
            f"CB_INPUT must hold whole groups of {group} pages, {least} at least, but holds {pages[CB_INPUT]} pages"
        )
    if pages[CB_INPUT] > MOST_PIECES:
        raise CbContractError(f"CB_INPUT must hold {MOST_PIECES} pages at most, but holds {pages[CB_INPUT]}")
    most = max(len(plan.steps_of(share)) for share in plan.shares)
    for index in (CB_GAMMA, CB_BETA):
        if pages.get(index, most) != most:
            raise CbContractError(f"{CB_NAMES[index]} must hold a row's {most} pages, but holds {pages[index]}")
    for index in (CB_OWN_STATISTICS, CB_STATISTICS):
        if pages.get(index, STATISTICS_PAGES) != STATISTICS_PAGES:
            raise CbContractError(f"{CB_NAMES[index]} must hold {STATISTICS_PAGES} pages, but holds {pages[index]}")
    if plan.has_residual:
        _check_residual(plan)
    step = math.ceil(plan.group_rows * plan.piece / plan.cb(CB_OUTPUT).page_elements)
    if pages[CB_OUTPUT] % step or not pages[CB_OUTPUT]:
        raise CbContractError(f"CB_OUTPUT must hold whole steps of {step} pages, but holds {pages[CB_OUTPUT]}")


def _check_residual(plan: Plan) -> None:
    terms, residual, stream, output = map(plan.cb, (CB_INPUT, CB_RESIDUAL, CB_STREAM, CB_OUTPUT))
    if plan.stream_is_sent:
        own = max(len(plan.steps_of(share)) for share in plan.shares)
        if terms.pages != own:
            raise CbContractError(f"CB_INPUT must hold a core's {own} pages of a row, but holds {terms.pages}")
        for share in plan.shares:
            team = plan.team(share)
            if plan.row_count(share) != 1 or share.input_from or len(team) > MOST_MEMBERS:
                raise CbContractError(
                    f"core {share.core} must read its own columns of one row, shared by {MOST_MEMBERS} cores at most,"
                    f" but has {plan.row_count(share)} rows from {share.input_from or 'DRAM'}, shared by {len(team)}"
                )
    if (residual.pages, residual.over is None) != (terms.pages, terms.over is None):
        raise CbContractError(
            f"CB_RESIDUAL must hold what CB_INPUT does, {terms.pages} pages, but holds {residual.pages}"
        )
    if (stream.over is None, stream.tile) != (output.over is None, output.tile):
        raise CbContractError(f"CB_STREAM must lie and be packed as CB_OUTPUT, {output}, but is {stream}")
    whole = plan.ring_rows * plan.steps if plan.input_is_sharded and plan.output_is_sharded else plan.stream_pages
    if stream.pages != whole:
        raise CbContractError(f"CB_STREAM must hold a group, or a shard, of {whole} pages, but holds {stream.pages}")


def _check_shares(plan: Plan) -> None:
    if plan.input_is_sharded:
        done = [group for share in plan.shares for group in share.groups]
        most = max((plan.row_count(share) for share in plan.shares), default=0)
        if done != list(range(plan.groups)) or most > plan.ring_rows or plan.width % plan.piece:
            raise CbContractError(
                f"the {plan.groups} groups must each be in one shard of {plan.ring_rows} rows, in whole pieces of"
                f" {plan.piece}, but these have {', '.join(str(share.groups) for share in plan.shares)}"
            )
        return
    teams: dict[range, list[range]] = {}
    for share in plan.shares:
        teams.setdefault(share.groups, []).append(share.columns)
    if not teams or set(teams) != {range(first, plan.groups, len(teams)) for first in range(len(teams))}:
        raise CbContractError(
            f"the {plan.groups} groups must each be in one of {len(teams)} shares, one after another, but these have"
            f" {', '.join(map(str, teams))}"
        )
    for groups, columns in teams.items():
        edges = [0, *(cut.stop for cut in columns)]
        cuts = [range(start, stop) for start, stop in pairwise(edges)]
        if columns != cuts or edges[-1] != plan.width or any(cut.start % plan.piece for cut in columns):
            raise CbContractError(
                f"the shares of {groups} must have {plan.width} columns between them, in whole pieces of {plan.piece},"
                f" but have {', '.join(map(str, columns))}"
            )


def _check_senders(plan: Plan) -> None:
    shares = {share.core: share for share in plan.shares}
    for share in plan.shares:
        if share.input_from is None:
            continue
        source = shares.get(share.input_from)
        if source is None or source.input_from is not None:
            raise CbContractError(f"core {share.core} waits for rows from {share.input_from}, which does not read them")
        if source.groups != share.groups or len(share.groups) * plan.group_rows != 1:
            raise CbContractError(
                f"core {share.core} waits for {share.groups} from {share.input_from}, which has {source.groups}:"
                " only a row alone may be sent, and to cores that have no other"
            )
    for columns in {share.columns for share in plan.shares}:
        sent = [part for share in plan.shares if share.columns == columns for part in share.sends]
        steps = math.ceil(len(columns) / plan.piece)
        parts = range(math.ceil(steps / plan.weight_part)) if plan.weight_part else range(0)
        given = [name for name, index in (("gamma", CB_GAMMA), ("beta", CB_BETA)) if plan.has(index)]
        if sorted(sent) != sorted((name, part) for name in given for part in parts):
            raise CbContractError(f"of {columns}, each of {len(parts)} parts must be sent once, but these are: {sent}")
        if len(parts) > MAX_PARTS:
            raise CbContractError(f"gamma and beta must come in {MAX_PARTS} parts at most, but come in {len(parts)}")
