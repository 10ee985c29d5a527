# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How a launch is laid out: which core does which rows and columns, in what portions, through which circular buffers.

A plan is a value: nothing here asks a device, so plans are made, compared and tested without one. It knows the
operands' shapes, dtypes and layout, not what is computed of them. cost.py says which of the possible plans is fastest.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from typing import Literal, get_args

import ttnn

from micro_ops.layernorm.arguments import ELEMENT_SIZES, WEIGHT_PAGE_ELEMENTS, LayerNormArgumentError
from micro_ops.layernorm.cost import Costs, Split, estimate, weights_are_multicast

# CB indices: consecutive from 0, because the firmware looks at each index up to the highest before a kernel starts
CB_INPUT = 0
CB_GAMMA = 1
CB_BETA = 2
CB_OUTPUT = 3
CB_NAMES = {CB_INPUT: "CB_INPUT", CB_GAMMA: "CB_GAMMA", CB_BETA: "CB_BETA", CB_OUTPUT: "CB_OUTPUT"}

TILE_ELEMENTS = 1024
HALF_FACE_ELEMENTS = 128  # 8 x 16: what one FPU instruction works on (kernels/dest.h holds it to Dest's 8 rows of 16)
GROUP_ROWS = 4  # rows side by side in Dest; 1 if there is but one row, or if L1 has no room (kernels/dest.h)
GROUPS_IN_FLIGHT = 2  # groups whose reads the reader has issued and not yet pushed
RING_GROUPS = 4  # groups that CB_INPUT holds: compute works on two, and two are on their way
OUTPUT_PAGES = 8  # tiles that CB_OUTPUT holds: four steps of two, or eight of one

Core = tuple[int, int]  # logical x and y
Operand = Literal["input", "gamma", "beta"]


class CbContractError(RuntimeError):
    """A plan on which the kernels would hang or go wrong: our fault, not an argument's; raised before the launch."""


@dataclass(frozen=True)
class Dtypes:
    """Of the operands; gamma and beta None where there is none. The output has the input's."""

    input: ttnn.DataType
    gamma: ttnn.DataType | None
    beta: ttnn.DataType | None


@dataclass(frozen=True)
class Chip:
    """What of a chip a plan may use.

    Attributes:
        costs: what cost.py knows of its architecture
        l1_bytes: what a core has for CBs, `ttnn.get_max_worker_l1_unreserved_size()` of an open device
        origin: of a rectangle of cores, the one with the least x and y
        noc_x, noc_y: NoC coordinates of the rectangle's columns and rows; between them may lie what is no Tensix core
        max_cores: how many of them at most
    """

    costs: Costs
    l1_bytes: int
    origin: Core
    noc_x: tuple[int, ...]
    noc_y: tuple[int, ...]
    max_cores: int

    def noc(self, core: Core) -> tuple[int, int]:
        """The core's NoC coordinates."""
        return self.noc_x[core[0] - self.origin[0]], self.noc_y[core[1] - self.origin[1]]

    def teams(self, size: int, count: int) -> list[tuple[Core, ...]]:
        """`count` teams of `size` cores, or as many as there are: neighbours in a row, with nothing between that is no
        core.

        What comes from DRAM shares the NoC's links with all that goes to its column, what goes there with all that
        comes from its row. So the teams make a square, as far as may be; and those in a row stand at the same columns
        as those in another, so that equal places of teams make rectangles.
        """
        starts, x = [], 0
        while x + size <= len(self.noc_x):
            if self.noc_x[x + size - 1] - self.noc_x[x] == size - 1:
                starts.append(self.origin[0] + x)
                x += size
            else:
                x += 1
        count = min(count, len(starts) * len(self.noc_y), self.max_cores // size)
        across = min(len(starts), max(1, math.ceil(math.sqrt(count / size)), math.ceil(count / len(self.noc_y))))
        places = ((start, self.origin[1] + y) for y in range(len(self.noc_y)) for start in starts[:across])
        return [tuple((start + member, y) for member in range(size)) for start, y in islice(places, count)]

    def team_count(self, size: int) -> int:
        """How many teams of `size` there are."""
        return len(self.teams(size, self.max_cores))


@dataclass(frozen=True)
class CircularBuffer:
    """One CB, the same on every core of the plan."""

    index: int
    pages: int
    page_elements: int
    dtype: ttnn.DataType

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
    """What one core does: `groups` of rows (group g has the rows from g * group_rows on), and of each row `columns`.

    All of a row is added up by each core that has columns of it, so that what is added to what does not depend on the
    split.

    Attributes:
        input_from, gamma_from, beta_from: the core that reads the operand from DRAM and multicasts it to this one; None
            if this core reads it itself
    """

    core: Core
    groups: range
    columns: range
    input_from: Core | None = None
    gamma_from: Core | None = None
    beta_from: Core | None = None

    def sender(self, operand: Operand) -> Core | None:
        core: Core | None = getattr(self, f"{operand}_from")
        return core


@dataclass(frozen=True)
class Plan:
    """A launch over row-major sticks, interleaved in DRAM.

    Attributes:
        reader, writer: kernels (files of kernels/, without .cpp) that know where the operands lie
        width: W, elements of a row
        rows: product of the input's dimensions but the last
        group_rows: rows in Dest at once, 4 or 1
        piece: elements of a row in Dest at once, a multiple of HALF_FACE_ELEMENTS
        steps: pieces of a row; the last is padded with zeros
        shares: the cores, each with its rows and columns; every element is in one share
        cbs: the circular buffers of SPEC.md's table, of each core
    """

    reader: str
    writer: str
    width: int
    rows: int
    group_rows: int
    piece: int
    steps: int
    shares: tuple[Share, ...]
    cbs: tuple[CircularBuffer, ...]

    @property
    def l1_bytes(self) -> int:
        """What the CBs take of a core's L1."""
        return sum(cb.size for cb in self.cbs)

    @property
    def groups(self) -> int:
        return math.ceil(self.rows / self.group_rows)

    def exchanges(self, operand: Operand) -> bool:
        """Whether cores send the operand to one another."""
        return any(share.sender(operand) for share in self.shares)

    def row_count(self, share: Share) -> int:
        """Rows of a share: its groups are whole, but for the last of all."""
        missing = self.groups * self.group_rows - self.rows if self.groups - 1 in share.groups else 0
        return len(share.groups) * self.group_rows - missing

    def steps_of(self, share: Share) -> range:
        """The steps of a row that make `share.columns`."""
        return range(share.columns.start // self.piece, math.ceil(share.columns.stop / self.piece))


@lru_cache(maxsize=256)
def make_plan(input_shape: tuple[int, ...], dtypes: Dtypes, chip: Chip) -> Plan:
    """The plan that cost.py expects to take the fewest cycles, among those that fit into L1.

    Rows go in groups of `GROUP_ROWS`, of which no core has more than one more than another. They go one by one where no
    core has two, or where L1 can't hold four side by side. A row that goes alone may be cut over a team of cores.

    Args:
        input_shape: (..., W)
    Raises:
        LayerNormArgumentError: L1 has no room for single rows either
    """
    rows, width = math.prod(input_shape[:-1]), input_shape[-1]
    one_each = rows <= chip.team_count(1)
    ways = [(GROUP_ROWS, 1), (1, 1)] if rows > 1 else [(1, 1)]
    ways += [
        (1, size) for size in range(2, math.ceil(width / WEIGHT_PAGE_ELEMENTS) + 1) if rows <= chip.team_count(size)
    ]
    needed = {way: sum(cb.size for cb in _cbs(width, dtypes, *way)) for way in ways}
    fitting = [way for way in ways if needed[way] <= chip.l1_bytes]
    if not fitting:
        raise LayerNormArgumentError(
            f"rows of {width} elements need {min(needed.values())} bytes of L1, but a core has {chip.l1_bytes}"
        )
    if not one_each:
        fitting = fitting[:1]  # of several rows a core does four side by side faster than one by one
    splits = [_split(rows, width, dtypes, chip, *way) for way in fitting]
    return _plan(dtypes, chip, min(splits, key=lambda split: estimate(chip.costs, split)))


def least_l1_bytes(width: int, dtypes: Dtypes) -> int:
    """What the CBs take where one core does rows of `width` elements one by one."""
    return sum(cb.size for cb in _cbs(width, dtypes, group_rows=1, team_size=1))


def _piece(width: int, group_rows: int, team_size: int) -> int:
    """A row that one core has for itself goes in large pieces, which are handed over half as often. Of a row that is
    cut, small pieces are written earlier."""
    half_faces = math.ceil(width / HALF_FACE_ELEMENTS)
    return (8 if half_faces > 4 and group_rows == team_size == 1 else min(half_faces, 4)) * HALF_FACE_ELEMENTS


def _cuts(width: int, team_size: int) -> list[range]:
    """A row's columns cut in so many parts, as evenly as can be: each begins with a page of gamma and beta."""
    pages = math.ceil(width / WEIGHT_PAGE_ELEMENTS)
    edges = [pages * member // team_size * WEIGHT_PAGE_ELEMENTS for member in range(team_size)]
    return [range(start, end) for start, end in pairwise([*edges, width])]


def _cbs(width: int, dtypes: Dtypes, group_rows: int, team_size: int) -> tuple[CircularBuffer, ...]:
    piece = _piece(width, group_rows, team_size)
    steps = math.ceil(width / piece)
    own_steps = max(math.ceil(len(columns) / piece) for columns in _cuts(width, team_size))
    weights = ((CB_GAMMA, dtypes.gamma), (CB_BETA, dtypes.beta))
    return (
        CircularBuffer(CB_INPUT, RING_GROUPS * group_rows * steps, piece, dtypes.input),
        *(CircularBuffer(index, own_steps, piece, dtype) for index, dtype in weights if dtype is not None),
        CircularBuffer(CB_OUTPUT, OUTPUT_PAGES, TILE_ELEMENTS, dtypes.input),
    )


def _split(rows: int, width: int, dtypes: Dtypes, chip: Chip, group_rows: int, team_size: int) -> Split:
    return Split(
        rows=rows,
        width=width,
        row_bytes=width * ELEMENT_SIZES[dtypes.input],
        weight_bytes=sum(width * ELEMENT_SIZES[dtype] for dtype in (dtypes.gamma, dtypes.beta) if dtype is not None),
        group_rows=group_rows,
        teams=max(1, min(math.ceil(rows / group_rows), chip.team_count(team_size))),
        team_size=team_size,
    )


def _plan(dtypes: Dtypes, chip: Chip, split: Split) -> Plan:
    width, group_rows, count = split.width, split.group_rows, split.teams
    piece = _piece(width, group_rows, split.team_size)
    teams = chip.teams(split.team_size, count)
    shared = weights_are_multicast(chip.costs, split)
    shares = []
    for index, team in enumerate(teams):
        for member, (core, columns) in enumerate(zip(team, _cuts(width, split.team_size), strict=True)):
            # Two cores send, one gamma and one beta, so that each has half of what has to leave a core: the first and
            # the last, without which the others make the fewest rectangles.
            gamma_from, beta_from = teams[0][member], teams[-1][member]
            shares.append(
                Share(
                    core=core,
                    groups=range(index, math.ceil(split.rows / group_rows), count),
                    columns=columns,
                    input_from=team[0] if member > 0 else None,
                    gamma_from=gamma_from if shared and core != gamma_from else None,
                    beta_from=beta_from if shared and core != beta_from else None,
                )
            )
    return Plan(
        reader="reader",
        writer="writer",
        width=width,
        rows=split.rows,
        group_rows=group_rows,
        piece=piece,
        steps=math.ceil(width / piece),
        shares=tuple(shares),
        cbs=_cbs(width, dtypes, group_rows, split.team_size),
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
    # Compute frees a group only when it has all of the next, and the reader reserves room for two at once.
    if pages[CB_INPUT] % group or pages[CB_INPUT] < (1 + GROUPS_IN_FLIGHT) * group:
        raise CbContractError(
            f"CB_INPUT must hold whole groups of {group} pages, {1 + GROUPS_IN_FLIGHT} at least,"
            f" but holds {pages[CB_INPUT]} pages"
        )
    if pages[CB_INPUT] >= 2**16:  # as wide as the CBs' counters are
        raise CbContractError(f"CB_INPUT must hold fewer than {2**16} pages, but holds {pages[CB_INPUT]}")
    most = max(len(plan.steps_of(share)) for share in plan.shares)
    for index in (CB_GAMMA, CB_BETA):
        if pages.get(index, most) != most:
            raise CbContractError(f"{CB_NAMES[index]} must hold a row's {most} pages, but holds {pages[index]}")
    step = math.ceil(plan.group_rows * plan.piece / TILE_ELEMENTS)
    if pages[CB_OUTPUT] % step or not pages[CB_OUTPUT]:
        raise CbContractError(f"CB_OUTPUT must hold whole steps of {step} pages, but holds {pages[CB_OUTPUT]}")


def _check_shares(plan: Plan) -> None:
    teams: dict[range, list[range]] = {}
    for share in plan.shares:
        teams.setdefault(share.groups, []).append(share.columns)
    if set(teams) != {range(first, plan.groups, len(teams)) for first in range(len(teams))}:
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
        for operand in get_args(Operand):
            core = share.sender(operand)
            if core is None:
                continue
            source = shares.get(core)
            if source is None or source.sender(operand) is not None:
                raise CbContractError(f"core {share.core} waits for {operand} from {core}, which does not read it")
            if operand != "input" and source.columns != share.columns:
                raise CbContractError(
                    f"core {share.core} with {share.columns} of {operand} waits for {core}, which has {source.columns}"
                )
            if operand == "input" and (source.groups != share.groups or len(share.groups) * plan.group_rows != 1):
                raise CbContractError(
                    f"core {share.core} waits for {share.groups} from {core}, which has {source.groups}:"
                    " only a row alone may be sent, and to cores that have no other"
                )
