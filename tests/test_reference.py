# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""reference.py gives the kernels' bits, so that who has read the one has read the other."""

from typing import Any

import pytest
import torch

from micro_ops.layernorm import reference
from tests.tensors import random_input, random_weights, run_layernorm, run_rmsnorm

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        (1, 32),  # less than a half face, in which some lanes add nothing
        (4, 128),
        (5, 300),  # the last half face is cut, and the last group has one row
        (1, 1024),  # a row alone, in pieces of 8 half faces
        pytest.param((9, 1536), marks=pytest.mark.long),  # q_a_layernorm
        pytest.param((3, 7168), marks=pytest.mark.long),  # hidden_size
    ],
    ids=str,
)


def flat(weight: torch.Tensor | None) -> torch.Tensor | None:
    return None if weight is None else weight.flatten()


@SHAPES
@pytest.mark.parametrize(("offset", "std"), [(0.5, 2.0), (1e4, 64.0)], ids=["offset 0.5", "offset 1e4"])
def test_layer_norm(device: Any, shape: tuple[int, int], offset: float, std: float) -> None:
    x, weights = random_input(shape, offset, std), random_weights(shape[-1])
    expected = reference.layer_norm(x, *map(flat, weights))
    torch.testing.assert_close(run_layernorm(device, x, *weights), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("has_gamma", "has_beta"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize(
    "shape", [(5, 300), pytest.param((1, 1024), marks=pytest.mark.long)], ids=str
)  # in groups, and alone
def test_layer_norm_without_a_weight(device: Any, shape: tuple[int, int], has_gamma: bool, has_beta: bool) -> None:
    x, (gamma, beta) = random_input(shape), random_weights(shape[-1])
    weights = (gamma if has_gamma else None, beta if has_beta else None)
    torch.testing.assert_close(
        run_layernorm(device, x, *weights), reference.layer_norm(x, *map(flat, weights)), rtol=0, atol=0
    )


@SHAPES
@pytest.mark.parametrize(
    ("has_gamma", "rounded"),
    [
        pytest.param(False, (), id="no gamma"),
        pytest.param(True, (), id="once"),
        pytest.param(True, ("round_before_gamma",), id="twice"),
        pytest.param(False, ("round_inverse_rms",), id="1 / rms, no gamma"),
        pytest.param(True, ("round_inverse_rms",), id="1 / rms", marks=pytest.mark.long),
        pytest.param(True, ("round_inverse_rms", "round_before_gamma"), id="all", marks=pytest.mark.long),
    ],
)
def test_rms_norm(device: Any, shape: tuple[int, int], has_gamma: bool, rounded: tuple[str, ...]) -> None:
    x, gamma = random_input(shape), random_weights(shape[-1])[0] if has_gamma else None
    keywords = dict.fromkeys(rounded, True)
    expected = reference.rms_norm(x, flat(gamma), **keywords)
    torch.testing.assert_close(run_rmsnorm(device, x, gamma, **keywords), expected, rtol=0, atol=0)


def test_a_constant_row_gives_beta() -> None:
    gamma, beta = (t.flatten() for t in random_weights(96))
    assert torch.equal(reference.layer_norm(torch.full((1, 96), 1e4).bfloat16(), gamma, beta)[0], beta)
