"""`TtLayerNorm`: an `nn.LayerNorm` whose forward runs on a Tenstorrent device."""

import math
from pathlib import Path
from typing import Self

import torch
import ttnn
from torch import nn

from micro_ops.layernorm.op import LayerNormSingleCore
from weights_tools import Checkpoint, CheckpointError

DTYPES = (torch.bfloat16, torch.float32)


class TtLayerNorm(nn.Module):
    """LayerNorm over the last dimension, by `LayerNormSingleCore` on `device`.

    Takes a torch tensor or a ttnn tensor of shape (..., W), bfloat16 or float32, and gives back the same kind, shape
    and dtype. A ttnn tensor must be row-major and interleaved in DRAM. The weights are uploaded once.

    >>> norm = TtLayerNorm.from_checkpoint(folder, "model.layers.3.self_attn.indexer.k_norm", device)  # doctest: +SKIP
    >>> norm(torch.randn(1, 48, 128, dtype=torch.bfloat16)).shape  # doctest: +SKIP
    torch.Size([1, 48, 128])

    Attributes:
        gamma, beta: (1, W) row-major bfloat16 or float32 in DRAM, or None
        eps: added to the variance
        launches: how many times the kernels ran for this module
    """

    def __init__(
        self, width: int, gamma: torch.Tensor | None, beta: torch.Tensor | None, eps: float, device: ttnn.Device
    ) -> None:
        """
        Args:
            width: W
            gamma, beta: (W,) bfloat16 or float32, or None for 1 and 0
            eps: positive and finite
            device: an open device
        Raises:
            ValueError: gamma or beta has another shape or dtype
        """
        super().__init__()
        for name, weight in (("gamma", gamma), ("beta", beta)):
            if weight is not None and (tuple(weight.shape) != (width,) or weight.dtype not in DTYPES):
                raise ValueError(
                    f"{name} must have shape ({width},) and dtype bfloat16 or float32,"
                    f" but has {tuple(weight.shape)} and {weight.dtype}"
                )
        self.device = device
        self.width = width
        self.eps = eps
        self.launches = 0
        self.gamma, self.beta = (
            None if weight is None else self._upload(weight.detach().reshape(1, width)) for weight in (gamma, beta)
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
        """The LayerNorm whose `weight` and `bias` lie below `prefix` in the checkpoint `folder`.

        Args:
            eps: no config.json names the indexer's; the default is what DeepSeek's and HuggingFace's code hold fixed
            dtype: bfloat16 or float32, to which the weights are rounded, as HuggingFace does when it loads a model
        Raises:
            CheckpointError: the checkpoint can't be read, or has no such weight and bias
        """
        weights = Checkpoint(folder).tensors(prefix)
        if weights.keys() != {"weight", "bias"}:
            raise CheckpointError(f"{folder}: {prefix} must hold weight and bias, but holds {', '.join(weights)}")
        gamma, beta = weights["weight"].to(dtype), weights["bias"].to(dtype)
        return cls(gamma.shape[-1], gamma, beta, eps, device)

    @classmethod
    def from_torch(cls, layer: nn.LayerNorm, device: ttnn.Device) -> Self:
        """The same norm as `layer`, of whose weights it takes a copy.

        Raises:
            ValueError: `layer` normalizes more than the last dimension
        """
        if len(layer.normalized_shape) != 1:
            raise ValueError(f"normalized_shape must be (W,), but is {layer.normalized_shape}")
        return cls(layer.normalized_shape[0], layer.weight, layer.bias, layer.eps, device)

    def forward[T: (torch.Tensor, ttnn.Tensor)](self, x: T) -> T:
        """
        Args:
            x: (..., W) bfloat16 or float32
        Raises:
            ValueError: another width or dtype
            LayerNormArgumentError: a ttnn tensor that is not row-major and interleaved in DRAM
        """
        if not isinstance(x, torch.Tensor):
            return self._launch(x)
        if x.ndim == 0 or x.shape[-1] != self.width or x.dtype not in DTYPES:
            raise ValueError(
                f"x must have shape (..., {self.width}) and dtype bfloat16 or float32,"
                f" but x.shape={tuple(x.shape)} and x.dtype={x.dtype}"
            )
        rows = math.prod(x.shape[:-1])
        if rows == 0:
            return torch.empty_like(x)
        y: torch.Tensor = ttnn.to_torch(self._launch(self._upload(x.detach().reshape(rows, self.width))))
        return y.reshape(x.shape)

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}, launches={self.launches}"

    def _launch(self, x: ttnn.Tensor) -> ttnn.Tensor:
        y = ttnn.allocate_tensor_on_device(
            x.shape, x.dtype, ttnn.ROW_MAJOR_LAYOUT, self.device, ttnn.DRAM_MEMORY_CONFIG
        )
        y = LayerNormSingleCore.op(x, self.gamma, self.beta, y, self.eps)
        self.launches += 1
        return y

    def _upload(self, tensor: torch.Tensor) -> ttnn.Tensor:
        return ttnn.from_torch(
            tensor.contiguous(),
            layout=ttnn.ROW_MAJOR_LAYOUT,
            device=self.device,
            memory_config=ttnn.DRAM_MEMORY_CONFIG,
        )
