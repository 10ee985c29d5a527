# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Norms in tests: what goes into them and into a layer, a launch of the op, and what must come out."""

from typing import Any

import pytest
import torch
import ttnn

from micro_ops.layernorm import LayerNormSingleCore, RMSNormSingleCore, Tap
from model_comparison.metrics import Errors, compare
from tests.small import SMALL

EPSILON = 1e-6  # DeepSeek's

# A shape for each way through the kernels, and what can go wrong there.
ALONE = (1, 1536)  # q_lora_rank while decoding: a row alone, in pieces of 1,024 elements, the last of them padded
WIDE = (6, 1025)  # rows of three pieces, the last with one element in it; a group of four and a group of two
NARROW = (33, 128)  # k_norm: rows of one piece; nine groups, the last of a single row
WAYS = pytest.mark.parametrize("shape", [ALONE, WIDE, NARROW], ids=["alone", "wide", "narrow"])


def random_input(
    shape: tuple[int, ...],
    offset: float = 0.5,
    std: float = 2.0,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * std + offset).to(dtype)


def hidden_states(tokens: int) -> torch.Tensor:
    """(1, tokens, SMALL.hidden_size) bfloat16: what a decoder layer of SMALL takes."""
    return random_input((1, tokens, SMALL.hidden_size), offset=0.0, std=1.0)


def random_weights(width: int, seed: int = 1, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, torch.Tensor]:
    """gamma and beta (1, width), N(0, 1): neither can stand in for the other, nor for ones or zeros."""
    generator = torch.Generator().manual_seed(seed)
    gamma, beta = torch.randn(2, 1, width, generator=generator).to(dtype)
    return gamma, beta


def upload(tensor: torch.Tensor, device: Any) -> ttnn.Tensor:
    return ttnn.from_torch(tensor, layout=ttnn.ROW_MAJOR_LAYOUT, device=device, memory_config=ttnn.DRAM_MEMORY_CONFIG)


def allocate_like(tensor: ttnn.Tensor) -> ttnn.Tensor:
    return ttnn.allocate_tensor_on_device(
        tensor.shape, tensor.dtype, tensor.layout, tensor.device(), ttnn.DRAM_MEMORY_CONFIG
    )


def run_layernorm(
    device: Any,
    x: torch.Tensor,
    gamma: torch.Tensor | None,
    beta: torch.Tensor | None,
    epsilon: float = EPSILON,
    tap: Tap = Tap.NONE,
) -> torch.Tensor:
    """One launch, into an output of its own: (..., W) of x's dtype."""
    tensors = [None if t is None else upload(t, device) for t in (x, gamma, beta)]
    return ttnn.to_torch(LayerNormSingleCore.op(*tensors, allocate_like(tensors[0]), epsilon, tap=tap))


def run_rmsnorm(
    device: Any, x: torch.Tensor, gamma: torch.Tensor | None, epsilon: float = EPSILON, **rounded: bool
) -> torch.Tensor:
    """One launch, into an output of its own: (..., W) of x's dtype.

    Args:
        rounded: `RMSNorm.op`'s `round_before_gamma` and `round_inverse_rms`
    """
    tensors = [None if t is None else upload(t, device) for t in (x, gamma)]
    return ttnn.to_torch(RMSNormSingleCore.op(*tensors, allocate_like(tensors[0]), epsilon, **rounded))


def errors_of(y: torch.Tensor, golden: torch.Tensor, beta: torch.Tensor | None = None) -> Errors:
    """
    Args:
        y: (..., W), a norm from the device
        golden: (..., W) or broadcast to it, float64
        beta: (W,) or (1, W), what was added last, where it may cancel
    """
    golden = golden.expand(y.shape)
    if beta is None:
        return compare(y, golden)
    beta = beta.detach().double().flatten()
    return compare(y, golden, operands=(golden - beta).abs() + beta.abs())


def assert_equal_but_near_ties(
    y: torch.Tensor, golden: torch.Tensor, beta: torch.Tensor | None = None, *, least: float = 0.99, ulps: float = 1.0
) -> None:
    """That `y` is `golden` rounded once. All on the way is float32, so near-ties may go the other way: they are `ulps`
    off (with a beta, of what was added), and no more than 1 - `least` of the elements.

    Args: as `errors_of`'s, and
        least: share of the elements that must equal the rounded golden
        ulps: 2 where another rounding comes before the last one
    """
    errors = errors_of(y, golden, beta)
    assert errors.scaled <= ulps, errors
    assert errors.raw == 1.0 or beta is not None or ulps > 1.0, errors
    assert errors.equal >= least, errors
