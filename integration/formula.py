# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""What a norm computes, and what of it the kernels can."""

import itertools
from dataclasses import dataclass

import torch
import ttnn

from micro_ops.layernorm import LayerNormSingleCore, RMSNormSingleCore
from micro_ops.layernorm.plan import Dtypes, least_l1_bytes

# Of the input and of the weights.
DTYPES = (torch.bfloat16, torch.float32)
ANY_DTYPES = frozenset(itertools.product(DTYPES, DTYPES))
TTNN_DTYPES = {torch.bfloat16: ttnn.bfloat16, torch.float32: ttnn.float32}


@dataclass(frozen=True)
class Formula:
    """What a module computes over the last dimension.

    Attributes:
        width: W; None where the input tells it, of a norm without weights
        epsilon: added to the variance or mean square
        subtract_mean: LayerNorm, else RMSNorm
        gamma, beta: names of the parameters (W,), or None where there is none
        gamma_offset: added to gamma; 1 where gamma is kept as its distance from 1
        round_before_gamma: the normalized value is rounded to bfloat16 before it is multiplied by gamma
        dtypes: pairs of the input's type and the weights', for which this holds; the output has the input's
        round_inverse_rms: 1 / rms is rounded to bfloat16 before x is multiplied by it
    """

    width: int | None
    epsilon: float
    subtract_mean: bool
    gamma: str | None
    beta: str | None
    gamma_offset: float
    round_before_gamma: bool
    dtypes: frozenset[tuple[torch.dtype, torch.dtype]]
    round_inverse_rms: bool = False

    @property
    def width_text(self) -> str:
        """As tables have it."""
        return "input's" if self.width is None else str(self.width)

    def golden(self, x: torch.Tensor, gamma: torch.Tensor | None, beta: torch.Tensor | None) -> torch.Tensor:
        """The norm of `x` (..., W) in float64, rounded to x's dtype on the way where the module does that.

        Args:
            gamma, beta: (W,), as the module keeps them
        """
        if gamma is not None:
            gamma = gamma.detach().double() + self.gamma_offset
        if self.subtract_mean:
            return LayerNormSingleCore.golden(x, gamma, None if beta is None else beta.detach(), self.epsilon)
        return RMSNormSingleCore.golden(
            x,
            gamma,
            self.epsilon,
            round_before_gamma=self.round_before_gamma,
            round_inverse_rms=self.round_inverse_rms,
        )


def too_wide(formula: Formula, weights_dtype: torch.dtype | None, available: int) -> str:
    """Why `available` bytes of L1 can't hold a row of any type that goes with weights of `weights_dtype`, or "". Where
    the input tells the width, each call tells it.

    Args:
        weights_dtype: None if there are none
    """
    if formula.width is None:
        return ""
    needed = min(
        least_l1_bytes(
            formula.width,
            Dtypes(
                TTNN_DTYPES[x],
                # An offset is added in float32.
                TTNN_DTYPES[torch.float32 if formula.gamma_offset else of_weights] if formula.gamma else None,
                TTNN_DTYPES[of_weights] if formula.beta else None,
            ),
        )
        for x, of_weights in formula.dtypes
        if weights_dtype in (None, of_weights)
    )
    if needed <= available:
        return ""
    return f"rows of {formula.width} elements need {needed} bytes of L1, but a core has {available} at most"
