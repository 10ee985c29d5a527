# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""NaN, infinities and numbers too large to square: a row that holds one comes out bad as a whole, its neighbours as if
it were not there. No such row gives a number that could be taken for a result."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from micro_ops.layernorm import LayerNormSingleCore, RMSNormSingleCore
from tests.tensors import (
    ALONE,
    EPSILON,
    NARROW,
    WIDE,
    assert_equal_but_near_ties,
    random_input,
    random_weights,
    run_layernorm,
    run_rmsnorm,
)


@dataclass(frozen=True)
class Form:
    """One way of the arithmetic through the kernels."""

    run: Callable[..., torch.Tensor]
    golden: Callable[..., torch.Tensor]
    weights: int
    dtype: torch.dtype
    weights_dtype: torch.dtype

    def draw_weights(self, width: int) -> tuple[torch.Tensor, ...]:
        return random_weights(width, dtype=self.weights_dtype)[: self.weights]


def layernorm(dtype: torch.dtype, weights_dtype: torch.dtype) -> Form:
    return Form(run_layernorm, LayerNormSingleCore.golden, 2, dtype, weights_dtype)


def rmsnorm(dtype: torch.dtype, weights_dtype: torch.dtype, **rounded: bool) -> Form:
    run, golden = (partial(function, **rounded) for function in (run_rmsnorm, RMSNormSingleCore.golden))
    return Form(run, golden, 1, dtype, weights_dtype)


BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
FORMS = {
    "layernorm": layernorm(BFLOAT16, BFLOAT16),
    "layernorm, float32 weights": layernorm(BFLOAT16, FLOAT32),
    "layernorm, float32": layernorm(FLOAT32, FLOAT32),
    "layernorm, float32, bfloat16 weights": layernorm(FLOAT32, BFLOAT16),
    "rmsnorm": rmsnorm(BFLOAT16, BFLOAT16),  # the FPU multiplies by gamma
    "rmsnorm, float32 weights": rmsnorm(BFLOAT16, FLOAT32),
    "rmsnorm, HuggingFace's order": rmsnorm(BFLOAT16, BFLOAT16, round_before_gamma=True),
    "rmsnorm, HuggingFace's order, float32 weights": rmsnorm(BFLOAT16, FLOAT32, round_before_gamma=True),
    "rmsnorm, 1 / rms rounded": rmsnorm(BFLOAT16, BFLOAT16, round_inverse_rms=True),
    "rmsnorm, float32": rmsnorm(FLOAT32, FLOAT32),
    "rmsnorm, float32, bfloat16 weights": rmsnorm(FLOAT32, BFLOAT16),
}


# Ways of x: float32 weights take another one where the FPU would multiply by gamma.
WAYS_OF_X = (
    "layernorm",
    "layernorm, float32",
    "rmsnorm",
    "rmsnorm, float32 weights",
    "rmsnorm, HuggingFace's order",
    "rmsnorm, 1 / rms rounded",
    "rmsnorm, float32",
)


@pytest.fixture(params=WAYS_OF_X)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def bad_rows(y: torch.Tensor) -> set[int]:
    """The rows of `y` (rows, W) that are NaN and Inf throughout; a row that is in part is a failure by itself."""
    bad = ~y.isfinite()
    assert torch.equal(bad.all(dim=-1), bad.any(dim=-1)), f"rows {bad.any(dim=-1).nonzero().flatten()} are bad in part"
    return set(bad.all(dim=-1).nonzero().flatten().tolist())


SPECIAL = (math.nan, math.inf, -math.inf, -math.nan)


@pytest.mark.parametrize("shape", [pytest.param(WIDE, marks=pytest.mark.long), NARROW], ids=["wide", "narrow"])
def test_one_spoils_its_row_and_no_other(device: Any, form: Form, shape: tuple[int, ...]) -> None:
    """In a group's first row and its last, in the first piece and the last, in the first lane and the last."""
    x, weights = random_input(shape, dtype=form.dtype), form.draw_weights(shape[-1])
    clean = form.run(device, x, *weights)
    spoilt = {row: column % shape[-1] for row, column in ((0, 0), (3, 127), (5, 1024), (32, 64)) if row < shape[0]}
    for (row, column), value in zip(spoilt.items(), SPECIAL, strict=False):
        x[row, column] = value
    y = form.run(device, x, *weights)
    assert bad_rows(y) == set(spoilt)
    others = [row for row in range(shape[0]) if row not in spoilt]
    torch.testing.assert_close(y[others], clean[others], rtol=0, atol=0)


def test_one_spoils_a_row_alone(device: Any, form: Form) -> None:
    weights = form.draw_weights(ALONE[-1])
    for seed, value in enumerate(SPECIAL[:2]):
        x = random_input(ALONE, seed=seed, dtype=form.dtype)
        x[0, -1 - seed] = value
        assert bad_rows(form.run(device, x, *weights)) == {0}


def test_opposites_do_not_cancel(device: Any, form: Form) -> None:
    """In one partial sum (elements 128 apart), and in two: the FPU takes an infinity for 2^128, and NaNs for more."""
    pairs = [
        (math.inf, -math.inf),
        (math.inf, -(2.0**127)),  # whose double is -2^128
        (math.nan, -math.nan),
        (-math.inf, math.nan),
    ]
    x = random_input((2 * len(pairs) + 1, 384), dtype=form.dtype)
    for row, (first, second) in enumerate([*pairs, *pairs]):
        x[row, 7], x[row, 7 + (128 if row < len(pairs) else 1)] = first, second
    assert bad_rows(form.run(device, x, *form.draw_weights(384))) == set(range(2 * len(pairs)))


@pytest.mark.long
def test_large_values_are_right_or_bad(device: Any, form: Form) -> None:
    """One, two or all elements of a row are large, up to what bfloat16 holds. A row is right as long as twice the sum
    of its squares is a float32, as SPEC.md promises; beyond that it may be right, or bad as a whole."""
    width = 256
    exponents = torch.tensor([40, *range(60, 65), 127])  # 2^63 can be squared, 2^64 can't
    mantissas = torch.tensor([1.0, 1.9921875])  # bfloat16's least and greatest
    large = torch.exp2(exponents.float()).outer(mantissas).flatten()
    rows = []
    for columns in ([3], [3, 131], [0, 255], range(width)):
        x = random_input((len(large), width), seed=len(rows))
        signs = torch.tensor([1.0, -1.0]).repeat(width)[: len(columns)]
        x[:, list(columns)] = large.outer(signs).bfloat16()
        rows.append(x)
    x = torch.cat(rows).to(form.dtype)
    weights = form.draw_weights(width)
    y, golden = form.run(device, x, *weights), form.golden(x, *weights, EPSILON)
    bad = bad_rows(y)
    holds = 2 * x.double().square().sum(dim=-1) < torch.finfo(torch.float32).max
    assert not bad & set(holds.nonzero().flatten().tolist())
    assert bad >= {len(large) - 2, len(large) - 1}, "2^127 can't be squared"
    right = [row for row in range(len(x)) if row not in bad]
    assert_equal_but_near_ties(y[right], golden[right], *weights[1:], least=0)  # right to an ULP, as promised


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_weight_spoils_its_column(device: Any, form: Form) -> None:
    """A bfloat16 gamma that the FPU multiplies by is but a large number to it (SPEC.md): its column is huge."""
    x, weights = random_input(WIDE, dtype=form.dtype), form.draw_weights(WIDE[-1])
    for index, weight in enumerate(weights):
        weight[0, 5 + index], weight[0, 1020 + index] = math.nan, math.inf
    on_fpu = (FORMS["rmsnorm"], FORMS["rmsnorm, 1 / rms rounded"])
    huge = 2.0**100 if form in on_fpu else math.inf
    bad = ~(form.run(device, x, *weights).abs() < huge)
    columns = {column + index for column in (5, 1020) for index in range(len(weights))}
    assert set(bad.all(dim=0).nonzero().flatten().tolist()) == columns
    assert set(bad.any(dim=0).nonzero().flatten().tolist()) == columns
