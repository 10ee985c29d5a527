# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""The measures themselves, on errors of known size."""

import math

import pytest
import torch

from model_comparison.metrics import bfloat16_spacing, compare


def test_correct_rounding_has_no_error() -> None:
    reference = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    errors = compare(reference.to(torch.bfloat16), reference)
    assert (errors.equal, errors.raw, errors.scaled) == (1.0, 1.0, 0.0)
    assert errors.pcc > 0.99999
    assert 0 < errors.max_abs <= 2.0**-7


@pytest.mark.parametrize(("value", "spacing"), [(1.0, 2**-7), (1.99, 2**-7), (2.0, 2**-6), (-0.75, 2**-8)])
def test_spacing_is_bfloat16s(value: float, spacing: float) -> None:
    size = torch.tensor([abs(value)], dtype=torch.float64)
    assert bfloat16_spacing(size).item() == spacing
    bits = torch.tensor([value]).to(torch.bfloat16).view(torch.int16)
    step = (bits + 1).view(torch.bfloat16).double() - bits.view(torch.bfloat16).double()
    assert step.abs().item() == spacing


def test_one_bad_element_is_found() -> None:
    reference = torch.randn(4, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    result = reference.to(torch.bfloat16)
    result[2, 77] = 9.0
    errors = compare(result, reference)
    assert errors.worst == (2, 77)
    assert errors.worst_values == (9.0, reference[2, 77].item())
    assert errors.equal == 1 - 1 / 1024
    assert errors.scaled > 100


def test_scale_is_seen_where_pcc_is_blind() -> None:
    reference = torch.randn(1024, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = compare((reference * 1.01).to(torch.bfloat16), reference)
    assert errors.pcc > 0.9999
    assert errors.relative_norm == pytest.approx(0.01, rel=0.1)


def test_cancellation_counts_at_the_size_of_the_operands() -> None:
    reference = torch.tensor([2.0**-10, 1.0], dtype=torch.float64)  # say 1 - (1 - 2^-10)
    result = torch.tensor([2.0**-9, 1.0], dtype=torch.bfloat16)
    operands = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert compare(result, reference).scaled > 1
    assert compare(result, reference, operands).scaled == 2.0**-10 / 2.0**-6
    assert compare(result, reference, operands).raw == 0.5


def test_nan_is_the_worst_error() -> None:
    result = torch.tensor([1.0, math.nan, 3.0], dtype=torch.bfloat16)
    errors = compare(result, torch.tensor([1.0, 2.0, 3.0]))
    assert math.isinf(errors.scaled)
    assert errors.worst == (1,)
    assert not errors.pcc >= 0.5


def test_of_a_tie_either_neighbour_is_nearest() -> None:
    reference = torch.tensor(
        [1 + 2.0**-8, 1 + 2.0**-8, 1 + 2.0**-9], dtype=torch.float64
    )  # 1 and 1 + 2^-7 are bfloat16
    errors = compare(torch.tensor([1, 1 + 2.0**-7, 1 + 2.0**-7], dtype=torch.bfloat16), reference)
    assert errors.nearest == pytest.approx(2 / 3)
    assert errors.equal == pytest.approx(1 / 3)  # rounding to even gives 1 for all three


def test_float32_results_are_not_rounded() -> None:
    reference = torch.tensor([1.0 + 2.0**-20, 2.0], dtype=torch.float64)
    assert compare(reference.float(), reference).equal == 1.0
    assert compare(torch.tensor([1.0, 2.0]), reference).equal == 0.5


def rows() -> torch.Tensor:
    """(8, 128), far from zero, so that an ULP is an ULP."""
    return torch.rand(8, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1


def test_scale_and_offset_are_of_the_fit() -> None:
    errors = compare(rows() * 1.01 + 0.25, rows())
    assert (errors.scale, errors.offset) == pytest.approx((1.01, 0.25))
    assert errors.mean_abs == pytest.approx((rows() * 0.01 + 0.25).mean().item())


def test_the_worst_row_is_that_of_the_largest_relative_norm() -> None:
    reference = rows()
    reference[5] *= 1000
    result = reference.clone()
    result[3] *= 1.02
    result[5] += 1.0  # more, but less of it
    errors = compare(result, reference)
    assert errors.worst_row == (3,)
    assert errors.worst_row_norm == pytest.approx(0.02)


def test_the_tail_of_the_ulps() -> None:
    reference = rows().to(torch.bfloat16)
    result = reference.clone()
    result.view(-1)[:10] += 2.0**-6  # two ULPs at 10 of 1,024 elements: 99% are right
    assert (compare(result, reference).scaled, compare(result, reference).scaled_p99) == (2.0, 0.0)
    result.view(-1)[:11] = reference.view(-1)[:11] + 2.0**-6
    assert compare(result, reference).scaled_p99 == 2.0


def test_near_zero_counts_as_a_part_of_the_row() -> None:
    reference = torch.tensor([64.0, 0.0, -64.0, 64.0, -64.0], dtype=torch.float64)
    result = reference + torch.tensor([0.0, 0.01, 0.0, 0.0, 0.0])
    least = reference.square().mean().sqrt().item() / 64
    assert compare(result, reference).max_relative == pytest.approx(0.01 / least)


def test_cosine_is_blind_to_scale_alone() -> None:
    reference = rows() - 1.5
    assert compare(reference * 3, reference).cosine == pytest.approx(1.0)
    assert compare(-reference, reference).cosine == pytest.approx(-1.0)
    assert compare(reference + 10, reference).cosine < 0.5 < compare(reference + 10, reference).pcc


def test_nan_and_inf_are_counted_and_left_out_of_the_fit() -> None:
    result, reference = rows() * 2, rows()
    result[0, :3] = torch.nan
    result[1, 0] = torch.inf
    reference[2, :2] = -torch.inf
    errors = compare(result, reference)
    assert (errors.nans, errors.infs, errors.reference_nans, errors.reference_infs) == (3, 1, 0, 2)
    assert (errors.scale, errors.offset) == pytest.approx((2.0, 0.0))
    assert math.isinf(errors.worst_row_norm)
