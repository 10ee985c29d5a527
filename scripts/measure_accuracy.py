#!/usr/bin/env python3
"""Measure the errors of our LayerNorm beside ttnn's own norms, as the table in micro_ops/layernorm/SPEC.md."""

from typing import TYPE_CHECKING, Annotated

import torch
import typer
from loguru import logger

from tt_device import PlatformError, find_platform

if TYPE_CHECKING:
    from integration.accuracy import Measurement

WIDTHS = (32, 64, 128, 256, 512, 1536, 7168)
DATA = ((0.5, 2.0), (1e4, 64.0))  # offset, standard deviation


def main(
    arch: Annotated[str | None, typer.Option(help="Of a simulator: blackhole or wormhole.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the device may be silent.")] = 300,
) -> None:
    """Print a Markdown table; takes a minute on ttsim, a quarter of an hour on wolfpine."""
    try:
        platform = find_platform(arch)
        logger.info(platform)
        from integration.accuracy import measure

        print("| type | offset | width | norm | exact | within 1 ULP | scaled ULP, max | max abs | relative norm |")
        print("|---|---|---|---|---|---|---|---|---|")
        with platform.open(timeout) as device:
            for dtype in (torch.bfloat16, torch.float32):
                for offset, std in DATA:
                    for width in WIDTHS:
                        for m in measure(device, width, 4 if width > 1024 else 32, dtype, offset, std):
                            print(_row(m), flush=True)
    except PlatformError as error:
        logger.error(f"error: {error}")
        raise typer.Exit(3) from error


def _row(m: "Measurement") -> str:
    e = m.errors
    figures = (f"{e.exact:.4f}", f"{e.raw:.4f}", f"{e.scaled:.2g}", f"{e.max_abs:.2g}", f"{e.relative_norm:.1e}")
    name = str(m.dtype).removeprefix("torch.")
    return f"| {name} | {m.offset:g} | {m.width} | {m.norm} | {' | '.join(figures)} |"


if __name__ == "__main__":
    typer.run(main)
