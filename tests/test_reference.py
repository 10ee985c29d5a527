"""reference.py gives the kernels' bits, so that who reads the one has read the other."""

from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNormSingleCore, RMSNormSingleCore, reference
from tests.test_layernorm import random_input, random_weights, upload

SHAPES = pytest.mark.parametrize(
    "shape",
    [
        (1, 32),  # less than a half face, in which some lanes add nothing
        (4, 128),
        (5, 300),  # the last half face is cut, and the last group has one row
        (1, 1024),  # a row alone, in pieces of 8 half faces
        (9, 1536),  # q_a_layernorm
        (3, 7168),  # hidden_size
    ],
    ids=str,
)
WEIGHTS = pytest.mark.parametrize(("gamma", "beta"), [(True, True), (True, False), (False, True), (False, False)])


@SHAPES
@WEIGHTS
@pytest.mark.parametrize("offset", [0.5, 1e4], ids=["offset 0.5", "offset 1e4"])
def test_layer_norm(device: Any, shape: tuple[int, int], gamma: bool, beta: bool, offset: float) -> None:
    x = random_input(shape, offset=offset, std=64 if offset > 1 else 2)
    weights = [t if given else None for t, given in zip(random_weights(shape[-1]), (gamma, beta), strict=True)]
    y = LayerNormSingleCore.op(upload(x, device), *(None if t is None else upload(t, device) for t in weights))
    expected = reference.layer_norm(x, *(None if t is None else t.flatten() for t in weights))
    torch.testing.assert_close(ttnn.to_torch(y), expected, rtol=0, atol=0)


@SHAPES
@pytest.mark.parametrize("form", ["no gamma", "rounds once", "rounds before gamma"])
def test_rms_norm(device: Any, shape: tuple[int, int], form: str) -> None:
    x, gamma = random_input(shape), random_weights(shape[-1])[0] if form != "no gamma" else None
    rounds = form == "rounds before gamma"
    uploaded = None if gamma is None else upload(gamma, device)
    y = RMSNormSingleCore.op(upload(x, device), uploaded, round_before_gamma=rounds)
    expected = reference.rms_norm(x, None if gamma is None else gamma.flatten(), round_before_gamma=rounds)
    torch.testing.assert_close(ttnn.to_torch(y), expected, rtol=0, atol=0)


def test_a_constant_row_gives_beta() -> None:
    gamma, beta = (t.flatten() for t in random_weights(96))
    assert torch.equal(reference.layer_norm(torch.full((1, 96), 1e4).bfloat16(), gamma, beta)[0], beta)
