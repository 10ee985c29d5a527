#!/usr/bin/env python3
"""Compare a DeepSeek decoder layer with its norms on a Tenstorrent device and on the CPU.

Exit code: 0 all holds, 1 something fails, 2 bad arguments or weights, 3 no usable device.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from loguru import logger
from rich import box
from rich.console import Console
from rich.table import Table

from tt_device import PlatformError, find_platform
from weights_tools import Checkpoint, CheckpointError, default_checkpoint

if TYPE_CHECKING:
    from integration.compare import Comparison, Tap

FAILED, BAD_ARGUMENTS, NO_DEVICE = 1, 2, 3


class Arch(StrEnum):
    blackhole = "blackhole"
    wormhole = "wormhole"


class Model(StrEnum):
    v3 = "v3"
    v32 = "v32"
    auto = "auto"


def main(
    layer: Annotated[int, typer.Option(help="Decoder layer; 3 is DeepSeek's first with experts.", min=0)] = 3,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a DeepSeek checkpoint; default: a small synthetic one.")
    ] = None,
    model: Annotated[
        Model, typer.Option(help="auto: what the checkpoint's config.json says, or v32 without --checkpoint.")
    ] = Model.auto,
    norms: Annotated[
        str, typer.Option(help="Which norms run on the device: globs, separated by commas, e.g. 'k_norm,*_a_*'.")
    ] = "*",
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Feed each norm what HuggingFace's got; else errors propagate.")
    ] = False,
    tokens: Annotated[
        int | None,
        typer.Option(help="Sequence length; default: 4 more than index_topk, or 16 if that is large.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the input hidden states.")] = 0,
    arch: Annotated[Arch | None, typer.Option(help="Of a simulator; default: blackhole.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show a stack trace with an error.")] = False,
) -> None:
    """Run one decoder layer with HuggingFace's norms and with ours on the device, and compare tap by tap."""
    logger.remove()
    logger.add(sys.stderr, format="{message}", level="INFO")
    try:
        platform = find_platform(arch)
        logger.info(f"device: {platform}")
        weights = _open_checkpoint(checkpoint, model)
        logger.info(f"checkpoint: {weights.folder}")
        # Slow to import (torch, transformers, ttnn): after what can be refused without them.
        from integration.block import Block
        from integration.compare import compare_block
        from integration.replace import NormError, find_norms

        block = Block(weights, layer)
        patterns = [pattern.strip() for pattern in norms.split(",")]
        try:
            find_norms(block.layer, patterns)  # before the device is opened for nothing
            logger.info("opening the device and compiling kernels, up to a minute the first time ...")
            with platform.open() as device:
                comparison = compare_block(block, device, patterns, isolated, tokens, seed)
        except NormError as error:
            _stop(error, BAD_ARGUMENTS, verbose)
    except CheckpointError as error:
        _stop(error, BAD_ARGUMENTS, verbose)
    except PlatformError as error:
        _stop(error, NO_DEVICE, verbose)

    mode = "each norm fed HuggingFace's input" if isolated else "chained"
    console = Console(width=max(Console().width, 132))  # a figure that is cut is no figure
    title = f"{block.config.model_type} layer {layer}, tokens: {comparison.tokens}, {mode}"
    console.print(_tap_table(title, comparison))
    if comparison.flips:
        console.print(_flip_table(comparison))
    index_topk = getattr(block.config, "index_topk", 0)
    if not isolated and index_topk >= comparison.tokens:
        console.print(f"index_topk is {index_topk}: each query attends to all keys, whatever k_norm gives.")
    for tap in comparison.taps:
        if tap.holds is False:
            console.print(_why(tap), highlight=False)
    if not comparison.holds:
        raise typer.Exit(FAILED)


def _open_checkpoint(folder: Path | None, model: Model) -> Checkpoint:
    """
    Raises:
        CheckpointError: it can't be read, or is of another model
    """
    weights = Checkpoint(folder or default_checkpoint("v3" if model == Model.v3 else "v32"))
    expected, model_type = f"deepseek_{model}", weights.config.get("model_type")
    if model != Model.auto and model_type != expected:
        raise CheckpointError(
            f"{weights.folder}/config.json: model_type must be {expected!r} for --model {model}, but is {model_type!r}"
        )
    return weights


def _tap_table(title: str, comparison: "Comparison") -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, collapse_padding=True)
    for column in ("tap", "against"):
        table.add_column(column, no_wrap=True)
    for column in ("shape", "PCC", "max abs", "nearest", "ULP", "rel. norm", "floor", "launches"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for tap in comparison.taps:
        errors = tap.errors
        figures = ["no token left", "", "", "", ""]
        if errors:
            figures = [f"{errors.pcc:.7f}", f"{errors.max_abs:.3g}", f"{errors.nearest:.4f}", "", ""]
            figures[3] = f"{errors.scaled:.2f}" if tap.reference == "float64" else ""  # else the operands are unknown
            figures[4] = f"{errors.relative_norm:.2e}"
        table.add_row(
            tap.name.rsplit(".", 1)[-1],
            tap.reference,
            "x".join(map(str, tap.shape)),
            *figures,
            f"{tap.floor:.2e}",
            str(tap.launches),
            _verdict(tap.holds),
        )
    return table


def _flip_table(comparison: "Comparison") -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="tokens that chose another set than HuggingFace's in bfloat16")
    table.add_column("choice")
    for column in ("tokens", "device", "float32", "scores had to move by", "float32 moves them by", "launches"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for flips in comparison.flips:
        figures = (flips.tokens, flips.flipped, flips.floor, f"{flips.needed:.2e}", f"{flips.noise:.2e}")
        table.add_row(flips.name, *map(str, figures), str(flips.launches), _verdict(flips.holds))
    return table


def _why(tap: "Tap") -> str:
    name = f"{tap.name} against {tap.reference}"
    if tap.errors is None:
        return f"{name}: each token's choices flipped, so there is nothing to compare: take more --tokens"
    if not tap.launches:
        return f"{name}: the device ran no launch"
    result, expected = tap.errors.worst_values
    return f"{name}: the worst element is {tap.errors.worst}, {result} for {expected}"


def _verdict(holds: bool | None) -> str:
    return "" if holds is None else "[green]holds[/]" if holds else "[red]FAILS[/]"


def _stop(error: Exception, code: int, verbose: bool) -> NoReturn:
    if verbose:
        logger.opt(exception=error).error("")
    logger.error(f"error: {error}")
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
