# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""`TtLayerNorm`: an `nn.LayerNorm` whose forward runs on a Tenstorrent device."""

from typing import Any

import torch
import ttnn

from integration.norm import TtNorm
from micro_ops.layernorm import Cores, LayerNorm, Prepared


class TtLayerNorm(TtNorm):
    """LayerNorm over the last dimension, by `LayerNorm`; `TtNorm` says what it takes.

    >>> name = "model.layers.3.self_attn.indexer.k_norm"
    >>> norm = TtLayerNorm.from_checkpoint(folder, name, device=device)  # doctest: +SKIP
    >>> norm(torch.randn(1, 48, 128, dtype=torch.bfloat16)).shape        # doctest: +SKIP
    torch.Size([1, 48, 128])

    """

    subtracts_mean = True
    weight_names = ("weight", "bias")

    def __init__(
        self,
        width: int | None,
        gamma: torch.Tensor | None = None,
        beta: torch.Tensor | None = None,
        *,
        epsilon: float,
        device: ttnn.Device,
        cores: Cores = None,
        mesh_axis: int | None = None,
    ) -> None:
        """
        Args:
            width: W, or None without weights: that of each call's input
            gamma, beta: (W,) bfloat16 or float32, or None for 1 and 0; kept as the Parameters `weight` and `bias`
            epsilon: positive and finite in float32, or each call raises
            device: an open device
            cores: at most so many of its cores, or none but these; None allows all
            mesh_axis: of the device's mesh, 0 or 1: over its chips, 1, 2, 4 or 8, the columns are cut. None leaves each
                chip all of a row
        Raises:
            ValueError: gamma or beta has another shape or dtype, or the columns can't be cut so
            RuntimeError: the device is closed
        """
        super().__init__(
            width,
            gamma,
            beta,
            epsilon=epsilon,
            device=device,
            cores=cores,
            mesh_axis=mesh_axis,
            round_before_gamma=False,
            round_inverse_rms=False,
        )

    def _prepare(self, x: ttnn.Tensor, **keywords: Any) -> Prepared:
        return LayerNorm.prepare(x, self.gamma, self.beta, epsilon=self.epsilon, cores=self.cores, **keywords)

    def _normalize_with(self, x: ttnn.Tensor, statistics: ttnn.Tensor, **keywords: Any) -> ttnn.Tensor:
        return LayerNorm.normalize_with(
            x, statistics, self.gamma, self.beta, epsilon=self.epsilon, cores=self.cores, **keywords
        )
