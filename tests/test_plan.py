# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Plans are values, made without a device."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import ttnn

from micro_ops.layernorm import CbContractError, LayerNormArgumentError
from micro_ops.layernorm.placement import Placement, Shards
from micro_ops.layernorm.plan import (
    CB_STREAM,
    Chip,
    Dtypes,
    Plan,
    Share,
    check_contract,
    make_plan,
    make_shard_plan,
    stays_on_its_cores,
)
from micro_ops.layernorm.program import MAX_RECTANGLES, rectangles
from tests.chips import BLACKHOLE, HARVESTED, L1_BYTES, ONE_CORE, WORMHOLE
from tests.programs import with_pages

BFLOAT16 = Dtypes(ttnn.bfloat16, ttnn.bfloat16, ttnn.bfloat16)
WITH_RESIDUAL = replace(BFLOAT16, residual=ttnn.bfloat16)
CHIPS = {"one core": ONE_CORE, "blackhole": BLACKHOLE, "wormhole": WORMHOLE, "harvested": HARVESTED}
SPLITS = pytest.mark.parametrize(
    "shape",
    [
        (1, 32),
        (1, 7168),  # cut over a team
        (3, 7000),
        (10, 7168),  # as many teams as a column has cores
        (11, 7168),  # one more
        (32, 7168),
        (2, 16_384),
        (32, 128),  # a row each
        (257, 32),  # groups of four, one of them of one row
        (1024, 128),
        (1025, 128),
        (100_000, 64),
        (0, 128),
    ],
)


@pytest.mark.parametrize(
    ("shape", "group_rows", "piece", "steps"),
    [
        ((1, 32), 1, 128, 1),  # a row is whole half faces of 128 elements
        ((4, 128), 4, 128, 1),
        ((33, 300), 4, 384, 1),
        ((32, 512), 4, 512, 1),
        ((1, 512), 1, 512, 1),
        ((1, 513), 1, 512, 2),
        ((1, 1025), 1, 1024, 2),  # a single long row's pieces are larger: it has Dest for itself
        ((256, 513), 4, 512, 2),
        ((1, 1, 7168), 1, 1024, 7),
        ((2, 3, 7168), 4, 512, 14),
        ((2, 60_000), 1, 1024, 59),  # L1 has no room for sixteen such rows
    ],
)
def test_sizes_on_one_core(shape: tuple[int, ...], group_rows: int, piece: int, steps: int) -> None:
    plan = make_plan(shape, BFLOAT16, ONE_CORE)
    assert (plan.group_rows, plan.piece, plan.steps) == (group_rows, piece, steps)
    assert plan.rows == math.prod(shape[:-1])
    assert (steps - 1) * piece < shape[-1] <= steps * piece
    assert piece * 2 % 64 == 0, "DRAM reads want rows in L1 at 64 bytes on Blackhole, 32 on Wormhole"
    assert plan.l1_bytes <= L1_BYTES
    assert plan.shares == (Share((0, 0), range(plan.groups), range(shape[-1])),)


@SPLITS
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_each_element_is_in_one_share(chip: Chip, shape: tuple[int, int]) -> None:
    plan = make_plan(shape, BFLOAT16, chip)
    check_contract(plan)
    done = Counter((group, share.columns) for share in plan.shares for group in share.groups)
    assert set(done.values()) <= {1}
    assert sum(len(columns) for _, columns in done) == plan.groups * plan.width
    assert sum(plan.row_count(share) * len(share.columns) for share in plan.shares) == math.prod(shape)
    cores = {share.core for share in plan.shares}
    assert len(cores) == len(plan.shares) <= chip.max_cores
    assert all(x < len(chip.noc_x) and y < len(chip.noc_y) for x, y in cores)


@SPLITS
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_rows_are_spread_evenly(chip: Chip, shape: tuple[int, int]) -> None:
    groups = [len(share.groups) for share in make_plan(shape, BFLOAT16, chip).shares]
    assert max(groups) - min(groups) <= 1


@SPLITS
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_multicasts_reach_who_waits_for_them_and_nothing_else(chip: Chip, shape: tuple[int, int]) -> None:
    plan = make_plan(shape, BFLOAT16, chip)
    cells = {(x, y) for x in chip.noc_x for y in chip.noc_y}
    for sender in plan.shares:
        of_rows = plan.row_receivers().get(sender.core, [])
        assert of_rows == [share.core for share in plan.shares if share.input_from == sender.core]
        for receivers in (of_rows, plan.weight_receivers(sender)):
            places = set(map(chip.noc, receivers))
            sent_to = [
                (x, y)
                for r in rectangles(places)
                for x in range(r.first[0], r.last[0] + 1)
                for y in range(r.first[1], r.last[1] + 1)
            ]
            assert len(sent_to) == len(places) == len(receivers)
            assert set(sent_to) == places <= cells - {chip.noc(sender.core)}
            assert len(rectangles(places)) <= MAX_RECTANGLES


@SPLITS
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_all_that_have_the_same_columns_get_each_part_of_gamma_and_beta(chip: Chip, shape: tuple[int, int]) -> None:
    plan = make_plan(shape, BFLOAT16, chip)
    for share in plan.shares:
        senders = [other for other in plan.shares if other == share or share.core in plan.weight_receivers(other)]
        parts = [part for sender in senders for part in sender.sends]
        assert len(parts) == len(set(parts))
        if plan.weight_part:
            count = math.ceil(len(plan.steps_of(share)) / plan.weight_part)
            assert set(parts) == {(name, part) for name in ("gamma", "beta") for part in range(count)}


@pytest.mark.parametrize(
    ("shape", "chip", "cores"),
    [
        ((1, 7168), BLACKHOLE, 7),  # a row of seven pages
        ((8, 7168), BLACKHOLE, 8 * 7),
        ((1, 7168), replace(BLACKHOLE, max_cores=3), 3),
        ((1, 128), BLACKHOLE, 1),  # nothing to cut
        ((16, 7168), BLACKHOLE, 16 * 6),
        ((32, 7168), BLACKHOLE, 32),
        ((32, 1024), BLACKHOLE, 32),
        ((1024, 7168), BLACKHOLE, 128),  # as many for each of eight banks
        ((1030, 7168), BLACKHOLE, 130),  # ... would take more rounds
        ((1024, 7168), HARVESTED, 104),
        ((1024, 7168), WORMHOLE, 72),
        ((1024, 7168), replace(BLACKHOLE, max_cores=8), 8),
    ],
)
def test_how_many_cores(shape: tuple[int, int], chip: Chip, cores: int) -> None:
    assert len(make_plan(shape, BFLOAT16, chip).shares) == cores


def _wrong(plan: Plan, **changes: object) -> Plan:
    """`plan`, of whose last share something else is said."""
    *others, last = plan.shares
    return replace(plan, shares=(*others, replace(last, **changes)))


_SHARED = make_plan((32, 1024), BFLOAT16, BLACKHOLE)  # gamma and beta are sent
_CUT = make_plan((1, 7168), WITH_RESIDUAL, BLACKHOLE)  # seven cores, each with a part of the sum
WRONG = {
    "rows left out": (
        _wrong(make_plan((8, 128), BFLOAT16, BLACKHOLE), groups=range(0)),
        "the 8 groups must each be in",
    ),
    "rows twice": (
        _wrong(make_plan((8, 128), BFLOAT16, BLACKHOLE), groups=range(0, 8, 8)),
        "the 8 groups must each be in",
    ),
    "columns left out": (
        _wrong(make_plan((1, 7168), BFLOAT16, BLACKHOLE), columns=range(6144, 7000)),
        "must have 7168 columns between them, in whole pieces of 512",
    ),
    "half a piece": (
        _wrong(make_plan((1, 7168), BFLOAT16, BLACKHOLE), columns=range(6100, 7168)),
        "must have 7168 columns between them, in whole pieces of 512",
    ),
    "a sender that does not read": (
        _wrong(make_plan((1, 7168), BFLOAT16, BLACKHOLE), input_from=(5, 0)),
        r"waits for rows from \(5, 0\), which does not read them",
    ),
    "a sender that is no core of the plan": (
        _wrong(make_plan((1, 7168), BFLOAT16, BLACKHOLE), input_from=(12, 9)),
        r"waits for rows from \(12, 9\), which does not read them",
    ),
    "weights that nobody sends": (
        replace(_SHARED, shares=tuple(replace(share, sends=()) for share in _SHARED.shares)),
        r"each of 1 parts must be sent once, but these are: \[\]",
    ),
    "a part of gamma that two send": (
        _wrong(_SHARED, sends=(("gamma", 0),)),
        r"each of 1 parts must be sent once, but these are: \[\('gamma', 0\), \('beta', 0\), \('gamma', 0\)\]",
    ),
    "a part of a sum that another core reads": (
        _wrong(_CUT, input_from=_CUT.shares[0].core),
        r"must read its own columns of one row, shared by 7 cores at most, but has 1 rows from \(",
    ),
    "a sum without room for its last part": (
        with_pages(_CUT, CB_STREAM, 13),
        "CB_STREAM must hold a group, or a shard, of 14 pages, but holds 13",
    ),
    "a sender of other rows": (
        _wrong(make_plan((2, 7168), BFLOAT16, BLACKHOLE), input_from=(0, 4)),
        r"waits for range\(1, 2, 2\) from \(0, 4\), which has range\(0, 2, 2\)",
    ),
}


@pytest.mark.parametrize(("plan", "message"), WRONG.values(), ids=WRONG)
def test_shares_that_would_hang_or_go_wrong_are_refused(plan: Plan, message: str) -> None:
    with pytest.raises(CbContractError, match=message):
        check_contract(plan)


def test_l1_is_asked_for_no_more_than_it_has() -> None:
    four = make_plan((4, 7168), BFLOAT16, ONE_CORE)
    assert make_plan((4, 7168), BFLOAT16, replace(ONE_CORE, l1_bytes=four.l1_bytes)) == four
    one = make_plan((4, 7168), BFLOAT16, replace(ONE_CORE, l1_bytes=four.l1_bytes - 1))
    assert (one.group_rows, one.l1_bytes < four.l1_bytes) == (1, True)
    too_few = one.l1_bytes - 1
    with pytest.raises(LayerNormArgumentError, match=f"need {one.l1_bytes} bytes of L1, but a core has {too_few}"):
        make_plan((4, 7168), BFLOAT16, replace(ONE_CORE, l1_bytes=too_few))


@pytest.mark.parametrize(
    ("shape", "height", "group_rows", "piece"),
    [((1, 7168), 1, 1, 1024), ((5, 1536), 3, 1, 512), ((7, 384), 4, 4, 384), ((12, 128), 8, 4, 128)],
)
def test_a_stick_in_a_shard_stays_on_its_core(shape: tuple[int, int], height: int, group_rows: int, piece: int) -> None:
    rows, width = shape
    shards = Shards(tuple((0, y) for y in range(math.ceil(rows / height))), height, width, across=1)
    placement = Placement(tile_height=None, in_l1=True, shards=shards)
    assert stays_on_its_cores(placement, width)
    assert not stays_on_its_cores(placement, width - 1)
    plan = make_shard_plan(shape, BFLOAT16, BLACKHOLE, shards, placement)
    check_contract(plan)
    check_contract(make_shard_plan(shape, WITH_RESIDUAL, BLACKHOLE, shards, placement))
    assert (plan.group_rows, plan.piece, plan.output_is_sharded) == (group_rows, piece, group_rows == 1)
    done = [(share.core, row) for share in plan.shares for group in share.groups for row in plan.rows_of(group)]
    assert done == [((0, row // height), row) for row in range(rows)]
    with pytest.raises(CbContractError, match="must each be in one shard"):
        check_contract(replace(plan, shares=plan.shares[:-1]))
    with pytest.raises(LayerNormArgumentError, match="bytes of L1 beside them, but a core has 100"):
        make_shard_plan(shape, BFLOAT16, replace(BLACKHOLE, l1_bytes=100), shards, placement)


@SPLITS
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_the_packer_writes_no_sum_behind_its_cb(chip: Chip, shape: tuple[int, int]) -> None:
    """With a residual: 1,024 elements at a time, from a piece on, of groups with fewer rows, too."""
    plan = make_plan(shape, WITH_RESIDUAL, chip)
    check_contract(plan)
    assert plan.has_residual
    stream = plan.cb(CB_STREAM)
    for pieces in range(1, plan.group_rows * plan.steps + 1):
        last = max(range(0, pieces, 1024 // plan.piece))
        assert last * plan.piece + 1024 <= stream.pages * stream.page_elements
    assert plan.l1_bytes <= chip.l1_bytes
