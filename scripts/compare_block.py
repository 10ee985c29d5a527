#!/usr/bin/env python3
"""Compare a DeepSeek-V3.2 decoder layer with its LayerNorm on a Tenstorrent device and on the CPU.

Exit code: 0 all taps hold, 1 a tap fails, 2 bad arguments or weights, 3 no usable device.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from loguru import logger
from rich import box
from rich.console import Console
from rich.table import Table

from tt_device import PlatformError, find_platform
from weights_tools import Checkpoint, CheckpointError, default_checkpoint

FAILED, BAD_ARGUMENTS, NO_DEVICE = 1, 2, 3


class Arch(StrEnum):
    blackhole = "blackhole"
    wormhole = "wormhole"


def main(
    layer: Annotated[int, typer.Option(help="Decoder layer; 3 is DeepSeek's first with experts.", min=0)] = 3,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a DeepSeek-V3.2 checkpoint; default: a small synthetic one.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Sequence length; default: 32 more than the config's index_topk.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the input hidden states.")] = 0,
    arch: Annotated[Arch | None, typer.Option(help="Of a simulator; default: blackhole.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show a stack trace with an error.")] = False,
) -> None:
    """Run one decoder layer with HuggingFace's LayerNorm and with ours on the device, and compare tap by tap."""
    logger.remove()
    logger.add(sys.stderr, format="{message}", level="INFO")
    try:
        platform = find_platform(arch)
        logger.info(f"device: {platform}")
        weights = Checkpoint(checkpoint or default_checkpoint())
        logger.info(f"checkpoint: {weights.folder}")
        # Slow to import (torch, transformers, ttnn): after what can be refused without them.
        from integration.block import Block
        from integration.compare import compare_block

        block = Block(weights, layer)
        logger.info("opening the device and compiling kernels, up to a minute the first time ...")
        with platform.open() as device:
            comparison = compare_block(block, device, tokens, seed)
    except CheckpointError as error:
        _stop(error, BAD_ARGUMENTS, verbose)
    except PlatformError as error:
        _stop(error, NO_DEVICE, verbose)

    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"DeepSeek-V3.2 layer {layer}, {comparison.tokens} tokens, top {comparison.index_topk}",
    )
    for column in ("tap", "shape", "PCC", "max abs", "scaled ULP", "rel. norm", "launches", "verdict"):
        table.add_column(column, justify="left" if column in ("tap", "verdict") else "right", no_wrap=True)
    for tap in comparison.taps:
        errors = tap.errors
        figures = (
            (f"{errors.pcc:.7f}", f"{errors.max_abs:.3g}", f"{errors.scaled:.2f}", f"{errors.relative_norm:.2e}")
            if errors
            else ("", "", "", "")
        )
        verdict = "[green]holds[/]" if tap.holds else "[red]FAILS[/]"
        table.add_row(tap.name, "x".join(map(str, tap.shape)), *figures, str(tap.launches), verdict)
    console = Console(width=max(Console().width, 110))  # a figure that is cut is no figure
    console.print(table)
    for tap in comparison.taps:
        if tap.remark:
            console.print(f"{tap.name}: {tap.remark}", highlight=False)
    if not comparison.holds:
        raise typer.Exit(FAILED)


def _stop(error: Exception, code: int, verbose: bool) -> None:
    if verbose:
        logger.opt(exception=error).error("")
    logger.error(f"error: {error}")
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
