# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Plans are values, made without a device."""

import math
from dataclasses import replace

import pytest
import ttnn

from micro_ops.layernorm import CbContractError, LayerNormArgumentError
from micro_ops.layernorm.plan import Dtypes, Share, check_contract, make_plan
from tests.tensors import WAYS

L1_BYTES = 1_432_800  # what ttnn leaves of a Wormhole core's; a Blackhole core has more
BFLOAT16 = Dtypes(ttnn.bfloat16, ttnn.bfloat16, ttnn.bfloat16)


@pytest.mark.parametrize(
    ("shape", "group_rows", "piece", "steps"),
    [
        ((1, 32), 1, 128, 1),  # a row is whole half faces of 128 elements
        ((4, 128), 4, 128, 1),
        ((33, 300), 4, 384, 1),
        ((32, 512), 4, 512, 1),
        ((1, 512), 1, 512, 1),
        ((1, 513), 1, 1024, 1),  # a single row's pieces are larger: it has Dest for itself
        ((256, 513), 4, 512, 2),
        ((1, 1, 7168), 1, 1024, 7),
        ((2, 3, 7168), 4, 512, 14),
        ((2, 60_000), 1, 1024, 59),  # L1 has no room for sixteen such rows
    ],
)
def test_sizes(shape: tuple[int, ...], group_rows: int, piece: int, steps: int) -> None:
    plan = make_plan(shape, BFLOAT16, L1_BYTES)
    assert (plan.group_rows, plan.piece, plan.steps) == (group_rows, piece, steps)
    assert plan.rows == math.prod(shape[:-1])
    assert (steps - 1) * piece < shape[-1] <= steps * piece
    assert piece * 2 % 64 == 0, "DRAM reads want rows in L1 at 64 bytes on Blackhole, 32 on Wormhole"
    assert plan.l1_bytes <= L1_BYTES


@WAYS
def test_each_element_is_in_one_share(shape: tuple[int, int]) -> None:
    plan = make_plan(shape, BFLOAT16, L1_BYTES)
    elements = [(row, column) for share in plan.shares for row in share.rows for column in share.columns]
    assert sorted(elements) == [(row, column) for row in range(shape[0]) for column in range(shape[1])]
    assert len({share.core for share in plan.shares}) == len(plan.shares)


def test_shares_that_leave_rows_out_are_refused() -> None:
    plan = make_plan((8, 128), BFLOAT16, L1_BYTES)
    halves = tuple(Share((x, 0), range(4 * x, 4 * x + 4), range(128)) for x in (0, 1))
    with pytest.raises(CbContractError, match="all 8 rows and 128 columns, but the shares have 4 x 128, 4 x 128"):
        check_contract(replace(plan, shares=halves))


def test_l1_is_asked_for_no_more_than_it_has() -> None:
    four = make_plan((4, 7168), BFLOAT16, L1_BYTES)
    assert make_plan((4, 7168), BFLOAT16, four.l1_bytes) == four
    one = make_plan((4, 7168), BFLOAT16, four.l1_bytes - 1)
    assert (one.group_rows, one.l1_bytes < four.l1_bytes) == (1, True)
    too_few = one.l1_bytes - 1
    with pytest.raises(LayerNormArgumentError, match=f"need {one.l1_bytes} bytes of L1, but a core has {too_few}"):
        make_plan((4, 7168), BFLOAT16, too_few)
