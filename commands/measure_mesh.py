# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Measure norms whose columns are cut over chips beside ttnn's own, as the table in docs/performance.md."""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from loguru import logger

from common.command import ExitCode, start
from tt_device import Arch, PlatformError, as_mesh, find_platform

if TYPE_CHECKING:
    import ttnn

SHAPES = ((32, 7168), (1, 7168), (32, 1536))
DATA = ((0.5, 2.0), (1e4, 64.0))  # offset, standard deviation
NORMS = ("LayerNorm", "RMSNorm")
EPSILON = 1e-6
TILE_BYTES = {"bfloat16": 2048, "float32": 4096}

app = typer.Typer(add_completion=False)


@app.command()
def main(
    mesh: Annotated[str, typer.Option(help="Chips in a row, as 1x2: over them the columns are cut.")] = "1x2",
    arch: Annotated[Arch | None, typer.Option(help="Default: what the device is.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the device may be silent.")] = 300,
) -> None:
    """Print a Markdown table: ours, and ttnn's, three ops or one, as tt-metal's demos call them and as exactly as they
    can."""
    try:
        chips = as_mesh(mesh)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--mesh") from None
    try:
        platform = find_platform(arch)
        logger.info(platform)
        from model_comparison.metrics import compare

        print("| norm | shape | offset | by | exact | scale | max abs | launches | bytes a chip over the fabric |")
        print("|---|---|---|---|---|---|---|---|---|")
        with platform.open(timeout, mesh=chips) as device:
            for norm, (rows, width), (offset, std) in product(NORMS, SHAPES, DATA):
                trial = Trial(norm, rows, width, offset, std, device)
                for way, launches, sent, y in trial.results():
                    if y is None:
                        print(f"| {norm} | [{rows}, {width}] | {offset:g} | {way} | does not run | | | | |", flush=True)
                        continue
                    errors = compare(y, trial.golden)
                    scale = float((y.double() * trial.golden).sum() / trial.golden.square().sum())
                    print(
                        f"| {norm} | [{rows}, {width}] | {offset:g} | {way} | {errors.equal:.4f} | {scale:.4f}"
                        f" | {errors.max_abs:.2g} | {launches} | {sent} |",
                        flush=True,
                    )
    except (PlatformError, ValueError) as error:
        logger.error(f"error: {error}")
        raise typer.Exit(ExitCode.NO_DEVICE) from error


class Trial:
    """One norm of one random input, columns over all chips of a row.

    Attributes:
        golden: (rows, width) float64
    """

    def __init__(self, norm: str, rows: int, width: int, offset: float, std: float, device: Any) -> None:
        from integration import TtLayerNorm, TtRMSNorm

        generator = torch.Generator().manual_seed(width)
        self._norm, self._device, self._rows = norm, device, rows
        self._x = (torch.randn(rows, width, generator=generator) * std + offset).bfloat16()
        self._gamma, self._beta = torch.randn(2, width, generator=generator).bfloat16()
        if norm == "LayerNorm":
            self._ours: Any = TtLayerNorm(width, self._gamma, self._beta, epsilon=EPSILON, device=device, mesh_axis=1)
        else:
            self._ours = TtRMSNorm(
                width, self._gamma, epsilon=EPSILON, device=device, mesh_axis=1, round_before_gamma=False
            )
        beta = self._beta if norm == "LayerNorm" else None
        self.golden: torch.Tensor = self._ours.formula.golden(self._x, self._gamma, beta)

    def results(self) -> Iterator[tuple[str, int, int, torch.Tensor | None]]:
        """By whom; launches, and bytes that a chip sends each other; and (rows, width), None where ttnn can't."""
        import ttnn

        from micro_ops.layernorm.program import statistics_shape
        from model_comparison.peers import exact_config

        yield "ours", 3, 4 * math.prod(statistics_shape(self._rows)), self._ours(self._x)
        exact = exact_config(self._device)
        tiles = (2 if self._norm == "LayerNorm" else 1) * -(-self._rows // 32)
        for way, dtype, config in (("ttnn, its defaults", "bfloat16", None), ("ttnn, float32", "float32", exact)):
            try:
                y = self._run_ttnns(getattr(ttnn, dtype), config)
            except RuntimeError as error:
                logger.debug(error)
                y = None
            yield way, 3, tiles * TILE_BYTES[dtype], y
        if self._norm == "RMSNorm":
            for way, dtype, config in (("ttnn, fused", "bfloat16", None), ("ttnn, fused, float32", "float32", exact)):
                yield way, 1, TILE_BYTES[dtype], self._run_fused(getattr(ttnn, dtype), config)

    def _run_fused(self, dtype: "ttnn.DataType", config: Any) -> torch.Tensor:
        """`ttnn.fused_rms_minimal` on shards, as tt-metal's decoders call it."""
        import ttnn

        chips = self._device.get_num_devices()
        tiles = self._x.shape[-1] // chips // 32  # of a chip's columns
        columns, rows = next(grid for grid in ((7, 4), (4, 2), (4, 1)) if tiles % math.prod(grid) == 0)
        cores = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(columns - 1, rows - 1))])
        one_core = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(0, 0))])
        width = tiles // (columns * rows) * 32

        def sharded(width: int, cores: ttnn.CoreRangeSet) -> ttnn.MemoryConfig:
            return ttnn.create_sharded_memory_config(
                (32, width), cores, ttnn.ShardStrategy.WIDTH, use_height_and_width_as_shard_shape=True
            )

        memory, of_statistics = sharded(width, cores), sharded(32 * chips, one_core)
        y = ttnn.fused_rms_minimal(
            self._upload(self._x.reshape(1, 1, -1, self._x.shape[-1]), memory),
            ttnn.LayerNormShardedMultiCoreProgramConfig(
                compute_with_storage_grid_size=(columns, rows),
                subblock_w=1,
                block_h=1,
                block_w=width // 32,
                inplace=False,
            ),
            1,  # the mesh's axis
            self._device,
            ttnn.create_global_semaphore(self._device, cores, 0),
            topology=ttnn.Topology.Linear,
            epsilon=EPSILON,
            weight=ttnn.from_torch(
                self._gamma.reshape(1, 1, -1, 32),
                layout=ttnn.ROW_MAJOR_LAYOUT,
                device=self._device,
                memory_config=ttnn.DRAM_MEMORY_CONFIG,
                mesh_mapper=ttnn.ShardTensorToMesh(self._device, dim=2),
            ),
            stats=ttnn.from_torch(
                torch.zeros(1, 1, 32, 32 * chips),
                dtype=dtype,
                layout=ttnn.TILE_LAYOUT,
                device=self._device,
                memory_config=of_statistics,
                mesh_mapper=ttnn.ReplicateTensorToMesh(self._device),
            ),
            memory_config=memory,
            **({} if config is None else {"compute_kernel_config": config}),
        )
        return self._compose(y)

    def _run_ttnns(self, dtype: "ttnn.DataType", config: Any) -> torch.Tensor:
        import ttnn

        name = "layer_norm" if self._norm == "LayerNorm" else "rms_norm"
        before: Callable[..., Any] = getattr(ttnn, f"{name}_pre_all_gather")
        after: Callable[..., Any] = getattr(ttnn, f"{name}_post_all_gather")
        keywords = {} if config is None else {"compute_kernel_config": config}
        x, gamma, beta = (self._upload(t.reshape(1, 1, -1, t.shape[-1])) for t in (self._x, self._gamma, self._beta))
        weights = {"weight": gamma} | ({"bias": beta} if name == "layer_norm" else {})
        statistics = ttnn.all_gather(before(x, dtype=dtype, **keywords), dim=3, cluster_axis=1)
        y = after(x, statistics, epsilon=EPSILON, **weights, **keywords)
        return self._compose(y)

    def _compose(self, y: "ttnn.Tensor") -> torch.Tensor:
        import ttnn

        composed: torch.Tensor = ttnn.to_torch(y, mesh_composer=ttnn.ConcatMeshToTensor(self._device, dim=3))
        return composed.reshape(self._x.shape)

    def _upload(self, tensor: torch.Tensor, memory: "ttnn.MemoryConfig | None" = None) -> "ttnn.Tensor":
        import ttnn

        return ttnn.from_torch(
            tensor,
            layout=ttnn.TILE_LAYOUT,
            device=self._device,
            memory_config=memory or ttnn.DRAM_MEMORY_CONFIG,
            mesh_mapper=ttnn.ShardTensorToMesh(self._device, dim=3),
        )


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=True)


if __name__ == "__main__":
    run()
