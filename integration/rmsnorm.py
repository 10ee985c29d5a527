"""`TtRMSNorm`: an RMSNorm whose forward runs on a Tenstorrent device."""

from pathlib import Path
from typing import Self

import torch
import ttnn

from integration.norm import TtNorm
from integration.recognize import ANY_DTYPES, Formula
from micro_ops.layernorm import RMSNormSingleCore


class TtRMSNorm(TtNorm):
    """RMSNorm over the last dimension, by `RMSNormSingleCore`; `TtNorm` says what it takes."""

    subtracts_mean = False

    def __init__(self, gamma: torch.Tensor, eps: float, device: ttnn.Device, round_before_gamma: bool = True) -> None:
        """
        Args:
            gamma: (W,) bfloat16 or float32; kept as the Parameter `weight`
            eps: positive and finite
            device: an open device
            round_before_gamma: True is HuggingFace's order of rounding, False DeepSeek's own
        Raises:
            ValueError: gamma has another shape or dtype
        """
        width = gamma.shape[-1] if gamma.ndim else 0
        super().__init__(
            Formula(width, eps, False, "weight", None, 0.0, round_before_gamma, ANY_DTYPES), gamma, None, device
        )

    @classmethod
    def from_checkpoint(
        cls,
        folder: str | Path,
        prefix: str,
        device: ttnn.Device,
        eps: float = 1e-6,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Self:
        """The RMSNorm whose `weight` lies below `prefix` in the checkpoint `folder`, in HuggingFace's order.

        Args:
            eps: the default is DeepSeek's `rms_norm_eps`, and what HuggingFace's code takes for q_a and kv_a
            dtype: bfloat16 or float32, to which the weight is rounded, as HuggingFace does when it loads a model
        Raises:
            CheckpointError: the checkpoint can't be read, or has no such weight
        """
        return cls(cls._read(folder, prefix, ("weight",), dtype)["weight"], eps, device)

    def op(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return RMSNormSingleCore.op(
            x, self.gamma, epsilon=self.epsilon, round_before_gamma=self.formula.round_before_gamma
        )
