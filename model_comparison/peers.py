# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Our norms and ttnn's own on the same data."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import ttnn

from integration import TtLayerNorm, TtNorm, TtRMSNorm
from model_comparison.metrics import Errors, compare

EPSILON = 1e-6


def exact_config(device: ttnn.Device) -> ttnn.DeviceComputeKernelConfig:
    """By which ttnn's ops are most exact: float32 Dest and HiFi4."""
    return ttnn.init_device_compute_kernel_config(
        device.arch(), math_fidelity=ttnn.MathFidelity.HiFi4, math_approx_mode=False, fp32_dest_acc_en=True
    )


@dataclass(frozen=True)
class Case:
    """x = offset + std * N(0, 1) of shape (rows, width), all of one dtype; gamma and beta N(0, 1), or none.

    Attributes:
        tiles: x and the result of ours are tiles, as of ttnn's; else sticks
        shards: columns and rows of cores over which they are sharded by width in L1; None: interleaved in DRAM
    """

    norm: Literal["LayerNorm", "RMSNorm"]
    rows: int
    width: int
    dtype: torch.dtype = torch.bfloat16
    offset: float = 0.5
    std: float = 2.0
    has_weights: bool = True
    tiles: bool = False
    shards: tuple[int, int] | None = None

    def __str__(self) -> str:
        dtype = "" if self.dtype == torch.bfloat16 else f" {str(self.dtype).removeprefix('torch.')}"
        weights = "" if self.has_weights else " without weights"
        tiles = " TILE" if self.tiles else ""
        shards = "" if self.shards is None else " on {} x {} shards".format(*self.shards)
        return f"{self.norm} [{self.rows}, {self.width}]{dtype}{weights}{tiles}{shards}"

    @property
    def weights(self) -> int:
        """How many it has, of `width` elements each."""
        return (2 if self.norm == "LayerNorm" else 1) if self.has_weights else 0


class Trial:
    """One case on a device, run by ours or by ttnn's.

    Args:
        cores: that ours takes at most; None leaves it the whole grid. ttnn's chooses by itself.
    """

    def __init__(self, case: Case, device: ttnn.Device, cores: int | None = None) -> None:
        self.case = case
        self.device = device
        generator = torch.Generator().manual_seed(case.width)
        x = torch.randn(case.rows, case.width, generator=generator) * case.std + case.offset
        self._x = x.to(case.dtype)
        weights = torch.randn(2, case.width, generator=generator).to(case.dtype)[: case.weights]
        self._gamma, self._beta = (*weights, None, None)[:2]
        self._is_layer_norm = case.norm == "LayerNorm"
        self._norm: TtNorm
        if self._is_layer_norm:
            self._norm = TtLayerNorm(case.width, self._gamma, self._beta, epsilon=EPSILON, device=device, cores=cores)
        else:
            self._norm = TtRMSNorm(
                case.width,
                self._gamma,
                epsilon=EPSILON,
                device=device,
                cores=cores,
                round_before_gamma=False,  # as ttnn's
            )

    def run_ours(self) -> ttnn.Tensor:
        """One launch, in and out as the case says."""
        return self._norm(self._upload_input(ttnn.TILE_LAYOUT if self.case.tiles else ttnn.ROW_MAJOR_LAYOUT))

    def run_ttnns(self) -> ttnn.Tensor:
        """One launch, tiles in and out, which ttnn is fastest with; with float32 Dest and HiFi4, without which its
        error is ten times as large."""
        config = exact_config(self.device)
        x = self._upload_input(ttnn.TILE_LAYOUT)
        gamma, beta = (
            None if weight is None else self._upload(weight.reshape(1, -1), ttnn.TILE_LAYOUT)
            for weight in (self._gamma, self._beta)
        )
        sharded = (
            {"memory_config": x.memory_config(), "program_config": self._sharded_config()} if self.case.shards else {}
        )
        if self._is_layer_norm:
            return ttnn.layer_norm(x, epsilon=EPSILON, weight=gamma, bias=beta, compute_kernel_config=config, **sharded)
        return ttnn.rms_norm(x, epsilon=EPSILON, weight=gamma, compute_kernel_config=config, **sharded)

    def _sharded_config(self) -> ttnn.LayerNormShardedMultiCoreProgramConfig:
        """By which ttnn takes the same shards: with as many tiles at a time as float32 Dest holds."""
        assert self.case.shards
        columns, rows = self.case.shards
        tiles = self.case.width // 32 // (columns * rows)
        return ttnn.LayerNormShardedMultiCoreProgramConfig(
            compute_with_storage_grid_size=(columns, rows),
            subblock_w=max(size for size in (1, 2, 3, 4) if tiles % size == 0),
            block_h=math.ceil(self.case.rows / 32),
            block_w=tiles,
            inplace=False,
        )

    def errors(self, y: ttnn.Tensor) -> Errors:
        """Of a result, against float64."""
        golden = self._norm.formula.golden(self._x, self._gamma, self._beta)
        beta = self._beta
        operands = None if beta is None else (golden - beta.double()).abs() + beta.double().abs()
        return compare(ttnn.to_torch(y), golden, operands)

    def _upload_input(self, layout: ttnn.Layout) -> ttnn.Tensor:
        if self.case.shards is None:
            return self._upload(self._x, layout)
        columns, rows = self.case.shards
        height = 32 * math.ceil(self.case.rows / 32) if layout == ttnn.TILE_LAYOUT else self.case.rows
        memory = ttnn.create_sharded_memory_config(
            (1, 1, height, self.case.width),
            ttnn.CoreGrid(x=columns, y=rows),
            ttnn.ShardStrategy.WIDTH,
        )
        return ttnn.from_torch(self._x, layout=layout, device=self.device, memory_config=memory)

    def _upload(self, tensor: torch.Tensor, layout: ttnn.Layout) -> ttnn.Tensor:
        return ttnn.from_torch(tensor, layout=layout, device=self.device, memory_config=ttnn.DRAM_MEMORY_CONFIG)
