"""`TtRMSNorm`: an RMSNorm of transformers whose forward runs on a Tenstorrent device."""

from typing import Self

import torch
import ttnn
from torch import nn

from integration.norm import TtNorm
from micro_ops.layernorm.op import RMSNormSingleCore

EPS_NAMES = ("variance_epsilon", "eps")  # what transformers' RMSNorms and torch's call it


class TtRMSNorm(TtNorm):
    """RMSNorm over the last dimension, by `RMSNormSingleCore`; `TtNorm` says what it takes.

    Attributes:
        gamma: (1, W) row-major bfloat16 or float32 in DRAM
        round_before_gamma: see `RMSNormSingleCore.op`
    """

    def __init__(self, gamma: torch.Tensor, eps: float, device: ttnn.Device, round_before_gamma: bool = True) -> None:
        """
        Args:
            gamma: (W,) bfloat16 or float32
            eps: positive and finite
            device: an open device
            round_before_gamma: True is HuggingFace's order of rounding, False DeepSeek's own
        Raises:
            ValueError: gamma has another shape or dtype
        """
        super().__init__(gamma.shape[-1] if gamma.ndim else 0, eps, device)
        self.gamma = self._upload_weight("gamma", gamma)
        self.round_before_gamma = round_before_gamma

    @classmethod
    def from_torch(cls, layer: nn.Module, device: ttnn.Device) -> Self:
        """The same norm as `layer`, an RMSNorm as transformers writes them, of whose weight it takes a copy.

        Raises:
            ValueError: `layer` has no weight, or no eps under a known name
        """
        weight = getattr(layer, "weight", None)
        eps = next((getattr(layer, name) for name in EPS_NAMES if hasattr(layer, name)), None)
        if not isinstance(weight, torch.Tensor) or eps is None:
            raise ValueError(f"an RMSNorm must have a weight and one of {', '.join(EPS_NAMES)}, but got {layer}")
        return cls(weight, eps, device)

    def op(self, x: ttnn.Tensor, y: ttnn.Tensor) -> ttnn.Tensor:
        return RMSNormSingleCore.op(x, self.gamma, y, self.eps, self.round_before_gamma)
