# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Plans of tiles are values, made without a device."""

import math
from dataclasses import replace

import pytest
import ttnn

from micro_ops.layernorm import CbContractError, LayerNormArgumentError
from micro_ops.layernorm.placement import Placement, Shards
from micro_ops.layernorm.plan import Chip, Dtypes
from micro_ops.layernorm.tile_plan import TilePlan, check_tile_contract, make_tile_plan
from tests.chips import BLACKHOLE, HARVESTED, ONE_CORE, WORMHOLE

BFLOAT16 = Dtypes(ttnn.bfloat16, ttnn.bfloat16, ttnn.bfloat16)
FLOAT32 = Dtypes(ttnn.float32, ttnn.float32, ttnn.float32)
DRAM = Placement(tile_height=32, in_l1=False)
EIGHT = Shards(tuple((x, 0) for x in range(8)), height=32, width=64, across=8)
IN_SHARDS = Placement(tile_height=32, in_l1=True, shards=EIGHT)
A_FEW = replace(BLACKHOLE, noc_x=(1, 2), noc_y=(2, 3))  # a range of 2 x 2 cores, as `cores=` makes it
CHIPS = {"one core": ONE_CORE, "a few": A_FEW, "blackhole": BLACKHOLE, "wormhole": WORMHOLE, "harvested": HARVESTED}
SHAPES = [(1, 32), (32, 7168), (33, 300), (1024, 128), (2, 3, 40, 100), (5000, 64), (4096, 1536)]


def plan_of(
    shape: tuple[int, ...], chip: Chip = BLACKHOLE, source: Placement = DRAM, dtypes: Dtypes = BFLOAT16
) -> TilePlan:
    return make_tile_plan(shape, dtypes, chip, source, source, tiled_weights=False, stream=None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_each_tile_is_in_one_share(chip: Chip, shape: tuple[int, ...]) -> None:
    plan = plan_of(shape, chip)
    check_tile_contract(plan)
    tiles = [(row, tile) for share in plan.shares for row in share.tile_rows for tile in share.tiles]
    rows = math.prod(shape[:-2]) * math.ceil(shape[-2] / plan.tile_height)
    assert len(tiles) == len(set(tiles)) == rows * math.ceil(shape[-1] / 32)
    cores = [share.core for share in plan.shares]
    assert len(cores) == len(set(cores))
    assert set(cores) <= set(chip.cores())
    assert plan.l1_bytes <= chip.l1_bytes
    counts = [len(share.tile_rows) for share in plan.shares]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("shape", "halves", "cores"),
    [
        ((1024, 128), 2, 64),
        ((1000, 128), 2, 63),  # the lower half of the last tiles is padding
        ((2, 56, 32), 2, 8),
        ((2, 40, 32), 1, 4),  # so would be that of each matrix's last ones
    ],
    ids=str,
)
def test_tiles_of_32_rows_are_dealt_out_as_two_of_16(shape: tuple[int, ...], halves: int, cores: int) -> None:
    plan = plan_of(shape)
    assert (plan.page_tiles, plan.tile_height, len(plan.shares)) == (halves, 32 // halves, cores)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtypes", [BFLOAT16, FLOAT32], ids=["by stripes", "by quads"])
def test_the_cores_of_a_team_agree_who_adds_up_what(shape: tuple[int, ...], dtypes: Dtypes) -> None:
    plan = plan_of(shape, dtypes=dtypes)
    for team in {share.team for share in plan.shares}:
        members = [share for share in plan.shares if share.team == team]
        ((adders, makers),) = {(plan.adders(share), plan.makers(share)) for share in members}
        assert set(adders) | set(makers) <= set(team)
        assert (len(adders), len(makers)) == (len(set(adders)), len(set(makers)))
        assert len(makers) == min(len(team), plan.quads)
        assert len(adders) == min(len(team), plan.stripes if plan.striped else plan.quads)


def test_a_shard_stays_on_its_core() -> None:
    plan = plan_of((32, 500), source=IN_SHARDS)
    assert [(share.core, share.tiles) for share in plan.shares] == [((x, 0), range(2 * x, 2 * x + 2)) for x in range(8)]
    assert plan.gathered, "the last shard is padded"
    assert [cb.over for cb in plan.cbs][:4] == ["input", None, None, "output"]


def _wrong(plan: TilePlan, **changes: object) -> TilePlan:
    *others, last = plan.shares
    return replace(plan, shares=(*others, replace(last, **changes)))


WRONG = {
    "tiles left out": (_wrong(plan_of((32, 512), source=IN_SHARDS), tiles=range(14, 15)), "each of 1 x 16 tiles"),
    "a core that sends no rows": (
        _wrong(plan_of((32, 512), source=IN_SHARDS), team=(*EIGHT.cores[:7], (9, 9))),
        r"waits for rows of .* which does not send them all",
    ),
    "rows that no core has": (
        replace(plan_of((32, 512), source=IN_SHARDS), gathered=False),
        "must be gathered, since no core has all of them",
    ),
    "a CB of no pages": (
        replace(plan := plan_of((32, 64)), cbs=(replace(plan.cbs[0], pages=0), *plan.cbs[1:])),
        "CB_INPUT must hold 1 to 65535 pages, but holds 0",
    ),
}


@pytest.mark.parametrize(("plan", "message"), WRONG.values(), ids=WRONG)
def test_plans_that_would_hang_or_go_wrong_are_refused(plan: TilePlan, message: str) -> None:
    with pytest.raises(CbContractError, match=message):
        check_tile_contract(plan)


def test_l1_is_asked_for_no_more_than_it_has() -> None:
    needed = plan_of((32, 512), source=IN_SHARDS).l1_bytes
    assert plan_of((32, 512), replace(BLACKHOLE, l1_bytes=needed), IN_SHARDS).l1_bytes == needed
    with pytest.raises(LayerNormArgumentError, match=f"need {needed} bytes of L1, but a core has {needed - 1} left"):
        plan_of((32, 512), replace(BLACKHOLE, l1_bytes=needed - 1), IN_SHARDS)
