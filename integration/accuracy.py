"""Errors of our norm and of ttnn's own on the same data."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import ttnn

from integration.layernorm import TtLayerNorm
from integration.metrics import Errors, compare
from micro_ops.layernorm.op import LayerNormSingleCore

EPS = 1e-6


@dataclass(frozen=True)
class Measurement:
    norm: str
    dtype: torch.dtype
    width: int
    offset: float
    errors: Errors


def measure(
    device: ttnn.Device, width: int, rows: int, dtype: torch.dtype, offset: float, std: float
) -> list[Measurement]:
    """Errors against float64 on x = offset + std * N(0, 1) of shape (rows, width), gamma and beta N(0, 1).

    ttnn's norms get tiles, float32 Dest and HiFi4: without them their error is ten times as large.
    """
    generator = torch.Generator().manual_seed(width)
    x = (torch.randn(rows, width, generator=generator) * std + offset).to(dtype)
    gamma, beta = torch.randn(2, width, generator=generator).to(dtype)
    layer_norm = LayerNormSingleCore.golden(x, gamma, beta, EPS)
    layer_norm_operands = (layer_norm - beta.double()).abs() + beta.double().abs()
    rms_norm = x.double() * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + EPS) * gamma.double()
    results: list[tuple[str, Callable[[], torch.Tensor], torch.Tensor, torch.Tensor]] = [
        ("ours", lambda: TtLayerNorm(width, gamma, beta, EPS, device)(x), layer_norm, layer_norm_operands),
        (
            "ttnn.layer_norm",
            lambda: _peer(ttnn.layer_norm, device, x, weight=gamma, bias=beta),
            layer_norm,
            layer_norm_operands,
        ),
        ("ttnn.rms_norm", lambda: _peer(ttnn.rms_norm, device, x, weight=gamma), rms_norm, rms_norm.abs()),
    ]
    return [
        Measurement(name, dtype, width, offset, compare(run(), reference, operands))
        for name, run, reference, operands in results
    ]


def _peer(
    norm: Callable[..., ttnn.Tensor], device: ttnn.Device, x: torch.Tensor, **weights: torch.Tensor
) -> torch.Tensor:
    def upload(tensor: torch.Tensor) -> ttnn.Tensor:
        return ttnn.from_torch(tensor, layout=ttnn.TILE_LAYOUT, device=device, memory_config=ttnn.DRAM_MEMORY_CONFIG)

    config = ttnn.init_device_compute_kernel_config(
        device.arch(), math_fidelity=ttnn.MathFidelity.HiFi4, math_approx_mode=False, fp32_dest_acc_en=True
    )
    uploaded = {name: upload(weight.reshape(1, -1)) for name, weight in weights.items()}
    result: torch.Tensor = ttnn.to_torch(norm(upload(x), epsilon=EPS, compute_kernel_config=config, **uploaded))
    return result
