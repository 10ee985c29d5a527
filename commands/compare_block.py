"""Compare a DeepSeek decoder layer with its norms on a Tenstorrent device and on the CPU.

Exit code: 0 all holds, 1 something fails, 2 bad arguments or files, 3 no usable device.
"""

import hashlib
import importlib.metadata
import json
import os
import platform as python_platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from loguru import logger
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from common.command import ExitCode, start
from tt_device import Arch, Platform, PlatformError, find_platform
from tt_device.cycles import CycleCounter, Phases, open_counted
from tt_device.session import environment
from weights_tools import Checkpoint, CheckpointError, default_checkpoint
from weights_tools.checkpoint import CONFIG, INDEX
from weights_tools.extract import NORMS

if TYPE_CHECKING:
    from model_comparison.recording import Recording

ROOT = Path(__file__).parents[1]
# Options of a run; what was recorded is not run again.
OF_A_RUN = ("layer", "checkpoint", "model", "norms", "isolated", "tokens", "seed", "arch", "trace", "save")
EXAMPLES = """
Examples:

  compare_block.py --report out

  compare_block.py --checkpoint ~/DeepSeek-V3.2-Exp --tokens 8

One norm, fed what HuggingFace's got:

  compare_block.py --norms k_norm --isolated

Keep the tensors, and judge them again without a device:

  compare_block.py --save run.safetensors

  compare_block.py --load run.safetensors --max-ulp 2

Cycles of each norm, by wolfpine's cost model, and their timeline:

  compare_block.py --report out --trace out.json.gz

What changed since:

  compare_block.py --report new --baseline old/report.json
"""


class Model(StrEnum):
    v3 = "v3"
    v32 = "v32"
    auto = "auto"


app = typer.Typer(add_completion=False)


@app.command(epilog=EXAMPLES)
def main(
    context: typer.Context,
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
    arch: Annotated[Arch | None, typer.Option(help="Default: what the device is; blackhole for wolfpine.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write report.html, report.json and figures there; an earlier report goes.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="An earlier report.json: say what changed since. Changes no exit code.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write the launches' timeline for ui.perfetto.dev (.json.gz); wolfpine alone, cost model on."
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Keep all tensors of the run in this .safetensors file.")] = None,
    load: Annotated[
        Path | None, typer.Option(help="Judge what --save kept: nothing runs, no device and no checkpoint is needed.")
    ] = None,
    min_pcc: Annotated[float | None, typer.Option(help="Bounds.min_pcc; default: 0.9999.")] = None,
    max_ulp: Annotated[float | None, typer.Option(help="Bounds.max_ulp, of a norm; default: 3.")] = None,
    min_nearest: Annotated[float | None, typer.Option(help="Bounds.min_nearest, of a norm; default: 0.98.")] = None,
    max_floors: Annotated[
        float | None, typer.Option(help="Bounds.max_floors, of what follows from norms; default: sqrt(2).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json's content, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the verdict alone, one line.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show ttnn's messages, and a stack trace with an error.")
    ] = False,
) -> None:
    """Run one decoder layer with HuggingFace's norms and with ours on the device, and compare tap by tap."""
    _set_up_log(quiet, verbose)
    if load is not None and (given := [f"--{name}" for name in OF_A_RUN if _was_given(context, name)]):
        _stop(
            ValueError(f"--load judges what was recorded: leave out {', '.join(given)}"),
            ExitCode.BAD_ARGUMENTS,
            verbose,
        )
    patterns = [pattern.strip() for pattern in norms.split(",")]
    # Slow to import (torch, transformers, ttnn): after what can be refused without them.
    if load is None:
        try:
            platform = find_platform(arch)
            if trace is not None and platform.backend != "wolfpine":
                raise PlatformError(f"--trace needs wolfpine, but the device is {platform}: unset TT_METAL_SIMULATOR")
            logger.info(f"device: {platform}")
            weights = _open_checkpoint(checkpoint, model)
            logger.info(f"checkpoint: {weights.folder}")
            _check_norms(weights, layer, patterns)
        except CheckpointError as error:
            _stop(error, ExitCode.BAD_ARGUMENTS, verbose)
        except PlatformError as error:
            _stop(error, ExitCode.NO_DEVICE, verbose)
    from integration import NormError
    from model_comparison.compare import Bounds, judge
    from model_comparison.recording import Recording, RecordingError
    from model_comparison.report import ReportError, check_folder, read_report, write_report
    from model_comparison.report import report as report_of
    from model_comparison.terminal import MIN_WIDTH, print_comparison, verdict_line

    given_bounds = {"min_pcc": min_pcc, "max_ulp": max_ulp, "min_nearest": min_nearest, "max_floors": max_floors}
    bounds = Bounds(**{name: value for name, value in given_bounds.items() if value is not None})
    try:
        # What can be refused is refused before anything runs.
        earlier = None if baseline is None else read_report(baseline)
        if report is not None:
            check_folder(report)
        for file in (save, trace):
            if file is not None and not file.parent.is_dir():
                raise RecordingError(f"{file}: there is no folder {file.parent}: make it first")
        with _progress(quiet) as tell:
            if load is None:
                recording = _record(weights, layer, platform, patterns, isolated, tokens, seed, trace, tell)
            else:
                recording = Recording.load(load)
            if save is not None:
                recording.save(save)
            tell("judging")
            comparison = judge(recording, bounds)
            content = report_of(recording, comparison, earlier)
            if report is not None:
                tell("drawing the report")
                write_report(report, content, recording, comparison)
    except (NormError, CheckpointError, RecordingError, ReportError) as error:
        _stop(error, ExitCode.BAD_ARGUMENTS, verbose)
    except PlatformError as error:
        _stop(error, ExitCode.NO_DEVICE, verbose)

    if as_json:
        print(json.dumps(content, indent=2, allow_nan=False))
    elif quiet:
        print(verdict_line(content))
    else:
        console = Console(width=max(Console().width, MIN_WIDTH))
        print_comparison(console, comparison, content)
        if report is not None:
            console.print(f"report: {report / 'report.html'}", highlight=False, soft_wrap=True)
    if not comparison.holds:
        raise typer.Exit(ExitCode.FAILS)


def _set_up_log(quiet: bool, verbose: bool) -> None:
    logger.remove()
    levels: dict[str | None, str | int | bool] = {"": "WARNING" if quiet else "INFO", "ttnn": "WARNING"}
    if verbose:
        levels = {"": "DEBUG"}
        os.environ.setdefault("TT_LOGGER_LEVEL", "info")  # of ttnn's C++ side
    logger.add(sys.stderr, format="{message}", level=0, filter=levels)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """What is going on and for how long, on a terminal. Gives what is to be called with each step."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield logger.debug
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        step = progress.add_task("")
        yield lambda text: progress.reset(step, description=text)


def _record(
    weights: Checkpoint,
    layer: int,
    platform: Platform,
    patterns: list[str],
    isolated: bool,
    tokens: int | None,
    seed: int,
    trace: Path | None,
    tell: Callable[[str], None],
) -> "Recording":
    """Runs the block; errors are `Block`'s, `collect`'s and `Platform.open`'s."""
    from model_comparison.block import Block
    from model_comparison.compare import collect

    tell("reading the layer")
    block = Block(weights, layer)
    logger.info("opening the device and compiling kernels, up to a minute the first time ...")
    tell("opening the device")
    with _opened(platform, trace) as (device, counter):
        recording = collect(block, device, patterns, isolated, tokens, seed, tell)
        cycles = {"cycles": _cycles(recording, counter)} if counter else {}
    return replace(recording, facts=recording.facts | _origin(weights, platform, recording) | cycles)


@contextmanager
def _opened(platform: Platform, trace: Path | None) -> Iterator[tuple[Any, CycleCounter | None]]:
    """The device; with a counter if `trace` asks for a timeline, or TT_SIM_COST_MODEL for wolfpine's cost model."""
    if platform.backend == "wolfpine" and (trace is not None or os.environ.get("TT_SIM_COST_MODEL") == "1"):
        with (
            environment({} if trace is None else {"TT_SIM_TRACE_PERFETTO": str(trace.absolute())}),
            open_counted(platform.arch) as (_, device, counter),
        ):
            yield device, counter
    else:
        with platform.open() as device:
            yield device, None


def _cycles(recording: "Recording", counter: CycleCounter) -> list[dict[str, Any]]:
    """Of each norm's launch, in order of execution: cycles, their phases, and what each CB held from when on."""
    from micro_ops.layernorm import plan

    names = {plan.CB_INPUT: "input", plan.CB_GAMMA: "gamma", plan.CB_BETA: "beta", plan.CB_OUTPUT: "output"}
    found = []
    order = [name for name in recording.result.taps if name in recording.norms]
    for name, launch in zip(order, counter.launches(), strict=True):
        phases = Phases.of(launch, plan.CB_INPUT, plan.CB_OUTPUT)
        held = {cb: launch.held(index) for index, cb in names.items()}
        found.append({"name": name, "cycles": launch.cycles, "phases": asdict(phases), "cbs": held})
    return found


def _origin(weights: Checkpoint, platform: Platform, recording: "Recording") -> dict[str, Any]:
    """Facts by which somebody else can run the same."""
    distributions = ("tt-deepseek-norms", "ttnn", "torch", "transformers", "wolfpine")
    versions = {name: version for name in distributions if (version := _version(name))}
    return {
        "device": str(platform),
        "backend": platform.backend,
        "arch": platform.arch,
        "compiler": str(platform.compiler),
        "versions": versions | {"python": python_platform.python_version()},
        "checkpoint": str(weights.folder),
        "checkpoint_sha256": _fingerprint(weights, recording),
        "commit": _commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _fingerprint(weights: Checkpoint, recording: "Recording") -> str:
    """SHA-256 over config.json, the index if there is one, and the compared norms' weights as loaded, by name: which
    checkpoint it was, without reading all of it."""
    import torch

    digest = hashlib.sha256()
    for name in (CONFIG, INDEX):
        if (weights.folder / name).is_file():
            digest.update((weights.folder / name).read_bytes())
    for name, norm in sorted(recording.norms.items()):
        digest.update(name.encode())
        for weight in (norm.gamma, norm.beta):
            if weight is not None:
                digest.update(weight.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the checkout that this file is in, with a + if files differ from it; None outside of one."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        run = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


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


def _check_norms(weights: Checkpoint, layer: int, patterns: list[str]) -> None:
    """
    Raises:
        CheckpointError: a pattern fits no norm that the checkpoint holds of the layer. Of one that it does not hold,
            `Block` says so.
    """
    prefix = f"model.layers.{layer}."
    keys = [key for key in weights.keys(prefix) if any(fnmatchcase(key, norm) for norm in NORMS)]
    names = list(dict.fromkeys(key.removeprefix(prefix).rpartition(".")[0] for key in keys))
    for pattern in patterns:
        if names and not any(fnmatchcase(f".{name}", f"*.{pattern}") for name in names):  # as `find_norms` takes it
            raise CheckpointError(
                f"{weights.folder}: --norms {pattern!r} matches no norm of layer {layer}, which has {', '.join(names)}"
            )


def _stop(error: Exception, code: ExitCode, verbose: bool) -> NoReturn:
    if verbose:
        logger.opt(exception=error).error("")
    logger.error(f"error: {error}")
    raise typer.Exit(code)


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=True)


if __name__ == "__main__":
    run()
