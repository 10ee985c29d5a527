# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m weights_tools`: look into a checkpoint, take the norms out of one, check one, make one."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from common.command import ExitCode, start
from weights_tools.architecture import Architecture
from weights_tools.architecture_v3 import Geometry
from weights_tools.architecture_v4 import Experts, GeometryV4
from weights_tools.checkpoint import Checkpoint
from weights_tools.errors import CheckpointError
from weights_tools.extract import NORMS, extract
from weights_tools.models import Model
from weights_tools.statistics import statistics
from weights_tools.synthetic import write_synthetic
from weights_tools.verify import verify

SHOWN_PROBLEMS = 20  # of each kind; --json has all

app = typer.Typer(
    help="Look into safetensors checkpoints, extract their norms, check them, and make synthetic ones.\n\n"
    "Patterns are globs on whole keys, and * takes dots, too: '*.k_norm.*'. Quote them.\n\n"
    "Exit code: 0 done, 1 verify found a fault, 2 bad arguments or files.",
    no_args_is_help=True,
    add_completion=False,
)

Folder = Annotated[
    Path, typer.Argument(help="Holds config.json and the safetensors files, as downloaded.", show_default=False)
]
Patterns = Annotated[list[str] | None, typer.Argument(help="Globs on the keys; default: all.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Mtp = Annotated[bool, typer.Option("--mtp", help="Show the layers for multi-token prediction, too.")]


@app.command("list")
def list_(folder: Folder, patterns: Patterns = None, mtp: Mtp = False, as_json: Json = False) -> None:
    """List key, dtype, shape and file of the stored tensors. Reads the files' headers only.

    Example: python -m weights_tools list ~/DeepSeek-V3.2-Exp 'model.layers.3.*norm*'
    """
    with _one_line_errors():
        checkpoint = Checkpoint(folder, mtp=mtp)
        rows = [
            _describe(checkpoint, key) | {"shard": checkpoint.shard(key)}
            for key in checkpoint.select(patterns or ["*"], scales=True)
        ]
    _print_rows(rows, as_json)
    _mention_left_out(checkpoint)


@app.command()
def inspect(folder: Folder, patterns: Patterns = None, mtp: Mtp = False, as_json: Json = False) -> None:
    """Show mean, std, min, max, largest absolute value, and the number of NaN and Inf, of each weight.

    float8 and packed FP4 are shown as the values that they stand for. Reads one tensor at a time.

    Example: python -m weights_tools inspect ~/DeepSeek-V3.2-Exp '*.k_norm.*'
    """
    with _one_line_errors(), _progress("inspect") as progress:
        checkpoint = Checkpoint(folder, mtp=mtp)
        rows = []
        keys = checkpoint.select(patterns or ["*"])
        for number, key in enumerate(keys, 1):
            shape = {"shape": list(checkpoint.weight_shape(key))}
            rows.append(_describe(checkpoint, key) | shape | statistics(checkpoint, key)._asdict())
            progress(number, len(keys))
    _print_rows(rows, as_json)
    _mention_left_out(checkpoint)


@app.command("extract")
def extract_(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.", show_default=False)],
    keys: Annotated[
        list[str] | None,
        typer.Option(help=f"Glob on the keys, may be repeated; default: {' and '.join(NORMS)}.", show_default=False),
    ] = None,
    mtp: Mtp = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Copy the norms, or what --keys names, into one small file, as stored.

    Its metadata says where they are from: the folder's name, model_type, sha256 of config.json, of the index and of
    each tensor.

    Example: python -m weights_tools extract ~/DeepSeek-V3.2-Exp norms.safetensors
    """
    with _one_line_errors(), _progress("extract") as progress:
        checkpoint = Checkpoint(folder, mtp=mtp)
        written = extract(checkpoint, out, keys or (), force=force, progress=progress)
    size = out.stat().st_size
    _print_result(
        {"file": str(out), "bytes": size, "keys": written},
        f"wrote {out}: {len(written)} tensors, {size / 1e6:.1f} MB",
        as_json,
    )
    _mention_left_out(checkpoint)


@app.command("verify")
def verify_(
    folder: Folder,
    values: Annotated[bool, typer.Option("--values", help="Read all tensors, too, and look for NaN and Inf.")] = False,
    as_json: Json = False,
) -> None:
    """Check a DeepSeek-V3, V3.2 or V4 checkpoint against its config.json: every tensor there, and of the right shape.

    Reads headers only, unless --values is given. Ends with 1 if anything is wrong.

    Example: python -m weights_tools verify ~/DeepSeek-V3.2-Exp
    """
    with _one_line_errors(), _progress("verify") as progress:
        report = verify(Checkpoint(folder, mtp=True), values=values, progress=progress)
    if as_json:
        problems = [problem._asdict() for problem in report.problems]
        _print_json(
            {"ok": not problems, "checked": report.checked, "problems": problems, "notes": report.notes},
        )
    else:
        for note in report.notes:
            print(f"note: {note}")
        for kind in dict.fromkeys(problem.kind for problem in report.problems):
            of_kind = [problem for problem in report.problems if problem.kind == kind]
            for problem in of_kind[:SHOWN_PROBLEMS]:
                print(f"{kind}: {problem.key}: {problem.message}")
            if len(of_kind) > SHOWN_PROBLEMS:
                print(f"{kind}: ... and {len(of_kind) - SHOWN_PROBLEMS} more, which --json lists")
        print(f"{folder}: {report.checked} tensors checked, {len(report.problems)} problems")
    if report.problems:
        raise typer.Exit(ExitCode.FAILS)


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Made whole or not at all.", show_default=False)],
    model: Annotated[Model, typer.Option(help="DeepSeek-V3, V3.2 or V4 (V4-Flash).")] = "v32",
    layers: Annotated[
        int | None, typer.Option(min=1, help="How many. Default: 4 (V4: 5), or the model's own with --full.")
    ] = None,
    only: Annotated[
        list[int] | None,
        typer.Option(help="Write this layer alone; may be repeated. config.json counts all.", show_default=False),
    ] = None,
    float8: Annotated[bool, typer.Option("--float8", help="Matrices in float8 with scales, as on the hub.")] = False,
    experts: Annotated[
        Experts | None,
        typer.Option(
            help="V4's experts in MXFP4, or in float8 with all scales float32, as the Base models. Default: fp4.",
            show_default=False,
        ),
    ] = None,
    pro: Annotated[bool, typer.Option("--pro", help="V4-Pro's widths, and with --full its sizes.")] = False,
    mtp: Annotated[bool, typer.Option("--mtp", help="One layer for multi-token prediction.")] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="DeepSeek's sizes, quantized, one expert's data for all. A layer: V3 11.5 GB, V4 3.6, V4-Pro 13.9.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a synthetic checkpoint that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a synthetic checkpoint: real norm widths, few heads and experts, seeded weights; 243 MB.

    Example: python -m weights_tools make /tmp/deepseek-v3 --model v3 --float8

    Example: python -m weights_tools make /tmp/deepseek-v4 --model v4 --float8 --experts fp8

    Example: python -m weights_tools make /tmp/layer3 --full --only 3
    """
    logger.remove()  # the library's report of what it wrote: said below
    if (experts or pro) and model != "v4":
        _stop(f"--experts and --pro are for --model v4, but it is {model}")
    if experts and not (float8 or full):
        _stop("--experts says how experts are quantized: give --float8 or --full, too")
    geometry: Architecture
    if model == "v4":
        geometry = GeometryV4.full(pro=pro) if full else GeometryV4.small(pro=pro)
        geometry = replace(geometry, experts=experts or "fp4")
    else:
        geometry = Geometry.full(model) if full else Geometry(model=model)
    if not full:
        geometry = replace(geometry, float8=float8, num_nextn_predict_layers=int(mtp))
    geometry = geometry.with_layers(layers) if layers else geometry
    with _one_line_errors(), _progress("make") as progress:
        write_synthetic(
            folder, geometry, seed=seed, force=force, layers=only or (), repeat_experts=full, progress=progress
        )
        checkpoint = Checkpoint(folder, mtp=True)
    tensors, size = len(checkpoint.keys(scales=True)), checkpoint.metadata["total_size"]
    _print_result(
        {"folder": str(folder), "tensors": tensors, "bytes": size, "seed": seed},
        f"wrote {folder}: {tensors} tensors, {size / 1e6:.0f} MB",
        as_json,
    )


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        _stop(str(error))


def _stop(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(ExitCode.BAD_ARGUMENTS)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal. Yields what is to be called with (done, all)."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _describe(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "dtype": str(checkpoint.dtype(key)).removeprefix("torch."),
        "shape": list(checkpoint.shape(key)),
    }


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """A line each, in columns that are never cut short, so that they can be searched."""
    if as_json:
        _print_json(rows)
        return
    lines = [[*rows[0]]] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    match value:
        case []:
            return "scalar"
        case list():
            return "x".join(map(str, value))
        case float():
            return f"{value:.4g}"
        case None:
            return "-"
        case _:
            return str(value)


def _print_result(result: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        _print_json(result)
    else:
        print(sentence)


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def _mention_left_out(checkpoint: Checkpoint) -> None:
    if checkpoint.left_out:
        sys.stderr.write(f"{len(checkpoint.left_out)} keys of MTP layers are left out: --mtp shows them\n")


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=False)


if __name__ == "__main__":
    run()
