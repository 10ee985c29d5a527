"""`TtLayerNorm`: an `nn.LayerNorm` whose forward runs on a Tenstorrent device."""

from pathlib import Path
from typing import Self

import torch
import ttnn

from integration.norm import TtNorm
from integration.recognize import ANY_DTYPES, Formula
from micro_ops.layernorm import LayerNormSingleCore


class TtLayerNorm(TtNorm):
    """LayerNorm over the last dimension, by `LayerNormSingleCore`; `TtNorm` says what it takes.

    >>> norm = TtLayerNorm.from_checkpoint(folder, "model.layers.3.self_attn.indexer.k_norm", device)  # doctest: +SKIP
    >>> norm(torch.randn(1, 48, 128, dtype=torch.bfloat16)).shape  # doctest: +SKIP
    torch.Size([1, 48, 128])

    """

    subtracts_mean = True

    def __init__(
        self, width: int, gamma: torch.Tensor | None, beta: torch.Tensor | None, eps: float, device: ttnn.Device
    ) -> None:
        """
        Args:
            width: W
            gamma, beta: (W,) bfloat16 or float32, or None for 1 and 0; kept as the Parameters `weight` and `bias`
            eps: positive and finite
            device: an open device
        Raises:
            ValueError: gamma or beta has another shape or dtype
        """
        names = (None if gamma is None else "weight", None if beta is None else "bias")
        super().__init__(Formula(width, eps, True, *names, 0.0, False, ANY_DTYPES), gamma, beta, device)

    @classmethod
    def from_checkpoint(
        cls,
        folder: str | Path,
        prefix: str,
        device: ttnn.Device,
        eps: float = 1e-6,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Self:
        """The LayerNorm whose `weight` and `bias` lie below `prefix` in the checkpoint `folder`.

        Args:
            eps: no config.json names the indexer's; the default is what DeepSeek's and HuggingFace's code hold fixed
            dtype: bfloat16 or float32, to which the weights are rounded, as HuggingFace does when it loads a model
        Raises:
            CheckpointError: the checkpoint can't be read, or has no such weight and bias
        """
        weights = cls._read(folder, prefix, ("weight", "bias"), dtype)
        return cls(weights["weight"].shape[-1], weights["weight"], weights["bias"], eps, device)

    def op(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return LayerNormSingleCore.op(x, self.gamma, self.beta, epsilon=self.epsilon)
