# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Compare a decoder layer of DeepSeek's family with its norms on a Tenstorrent device and on the CPU.

Exit code: 0 all holds, 1 something fails, 2 bad arguments or files, 3 no usable device.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from loguru import logger
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from common.command import ExitCode, start
from tt_device import ONE_CHIP, Arch, Mesh, Platform, PlatformError, as_mesh, find_platform
from tt_device.cycles import CycleCounter, Phases, open_counted
from tt_device.session import environment
from weights_tools import Checkpoint, CheckpointError, default_checkpoint
from weights_tools.models import MODEL_TYPES as DEEPSEEK_TYPES
from weights_tools.models import Model as DeepSeek

if TYPE_CHECKING:
    from model_comparison.facts import LaunchCycles
    from model_comparison.judge import Comparison
    from model_comparison.recording import Recording

# Options that say what to run: --load, which runs nothing, refuses them.
OF_A_RUN = (
    "layer",
    "checkpoint",
    "model",
    "norms",
    "graph",
    "isolated",
    "recorded_input",
    "input_kind",
    "tokens",
    "seed",
    "arch",
    "mesh",
    "trace",
    "save",
)
EXAMPLES = """
Examples:

  compare_block.py --report out

  compare_block.py --checkpoint ~/DeepSeek-V3.2-Exp --tokens 8

One norm, fed what HuggingFace's got:

  compare_block.py --norms k_norm --isolated

The attention's norms in a ttnn graph, on the tiles of its linears:

  compare_block.py --graph ttnn

Keep the tensors, and judge them again without a device:

  compare_block.py --save run.safetensors

  compare_block.py --load run.safetensors --max-ulp 2

Cycles of each norm, by wolfpine's cost model, and their timeline:

  compare_block.py --report out --trace out.json.gz

Each norm over two chips, where there are as many:

  compare_block.py --mesh 1x2

What changed since:

  compare_block.py --report new --baseline old/report.json
"""


class Model(StrEnum):
    v2 = "v2"
    v3 = "v3"
    v32 = "v32"
    v4 = "v4"
    kimi = "kimi"
    glm5 = "glm5"
    longcat = "longcat"
    llama = "llama"
    qwen3 = "qwen3"
    auto = "auto"


MODEL_TYPES = {  # as config.json names them
    Model.v2: "deepseek_v2",
    **{Model(name): model_type for name, model_type in DEEPSEEK_TYPES.items()},
    Model.kimi: "kimi_k25",
    Model.glm5: "glm_moe_dsa",
    Model.longcat: "longcat_flash",
    Model.llama: "llama",
    Model.qwen3: "qwen3",
}
# Those whose checkpoints `weights_tools` writes; transformers writes the others'.
OWN_LAYOUT: dict[Model, DeepSeek] = {Model.auto: "v32", Model.v3: "v3", Model.v32: "v32", Model.v4: "v4"}


class InputKind(StrEnum):
    outliers = "outliers"
    normal = "normal"


class Graph(StrEnum):
    torch = "torch"
    ttnn = "ttnn"


app = typer.Typer(add_completion=False)


@app.command(epilog=EXAMPLES)
def main(
    context: typer.Context,
    layer: Annotated[int, typer.Option(help="Decoder layer; 3 is DeepSeek's first with experts.", min=0)] = 3,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a checkpoint; default: a small synthetic one.")
    ] = None,
    model: Annotated[
        Model, typer.Option(help="auto: what the checkpoint's config.json says, or v32 without --checkpoint.")
    ] = Model.auto,
    norms: Annotated[
        str, typer.Option(help="Which norms run on the device: globs, separated by commas, e.g. 'k_norm,*_a_*'.")
    ] = "*",
    graph: Annotated[
        Graph,
        typer.Option(
            help="ttnn: q_a, kv_a and k_norm between ttnn's linears, on their tiles. torch: in HuggingFace's forward."
        ),
    ] = Graph.torch,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Feed each norm what HuggingFace's got; else errors propagate.")
    ] = False,
    recorded_input: Annotated[
        Path | None,
        typer.Option(
            "--input", help="A .safetensors file with hidden_states (B, S, ...), and input_ids (B, S) for hash routers."
        ),
    ] = None,
    input_kind: Annotated[
        InputKind, typer.Option(help="Of drawn hidden states: with outlier channels, as trained ones have, or N(0, 1).")
    ] = InputKind.outliers,
    tokens: Annotated[
        int | None,
        typer.Option(help="Sequence length; default: enough that indexer and compressors matter, or 16.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of drawn hidden states.")] = 0,
    arch: Annotated[Arch | None, typer.Option(help="Default: what the device is; blackhole for wolfpine.")] = None,
    mesh: Annotated[
        str,
        typer.Option(help="Chips, as 1x2: rows are dealt out over the rows of chips, their columns over the columns."),
    ] = "1x1",
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
    max_float32: Annotated[
        float | None, typer.Option(help="Bounds.max_float32, of a float32 norm; default: 5e-7.")
    ] = None,
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
    bounds = {
        "min_pcc": min_pcc,
        "max_ulp": max_ulp,
        "min_nearest": min_nearest,
        "max_float32": max_float32,
        "max_floors": max_floors,
    }
    given_bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    output = Output(save=save, report=report, baseline=baseline, as_json=as_json, quiet=quiet, verbose=verbose)
    with _refusing(OptionError, CheckpointError, verbose=verbose):
        if load is not None:
            _refuse_options_of_a_run(context)
            source: Job | Path = load
        else:
            if trace is not None and graph == Graph.ttnn:
                raise OptionError("--trace counts cycles of norms alone: leave out --graph ttnn, which launches more")
            chips = _mesh(mesh, graph, trace)
            if recorded_input is not None and (given := _given(context, "input_kind", "tokens", "seed")):
                raise OptionError(f"--input is a recorded hidden state: leave out {given}")
            platform = _find_device(arch, trace)
            weights = _open_checkpoint(checkpoint, model)
            source = Job(
                platform=platform,
                mesh=chips,
                weights=weights,
                layer=layer,
                norms=[pattern.strip() for pattern in norms.split(",")],
                graph=graph,
                isolated=isolated,
                recorded_input=recorded_input,
                input_kind=input_kind,
                tokens=tokens,
                seed=seed,
                trace=trace,
            )
    comparison, content = _compare(source, given_bounds, output)
    _print(comparison, content, output)
    if not comparison.holds:
        raise typer.Exit(ExitCode.FAILS)


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        mesh: rows and columns of chips
        weights: the checkpoint
        norms: globs of norms' names in the layer
        graph, isolated: as `model_comparison.collect.collect` takes them
        recorded_input: a file, as `model_comparison.block_input.read_input` takes it
        input_kind, tokens, seed: without one, as `drawn_input` takes them
        trace: the file that the launches' timeline goes to
    """

    platform: Platform
    mesh: Mesh
    weights: Checkpoint
    layer: int
    norms: list[str]
    graph: Graph
    isolated: bool
    recorded_input: Path | None
    input_kind: InputKind
    tokens: int | None
    seed: int
    trace: Path | None


@dataclass(frozen=True)
class Output:
    """What is made of a comparison: files, and what is printed how."""

    save: Path | None
    report: Path | None
    baseline: Path | None
    as_json: bool
    quiet: bool
    verbose: bool


class OptionError(ValueError):
    """Options that exclude each other. One line."""


def _set_up_log(quiet: bool, verbose: bool) -> None:
    logger.remove()
    levels: dict[str | None, str | int | bool] = {"": "WARNING" if quiet else "INFO", "ttnn": "WARNING"}
    if verbose:
        levels = {"": "DEBUG"}
        os.environ.setdefault("TT_LOGGER_LEVEL", "info")  # of ttnn's C++ side
    logger.add(sys.stderr, format="{message}", level=0, filter=levels)


@contextmanager
def _refusing(*bad: type[Exception], verbose: bool) -> Iterator[None]:
    """Ends the process with one line for `bad` arguments or files, and where there is no usable device."""
    try:
        yield
    except PlatformError as error:
        _stop(error, ExitCode.NO_DEVICE, verbose)
    except bad as error:
        _stop(error, ExitCode.BAD_ARGUMENTS, verbose)


def _stop(error: Exception, code: ExitCode, verbose: bool) -> NoReturn:
    if verbose:
        logger.opt(exception=error).error("")
    logger.error(f"error: {error}")
    raise typer.Exit(code)


def _refuse_options_of_a_run(context: typer.Context) -> None:
    """
    Raises:
        OptionError: an option says what to run
    """
    if given := _given(context, *OF_A_RUN):
        raise OptionError(f"--load judges what was recorded: leave out {given}")


def _given(context: typer.Context, *parameters: str) -> str:
    """The options among these that were given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in parameters}
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    return ", ".join(options[name] for name, source in sources.items() if source and source.name != "DEFAULT")


def _mesh(text: str, graph: Graph, trace: Path | None) -> Mesh:
    """
    Raises:
        OptionError: it is none, or what is to be done takes one chip
    """
    try:
        mesh = as_mesh(text)
    except ValueError as error:
        raise OptionError(f"--mesh: {error}") from None
    if mesh != ONE_CHIP and (graph == Graph.ttnn or trace is not None):
        raise OptionError(f"--graph ttnn and --trace take one chip, but --mesh is {text}")
    return mesh


def _find_device(arch: Arch | None, trace: Path | None) -> Platform:
    """
    Raises:
        PlatformError: there is none, or it can't trace
    """
    platform = find_platform(arch)
    if trace is not None and platform.backend != "wolfpine":
        raise PlatformError(f"--trace needs wolfpine, but the device is {platform}: unset TT_METAL_SIMULATOR")
    logger.info(f"device: {platform}")
    return platform


def _open_checkpoint(folder: Path | None, model: Model) -> Checkpoint:
    """
    Raises:
        CheckpointError: it can't be read, or is of another model
    """
    weights = Checkpoint(folder or _synthetic(model))
    expected, model_type = MODEL_TYPES.get(model), weights.config.get("model_type")
    if expected is not None and model_type != expected:
        raise CheckpointError(
            f"{weights.folder}/config.json: model_type must be {expected!r} for --model {model}, but is {model_type!r}"
        )
    logger.info(f"checkpoint: {weights.folder}")
    return weights


def _synthetic(model: Model) -> Path:
    """The default checkpoint of `model`, which is made the first time."""
    if (own := OWN_LAYOUT.get(model)) is not None:
        return default_checkpoint(own)
    from model_comparison.family import default_relative  # transformers takes seconds to import

    return default_relative(model.value)


def _compare(source: Job | Path, bounds: dict[str, float], output: Output) -> tuple["Comparison", dict[str, Any]]:
    """Runs a job, or loads the recording at a path, judges it and writes the files. What can be refused is refused
    before anything runs.

    Args:
        bounds: of `model_comparison.judge.Bounds`, those that are not to have their default
    Returns: the comparison, and the content of its report
    """
    # torch, transformers and ttnn take 10 s to import: after what can be refused without them.
    from integration import NormError
    from model_comparison.block_input import InputError
    from model_comparison.judge import Bounds, judge
    from model_comparison.page import check_folder, write_report
    from model_comparison.recording import Recording, RecordingError
    from model_comparison.report import ReportError, read_report, report

    with _refusing(NormError, CheckpointError, InputError, RecordingError, ReportError, verbose=output.verbose):
        earlier = None if output.baseline is None else read_report(output.baseline)
        if output.report is not None:
            check_folder(output.report)
        for file in (output.save, None if isinstance(source, Path) else source.trace):
            if file is not None and not file.parent.is_dir():
                raise RecordingError(f"{file}: there is no folder {file.parent}: make it first")
        with _progress(output.quiet) as tell:
            recording = Recording.load(source) if isinstance(source, Path) else _record(source, tell)
            if output.save is not None:
                recording.save(output.save)
            tell("judging")
            comparison = judge(recording, Bounds(**bounds))
            content = report(recording, comparison, earlier)
            if output.report is not None:
                tell("drawing the report")
                write_report(output.report, content, recording, comparison)
    return comparison, content


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


def _record(job: Job, tell: Callable[[str], None]) -> "Recording":
    """Errors are `Block`'s, `find_norms`'s, `read_input`'s, `collect`'s and `Platform.open`'s."""
    from integration import NormError, find_norms
    from model_comparison.block import Block
    from model_comparison.block_input import drawn_input, read_input
    from model_comparison.collect import collect
    from model_comparison.facts import norm_cycles, origin

    tell("reading the layer")
    block = Block(job.weights, job.layer)
    try:
        find_norms(block.layer, job.norms)
    except NormError as error:
        raise NormError(f"--norms: {error}") from None
    if job.recorded_input is not None:
        block_input = read_input(job.recorded_input, block)
    else:
        block_input = drawn_input(block, job.tokens, job.seed, outliers=job.input_kind == InputKind.outliers)
    logger.info("opening the device and compiling kernels, up to a minute the first time ...")
    tell("opening the device")
    # wolfpine simulates 3,000 cycles of one core a second: a row's bits are the same on two as on all.
    cores = 2 if job.platform.backend == "wolfpine" else None
    with _opened(job) as (device, counter):
        recording = collect(
            block,
            device,
            job.norms,
            graph=job.graph.value,
            isolated=job.isolated,
            block_input=block_input,
            cores=cores,
            mesh_axis=None if job.mesh == ONE_CHIP else 1,
            tell=tell,
        )
        cycles = {"cycles": norm_cycles(recording, _launches(counter))} if counter else {}
    platform = job.platform
    where = {
        "device": str(platform),
        "backend": platform.backend,
        "arch": platform.arch,
        "compiler": str(platform.compiler),
    }
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return replace(recording, facts=recording.facts | origin(recording, job.weights, where, command) | cycles)


@contextmanager
def _opened(job: Job) -> Iterator[tuple[Any, CycleCounter | None]]:
    """The device; with a counter if `trace` asks for a timeline, or TT_SIM_COST_MODEL for wolfpine's cost model. In a
    ttnn graph nothing is counted: not each launch is a norm's."""
    platform, trace = job.platform, job.trace
    wanted = trace is not None or os.environ.get("TT_SIM_COST_MODEL") == "1"
    if platform.backend == "wolfpine" and wanted and job.graph == Graph.torch:
        with (
            environment({} if trace is None else {"TT_SIM_TRACE_PERFETTO": str(trace.absolute())}),
            open_counted(platform.arch) as (_, device, counter),
        ):
            yield device, counter
    else:
        with platform.open(mesh=job.mesh) as device:
            yield device, None


def _launches(counter: CycleCounter) -> list["LaunchCycles"]:
    from micro_ops.layernorm.plan import CB_INPUT, CB_OUTPUT
    from model_comparison.facts import CB_KEYS, LaunchCycles

    return [
        LaunchCycles(
            launch.cycles,
            asdict(Phases.of(launch.last, CB_INPUT, CB_OUTPUT)),
            {cb: launch.last.held(cb) for cb in CB_KEYS},
        )
        for launch in counter.launches()
    ]


def _print(comparison: "Comparison", content: dict[str, Any], output: Output) -> None:
    from model_comparison.terminal import MIN_WIDTH, print_comparison, verdict_line

    if output.as_json:
        print(json.dumps(content, indent=2, allow_nan=False))
    elif output.quiet:
        print(verdict_line(content))
    else:
        console = Console(width=max(Console().width, MIN_WIDTH))
        print_comparison(console, comparison, content)
        if output.report is not None:
            console.print(f"report: {output.report / 'report.html'}", highlight=False, soft_wrap=True)


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=True)


if __name__ == "__main__":
    run()
