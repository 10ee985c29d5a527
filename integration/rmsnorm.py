# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""`TtRMSNorm`: an RMSNorm whose forward runs on a Tenstorrent device."""

from typing import Any

import torch
import ttnn

from integration.norm import TtNorm
from micro_ops.layernorm import Cores, Prepared, RMSNorm


class TtRMSNorm(TtNorm):
    """RMSNorm over the last dimension, by `RMSNorm`; `TtNorm` says what it takes."""

    subtracts_mean = False
    weight_names = ("weight",)

    def __init__(
        self,
        width: int | None,
        gamma: torch.Tensor | None = None,
        *,
        epsilon: float,
        device: ttnn.Device,
        cores: Cores = None,
        mesh_axis: int | None = None,
        round_before_gamma: bool = True,
        round_inverse_rms: bool = False,
    ) -> None:
        """
        Args:
            width: W, or None without weights: that of each call's input
            gamma: (W,) bfloat16 or float32, or None for 1; kept as the Parameter `weight`
            epsilon: positive and finite in float32, or each call raises
            device: an open device
            cores: at most so many of its cores, or none but these; None allows all
            mesh_axis: of the device's mesh, 0 or 1: over its chips, 1, 2, 4 or 8, the columns are cut. None leaves each
                chip all of a row
            round_before_gamma: True is HuggingFace's order of rounding, False DeepSeek's own
            round_inverse_rms: True is the order of HuggingFace's DeepSeek-V4 where a norm has no weight
        Raises:
            ValueError: gamma has another shape or dtype, or the columns can't be cut so
            RuntimeError: the device is closed
        """
        super().__init__(
            width,
            gamma,
            epsilon=epsilon,
            device=device,
            cores=cores,
            mesh_axis=mesh_axis,
            round_before_gamma=round_before_gamma,
            round_inverse_rms=round_inverse_rms,
        )

    def _prepare(self, x: ttnn.Tensor, **keywords: Any) -> Prepared:
        return RMSNorm.prepare(x, self.gamma, **self._given(), **keywords)

    def _normalize_with(self, x: ttnn.Tensor, statistics: ttnn.Tensor, **keywords: Any) -> ttnn.Tensor:
        return RMSNorm.normalize_with(x, statistics, self.gamma, **self._given(), **keywords)

    def _given(self) -> dict[str, Any]:
        """What both take beside tensors."""
        return {
            "epsilon": self.epsilon,
            "cores": self.cores,
            "round_before_gamma": self.formula.round_before_gamma,
            "round_inverse_rms": self.formula.round_inverse_rms,
        }
