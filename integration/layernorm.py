"""`TtLayerNorm`: an `nn.LayerNorm` whose forward runs on a Tenstorrent device."""

import math
from pathlib import Path
from typing import Self

import torch
import ttnn
from torch import nn

from micro_ops.layernorm.op import LayerNormSingleCore
from weights_tools import Checkpoint, CheckpointError


class TtLayerNorm(nn.Module):
    """LayerNorm over the last dimension, by `LayerNormSingleCore` on `device`.

    Takes a torch tensor or a ttnn tensor of shape (..., W) and gives back the same kind, shape and dtype (bfloat16).
    A ttnn tensor must be row-major and interleaved in DRAM. The weights are rounded to bfloat16 and uploaded once.

    >>> norm = TtLayerNorm.from_checkpoint(folder, "model.layers.3.self_attn.indexer.k_norm", device)  # doctest: +SKIP
    >>> norm(torch.randn(1, 48, 128, dtype=torch.bfloat16)).shape  # doctest: +SKIP
    torch.Size([1, 48, 128])

    Attributes:
        gamma, beta: (1, W) row-major bfloat16 in DRAM
        eps: added to the variance
        launches: how many times the kernels ran for this module
    """

    def __init__(self, gamma: torch.Tensor, beta: torch.Tensor, eps: float, device: ttnn.Device) -> None:
        """
        Args:
            gamma, beta: (W,) of any float dtype
            eps: positive and finite
            device: an open device
        Raises:
            ValueError: gamma and beta are not of one shape (W,)
        """
        super().__init__()
        if gamma.ndim != 1 or gamma.shape != beta.shape:
            raise ValueError(
                f"gamma and beta must have one shape (W,), but gamma.shape={tuple(gamma.shape)}"
                f" and beta.shape={tuple(beta.shape)}"
            )
        self.device = device
        self.width = gamma.shape[0]
        self.eps = eps
        self.launches = 0
        self.gamma = self._upload(gamma.detach().reshape(1, -1))
        self.beta = self._upload(beta.detach().reshape(1, -1))

    @classmethod
    def from_checkpoint(cls, folder: str | Path, prefix: str, device: ttnn.Device, eps: float = 1e-6) -> Self:
        """The LayerNorm whose `weight` and `bias` lie below `prefix` in the checkpoint `folder`.

        Args:
            eps: no config.json names the indexer's; the default is what DeepSeek's and HuggingFace's code hold fixed
        Raises:
            CheckpointError: the checkpoint can't be read, or has no such weight and bias
        """
        weights = Checkpoint(folder).tensors(prefix)
        if weights.keys() != {"weight", "bias"}:
            raise CheckpointError(f"{folder}: {prefix} must hold weight and bias, but holds {', '.join(weights)}")
        return cls(weights["weight"], weights["bias"], eps, device)

    @classmethod
    def from_torch(cls, layer: nn.LayerNorm, device: ttnn.Device) -> Self:
        """The same norm as `layer`, of whose weights it takes a copy.

        Raises:
            ValueError: `layer` normalizes more than the last dimension, or lacks its weight or bias
        """
        if len(layer.normalized_shape) != 1:
            raise ValueError(f"normalized_shape must be (W,), but is {layer.normalized_shape}")
        if layer.weight is None or layer.bias is None:
            raise ValueError(f"the layer must have weight and bias, but is {layer}")
        return cls(layer.weight, layer.bias, layer.eps, device)

    def forward[T: (torch.Tensor, ttnn.Tensor)](self, x: T) -> T:
        """
        Args:
            x: (..., W) bfloat16
        Raises:
            ValueError: another width or dtype
            LayerNormArgumentError: a ttnn tensor that is not row-major and interleaved in DRAM
        """
        if not isinstance(x, torch.Tensor):
            return self._launch(x)
        if x.ndim == 0 or x.shape[-1] != self.width or x.dtype != torch.bfloat16:
            raise ValueError(
                f"x must have shape (..., {self.width}) and dtype torch.bfloat16,"
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
            x.shape, ttnn.bfloat16, ttnn.ROW_MAJOR_LAYOUT, self.device, ttnn.DRAM_MEMORY_CONFIG
        )
        y = LayerNormSingleCore.op(x, self.gamma, self.beta, y, self.eps)
        self.launches += 1
        return y

    def _upload(self, tensor: torch.Tensor) -> ttnn.Tensor:
        return ttnn.from_torch(
            tensor.to(torch.bfloat16).contiguous(),
            layout=ttnn.ROW_MAJOR_LAYOUT,
            device=self.device,
            memory_config=ttnn.DRAM_MEMORY_CONFIG,
        )
