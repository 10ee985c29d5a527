# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How many cycles a split of rows and columns over cores will take: what a plan is chosen by.

The figures are those of wolfpine's cost model, which takes DRAM's rate and the NoC's flights from Tenstorrent's
documentation, and of our kernels as they run there (docs/performance.md).
"""

import math
from dataclasses import dataclass

MAX_PARTS = 4  # in which the first group, gamma and beta reach a core


@dataclass(frozen=True)
class Costs:
    """Of one architecture, in cycles and bytes.

    Attributes:
        banks: DRAM banks over which pages are interleaved
        bank_rate: bytes a cycle of one bank, to and fro
        launch: until a core issues its first read
        read: from there until its first bytes are in L1
        multicast: from the bytes' arrival at one core to their arrival at those that it multicasts them to
        statistics: of a group, from the last of its sums to mean and 1 / std
        finish: from the last result in Dest to the acknowledgement of its write
        sum_rate: elements a cycle that the FPU adds up, bfloat16
        float32_sum_rate: ... and the SFPU, float32
        row_rates: elements a cycle that are normalized of a row alone: without weight, with one, with two
        group_rate: elements a cycle of rows four at once, their sums among them
        residual_rate: elements a cycle to which a residual is added
    """

    banks: int
    bank_rate: float
    launch: float
    read: float
    multicast: float
    statistics: float
    finish: float
    sum_rate: float
    float32_sum_rate: float
    row_rates: tuple[float, float, float]
    group_rate: float
    residual_rate: float


BLACKHOLE = Costs(8, 47.0, 380, 460, 250, 130, 420, 22.0, 5.9, (10.0, 7.0, 4.9), 5.6, 3.2)
WORMHOLE = Costs(12, 24.0, 420, 480, 270, 160, 440, 16.0, 4.4, (7.5, 5.2, 3.6), 4.1, 3.2)


@dataclass(frozen=True)
class Split:
    """Rows and columns over cores.

    Attributes:
        row_bytes: of a row of the input, and of one of the output
        weights: how many of gamma and beta there are
        weight_bytes: theirs
        has_residual: there is one, of as many bytes as the input, and the sum is written, too
        group_rows: rows that a core does at once
        row_stride: from one of them to the next
        teams: of cores, each of which has whole rows
        team_size: cores that share a row, each with some of its columns
    """

    rows: int
    width: int
    row_bytes: int
    weights: int
    weight_bytes: int
    has_residual: bool
    group_rows: int
    row_stride: int
    teams: int
    team_size: int


def estimate(costs: Costs, split: Split) -> float:
    """Cycles from the launch to its end.

    DRAM and the cores work side by side. So it is the longer of two: all that the busiest bank serves; or what it
    serves until the last core has its first group, and then what that core does. A row that is cut reaches the cores
    part by part; and its columns are written all at once, so that most of them wait for the bank.
    """
    rounds = max(1, math.ceil(split.rows / split.group_rows / split.teams))  # groups of the busiest core
    is_float32 = split.row_bytes == 4 * split.width
    slow = 2 if is_float32 else 1  # float32 passes everything twice as long
    terms = 2 if split.has_residual else 1
    reads = terms * math.ceil(split.rows / costs.banks) * split.row_bytes / costs.bank_rate
    bank = 2 * reads + split.weight_bytes / costs.bank_rate / costs.banks
    rows = min(split.rows, split.group_rows)
    sums = rows * split.width / (costs.float32_sum_rate if is_float32 else costs.sum_rate)
    if split.group_rows == 1:
        results = split.width / split.team_size / costs.row_rates[split.weights]
        first = max(reads / rounds, sums)
        core = first + costs.statistics + results + (rounds - 1) * (results + costs.statistics)
        if split.team_size > 1:
            core += costs.multicast + reads / MAX_PARTS + 0.75 * reads
    else:
        core = reads / rounds + sums + rounds * (rows * slow * split.width / costs.group_rate + costs.statistics)
    if split.has_residual:
        core += rounds * rows * split.width / split.team_size / costs.residual_rate
    if weights_are_multicast(costs, split):
        core += costs.multicast
    return costs.launch + costs.read + max(core, bank) + costs.finish


def weights_are_multicast(costs: Costs, split: Split) -> bool:
    """Whether one core reads gamma or beta for all, rather than each core for itself, all from one bank of DRAM. That
    takes as long as a multicast at half the bytes, but a core that sends keeps its own rows waiting, too."""
    if split.teams == 1:
        return False
    return split.teams * split.weight_bytes / costs.bank_rate > 2 * costs.multicast


def estimate_tiles(
    costs: Costs,
    *,
    row_bytes: int,
    tile_rows: int,
    across: int,
    own_rows: int,
    own_tiles: int,
    team_size: int,
    quads: int,
    stripes: int | None,
    weights: int,
    has_residual: bool,
    makes_statistics: bool,
    makes_result: bool,
) -> float:
    """Cycles of a launch over tiles.

    Args:
        row_bytes: of a row of tiles, bytes
        tile_rows, across: rows of tiles, and tiles of one
        own_rows, own_tiles: of them, the busiest core's
        team_size: cores that share a row
        quads: of a row of tiles
        stripes: of a row of tiles that cores share by these, else None
        weights: how many of gamma and beta there are
        has_residual: there is one
        makes_statistics: else it takes those of chips
        makes_result: else it makes statistics alone
    """
    reads = (2 if has_residual else 1) * tile_rows * row_bytes / costs.bank_rate / costs.banks
    tile = (90, 130, 175)[weights] * quads / 8 if makes_result else 0
    if not makes_statistics:
        statistics = 2 * costs.statistics
    elif team_size == 1:
        statistics = quads * (costs.statistics + 11 * across)
    elif stripes:
        turns = math.ceil(stripes / min(team_size, stripes))
        send = stripes * (70 + 6 * own_tiles)
        statistics = send + 4 * costs.multicast + turns * (2.8 * across + 60) + 2 * costs.statistics
    else:
        turns = math.ceil(quads / min(team_size, quads))
        send = 22 * own_tiles * quads
        statistics = send + 2 * costs.multicast + turns * (costs.statistics + 5 * across + 60)
    if has_residual:
        statistics += 320 * own_tiles
    core = own_rows * (statistics + own_tiles * tile) + reads
    return costs.launch + costs.read + max(core, 2 * reads) + costs.finish
