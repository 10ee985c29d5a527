# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the errors of our norms beside ttnn's own, as the table in docs/accuracy.md."""

from itertools import product
from typing import Annotated, Literal

import torch
import typer
from loguru import logger

from common.command import ExitCode, start
from tt_device import Arch, PlatformError, find_platform

DTYPES = (torch.bfloat16, torch.float32)
WIDTHS = (32, 64, 128, 256, 512, 1536, 7168)
NORMS: dict[Literal["LayerNorm", "RMSNorm"], str] = {"LayerNorm": "ttnn.layer_norm", "RMSNorm": "ttnn.rms_norm"}
DATA = ((0.5, 2.0), (1e4, 64.0))  # offset, standard deviation


app = typer.Typer(add_completion=False)


@app.command()
def main(
    arch: Annotated[Arch | None, typer.Option(help="Default: what the device is; blackhole for wolfpine.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the device may be silent.")] = 300,
) -> None:
    """Print a Markdown table; takes a minute on ttsim, a quarter of an hour on wolfpine."""
    try:
        platform = find_platform(arch)
        logger.info(platform)
        from model_comparison.peers import Case, Trial

        print("| type | offset | width | norm | exact | within 1 ULP | scaled ULP, max | max abs | relative norm |")
        print("|---|---|---|---|---|---|---|---|---|")
        with platform.open(timeout) as device:
            for dtype, (offset, std), width, norm in product(DTYPES, DATA, WIDTHS, NORMS):
                trial = Trial(Case(norm, 4 if width > 1024 else 32, width, dtype, offset, std), device)
                for name, run in ((f"Tt{norm}", trial.run_ours), (NORMS[norm], trial.run_ttnns)):
                    e = trial.errors(run())
                    print(
                        f"| {str(dtype).removeprefix('torch.')} | {offset:g} | {width} | {name} | {e.equal:.4f}"
                        f" | {e.raw:.4f} | {e.scaled:.2g} | {e.max_abs:.2g} | {e.relative_norm:.1e} |",
                        flush=True,
                    )
    except PlatformError as error:
        logger.error(f"error: {error}")
        raise typer.Exit(ExitCode.NO_DEVICE) from error


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=True)


if __name__ == "__main__":
    run()
