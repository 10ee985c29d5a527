"""What `TtLayerNorm` and `TtRMSNorm` share: weights on the device, and tensors of both kinds through the op."""

import math
from abc import abstractmethod

import torch
import ttnn
from torch import nn

DTYPES = (torch.bfloat16, torch.float32)


class TtNorm(nn.Module):
    """A norm over the last dimension, by kernels on `device`.

    Takes a torch tensor or a ttnn tensor of shape (..., W), bfloat16 or float32, and gives back the same kind, shape
    and dtype. A ttnn tensor must be row-major and interleaved in DRAM. The weights are uploaded once.

    Attributes:
        width: W
        eps: added to the mean square
        launches: how many times the kernels ran for this module
    """

    def __init__(self, width: int, eps: float, device: ttnn.Device) -> None:
        super().__init__()
        self.width = width
        self.eps = eps
        self.device = device
        self.launches = 0

    @abstractmethod
    def op(self, x: ttnn.Tensor, y: ttnn.Tensor) -> ttnn.Tensor:
        """Writes the norm of `x` to `y`, and returns it."""

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

    def _upload_weight(self, name: str, weight: torch.Tensor | None) -> ttnn.Tensor | None:
        """(1, W) row-major in DRAM, of the weight's dtype.

        Raises:
            ValueError: the weight is not (W,) bfloat16 or float32
        """
        if weight is None:
            return None
        if tuple(weight.shape) != (self.width,) or weight.dtype not in DTYPES:
            raise ValueError(
                f"{name} must have shape ({self.width},) and dtype bfloat16 or float32,"
                f" but has {tuple(weight.shape)} and {weight.dtype}"
            )
        return self._upload(weight.detach().reshape(1, self.width))

    def _launch(self, x: ttnn.Tensor) -> ttnn.Tensor:
        y = ttnn.allocate_tensor_on_device(
            x.shape, x.dtype, ttnn.ROW_MAJOR_LAYOUT, self.device, ttnn.DRAM_MEMORY_CONFIG
        )
        y = self.op(x, y)
        self.launches += 1
        return y

    def _upload(self, tensor: torch.Tensor) -> ttnn.Tensor:
        return ttnn.from_torch(
            tensor.contiguous(),
            layout=ttnn.ROW_MAJOR_LAYOUT,
            device=self.device,
            memory_config=ttnn.DRAM_MEMORY_CONFIG,
        )
