# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Measure our norms in simulated cycles, beside ttnn's own, ours on one core, and the floor that the model's DRAM sets.

Exit code: 0 every bar is reached, 1 one is missed or a result is wrong, 2 bad arguments or files, 3 no usable device.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import torch
import typer
from loguru import logger
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from commands import bench_record
from commands.bench_record import Record, Section
from common.command import ExitCode, start
from common.files import WriteError, check_writable, written_whole
from tt_device import Arch, PlatformError
from tt_device.cycles import CostTable, CycleCounter, Launch, Phases, cost_table, open_counted

if TYPE_CHECKING:
    from model_comparison.metrics import Errors
    from model_comparison.peers import Case, Trial

Norm = Literal["LayerNorm", "RMSNorm"]

# Cycles to reach on Blackhole in bfloat16. Every shape, one without a bar too, is held to ttnn's cycles and to ours on
# one core.
BARS: dict[tuple[Norm, int, int], int | None] = {
    ("LayerNorm", 1, 7168): 2400,
    ("LayerNorm", 32, 7168): 5200,
    ("LayerNorm", 128, 7168): 14_000,
    ("LayerNorm", 32, 1024): 2400,
    ("LayerNorm", 1, 128): 1900,
    ("LayerNorm", 32, 128): 2000,
    ("LayerNorm", 64, 128): 2200,
    ("LayerNorm", 256, 64): 2600,
    ("LayerNorm", 257, 32): 2600,
    ("LayerNorm", 1024, 128): 3600,
    ("LayerNorm", 1024, 1536): 24_000,
    ("RMSNorm", 1, 7168): 2100,
    ("RMSNorm", 32, 7168): 4600,
    ("RMSNorm", 128, 7168): 13_500,
    ("RMSNorm", 32, 1024): 2200,
    ("RMSNorm", 1, 1536): 2200,
    ("RMSNorm", 1, 512): 1800,
    ("RMSNorm", 32, 128): 1900,
    ("RMSNorm", 64, 128): 2100,
    ("RMSNorm", 256, 64): 2500,
    ("RMSNorm", 257, 32): 2500,
    ("RMSNorm", 1024, 128): 3300,
    ("RMSNorm", 1024, 1536): 23_000,
    **{
        ("LayerNorm", rows, width): None
        for rows, width in (
            # The shapes of test_layernorm.py, as matrices
            *((1, 32), (1, 64), (1, 256), (3, 32), (4, 128), (32, 32), (6, 37), (37, 41), (40, 37), (5, 384), (4, 512)),
            *((7, 512), (32, 512), (3, 1025), (4, 4096), (3, 7168), (2, 16384)),
            # What docs/scaling.png shows beside
            *((1, 512), (1, 1536), (1, 4096), (1, 16384), (1, 28672), (256, 128), (4096, 128)),
        )
    },
}
ARCH_FACTOR = {Arch.blackhole: 1.0, Arch.wormhole: 1.35}  # times as many there
FLOAT32_FACTOR = 2.2  # times as many
FLOAT32_CASES: list[tuple[Norm, int, int]] = [
    ("LayerNorm", 1, 7168),
    ("LayerNorm", 1, 128),
    ("LayerNorm", 32, 128),
    ("RMSNorm", 1, 7168),
]
# DeepSeek-V4's RMSNorms without a weight: of 64 heads a token, and over its four streams of hidden states side by side.
# Rows, width, dtype and, where that is the bar, times the floor.
UNWEIGHTED: list[tuple[int, int, torch.dtype, float | None]] = [
    (64, 512, torch.bfloat16, None),
    (2048, 512, torch.bfloat16, 1.4),
    (1, 16384, torch.float32, None),  # 4 x 4096, one token
    (32, 16384, torch.float32, None),
    (1, 28672, torch.float32, None),  # 4 x 7168
    (32, 28672, torch.float32, None),
]
# Tiles in L1, on as many shards by width as tt-metal's demo has or on eight: rows, width, columns and rows of cores,
# and the bars: 0.35 of what ttnn's LayerNorm, and 0.5 of what its RMSNorm took with as many shards, on a wolfpine whose
# multicasts were mended: 8,330 and 5,213, 9,162 and 5,779, 11,720 and 6,942. As it is, ttnn's hangs there on more than
# 4 x 2 cores.
SHARDED: list[tuple[int, int, tuple[int, int], dict[Norm, int]]] = [
    (32, 512, (4, 2), {"LayerNorm": 2915, "RMSNorm": 2606}),
    (32, 1536, (4, 4), {"LayerNorm": 3206, "RMSNorm": 2889}),
    (32, 7168, (4, 7), {"LayerNorm": 4102, "RMSNorm": 3471}),
]
# One row that lies whole in one core's L1, as in low-latency decoding: bars by norm.
ROW_IN_L1: tuple[int, dict[Norm, int]] = (7168, {"LayerNorm": 2700, "RMSNorm": 2000})
# Tiles in DRAM, which are held to so many times the cycles of sticks, as recorded.
TILES: list[tuple[int, int]] = [(32, 7168), (1024, 128)]
TIMES_STICKS = 1.25
# By how many cycles a case may exceed its recorded ones on one core.
ONE_CORE_SLACK = 30
# Launches of one and the same program differ by up to 60 cycles, because firmware polls for GO. Of cases of so many
# elements at most, which such a difference matters to, so many are measured, and the fewest cycles count.
SMALL_ELEMENTS, SMALL_LAUNCHES = 8192, 5
TIMEOUT = 3600  # seconds: wolfpine simulates a long launch on the whole grid for half an hour, and is silent meanwhile


@dataclass(frozen=True)
class Bar:
    """What a case must not exceed beside ttnn's cycles and ours on one core: `cycles`, or `floors` times the floor, or
    TIMES_STICKS times what is recorded of the case `sticks`."""

    cycles: int | None = None
    floors: float | None = None
    sticks: str | None = None

    def over(self, floor: int, record: Record) -> int | None:
        """Cycles, where the floor is `floor`."""
        if self.sticks is not None:
            entry = record.get(Section.ours, self.sticks)
            return round(TIMES_STICKS * entry["cycles"]) if entry else None
        return self.cycles if self.floors is None else round(self.floors * floor)


@dataclass(frozen=True)
class Floor:
    """Fewest cycles that launch and DRAM leave to a norm, on however many cores and whatever its kernels are like.

    Attributes:
        launch: of a program whose kernels do nothing, on as many cores, measured in the same run
        round_trip: the first request's way to a bank, the last write's acknowledgement from one, and what a bank takes
            before it serves either
        transfer: x and y once and the weights once, over all banks; but never less than one bank takes for its rows of
            x and y. A row is a page, and page n of a tensor lies in bank n modulo banks. The weights may lie anywhere,
            and so may tiles.
    """

    launch: int
    round_trip: int
    transfer: float

    @property
    def cycles(self) -> int:
        return round(self.launch + self.round_trip + self.transfer)

    @classmethod
    def of(cls, case: "Case", costs: CostTable, launch: int) -> "Floor":
        row = case.width * case.dtype.itemsize  # bytes
        if case.shards:  # x and y are where they are to be: the weights alone cross DRAM
            return cls(launch, costs.round_trip + costs.read_latency, case.weights * row / costs.banks / costs.bank)
        even = (2 * case.rows + case.weights) * row / costs.banks
        busiest = 0 if case.tiles else 2 * math.ceil(case.rows / costs.banks) * row
        return cls(
            launch=launch,
            round_trip=costs.round_trip + costs.read_latency + costs.write_latency,
            transfer=max(even, busiest) / costs.bank,
        )


@dataclass(frozen=True)
class Result:
    """
    Attributes:
        one_core: cycles on one core, as recorded; None if there is no record
        bar: cycles
        peer: ttnn's cycles, cores, exact, raw, scaled and date, as recorded
    """

    case: str
    cycles: int
    cores: int
    one_core: int | None
    bar: int | None
    floor: Floor
    phases: Phases
    errors: "Errors"
    peer: dict[str, Any] | None

    @property
    def missed(self) -> list[str]:
        """What it was to reach and did not, by the names of the printed columns."""
        limits = {
            "bar": self.bar,
            "one core": None if self.one_core is None else self.one_core + ONE_CORE_SLACK,
            "ttnn": self.peer["cycles"] if self.peer else None,
        }
        return [name for name, limit in limits.items() if limit is not None and self.cycles > limit]

    @property
    def is_right(self) -> bool:
        """Not less exact than ttnn's by any of three measures, and within one ULP of the exact value."""
        peer = self.peer or {"exact": 0.0, "raw": 0.0}
        return self.errors.equal >= peer["exact"] and self.errors.raw >= peer["raw"] and self.errors.scaled <= 1


app = typer.Typer(add_completion=False)


@app.command()
def main(
    pattern: Annotated[str, typer.Argument(help='Of cases, as in "LayerNorm*7168*".')] = "*",
    arch: Annotated[Arch, typer.Option(help="Of the simulated chip.")] = Arch.blackhole,
    record: Annotated[
        list[Section] | None,
        typer.Option(
            help="Measure ttnn's norms, or ours on one core, which are else taken from commands/bench_record.json, or"
            " keep ours on the whole grid for docs/scaling.png. Slow; may be given several times. In a checkout the"
            " file is renewed, case by case; an installed package stays as it is.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.png.")] = None,
) -> None:
    """Print the cycles of a warm launch, first core's GO to last core's DONE, on wolfpine with its cost model.

    The model is a lower bound of what a chip takes, good for comparing kernels in the same run. Not in it: the host,
    dispatch, most of the packer, and of congestion receiving ports, L1 ports and banks, and virtual channels.
    """
    console = Console(width=max(Console().width, 180))
    cases = find_cases(pattern, arch)
    if not cases:
        _stop(f"no case matches {pattern!r}", ExitCode.BAD_ARGUMENTS)
    try:
        if output:
            check_writable(output)
        if record and bench_record.IN_CHECKOUT:
            check_writable(bench_record.PATH.parent)
        results = _measure_all(cases, arch, record or [])
    except PlatformError as error:
        _stop(error, ExitCode.NO_DEVICE)
    except WriteError as error:
        _stop(error, ExitCode.BAD_ARGUMENTS)
    console.print(_speed(results, arch))
    console.print(_where(results))
    if output:
        today = datetime.now(UTC).date().isoformat()
        content = {"arch": arch, "date": today, "results": [_as_json(result) for result in results]}
        try:
            with written_whole(output / "bench.json", force=True) as new:
                new.write_text(json.dumps(content, indent=2, default=str) + "\n")
            with written_whole(output / "bench.png", force=True) as new:
                _plot(results, arch, new)
        except WriteError as error:
            _stop(error, ExitCode.BAD_ARGUMENTS)
    if not all(result.is_right and not result.missed for result in results):
        raise typer.Exit(ExitCode.FAILS)


def _stop(error: object, code: ExitCode) -> NoReturn:
    logger.error(f"error: {error}")
    raise typer.Exit(code)


def find_cases(pattern: str, arch: Arch) -> dict["Case", Bar]:
    """Those whose names match, and their bars on `arch`."""
    from model_comparison.peers import Case

    factor = ARCH_FACTOR[arch]
    cases = {Case(*key): Bar(bar and round(bar * factor)) for key, bar in BARS.items()}
    for key in FLOAT32_CASES:
        bar = BARS[key]
        cases[Case(*key, dtype=torch.float32)] = Bar(bar and round(bar * factor * FLOAT32_FACTOR))
    for rows, width, dtype, floors in UNWEIGHTED:
        cases[Case("RMSNorm", rows, width, dtype, has_weights=False)] = Bar(floors=floors)
    if arch == Arch.blackhole:  # wolfpine's Wormhole hangs in reading L1 of several cores back
        for rows, width, shards, bars in SHARDED:
            cases |= {Case(norm, rows, width, tiles=True, shards=shards): Bar(bar) for norm, bar in bars.items()}
        width, bars = ROW_IN_L1
        cases |= {Case(norm, 1, width, shards=(1, 1)): Bar(bar) for norm, bar in bars.items()}
    for rows, width in TILES:
        for norm in get_args(Norm):
            cases[Case(norm, rows, width, tiles=True)] = Bar(sticks=str(Case(norm, rows, width)))
    return {case: bar for case, bar in cases.items() if fnmatchcase(str(case), pattern.replace("[", "[[]"))}


def _measure_all(cases: dict["Case", Bar], arch: Arch, to_record: list[Section]) -> list[Result]:
    from model_comparison.peers import Trial

    costs, record = cost_table(arch), Record(arch)
    with open_counted(arch, TIMEOUT) as (platform, device, counter):
        logger.info(f"device: {platform}, cost model on")
        stopwatch = Stopwatch(device, counter)
        results = []
        for case, bar in track(cases.items(), "measuring", console=Console(stderr=True), transient=True):
            name = str(case)
            trial = Trial(case, device)
            if Section.ttnn in to_record:
                errors = trial.errors(trial.run_ttnns())
                warm = stopwatch.last_launch(trial.run_ttnns)
                exactness = {"exact": errors.equal, "raw": errors.raw, "scaled": errors.scaled}
                record.put(Section.ttnn, name, cycles=warm.cycles, cores=warm.cores, **exactness)
            if Section.one_core in to_record:
                alone = Trial(case, device, cores=1)
                alone.run_ours()
                record.put(Section.one_core, name, cycles=stopwatch.last_launch(alone.run_ours).cycles)
            result = _measure(trial, bar, costs, record, stopwatch)
            if Section.ours in to_record:
                record.put(Section.ours, name, cycles=result.cycles, cores=result.cores, floor=result.floor.cycles)
            results.append(result)
    return results


class Stopwatch:
    """Counts launches on an open device."""

    def __init__(self, device: Any, counter: CycleCounter) -> None:
        self._device = device
        self._counter = counter
        self.of_nothing = cache(self._of_nothing)

    def last_launch(self, run: Callable[[], Any]) -> Launch:
        """The last one in `run`."""
        import ttnn

        run()
        ttnn.synchronize_device(self._device)
        return self._counter.launches()[-1]

    def _of_nothing(self, cores: int) -> int:
        """Cycles of a program whose five kernels do nothing, on the first `cores` of the grid."""
        import ttnn

        grid = self._device.compute_with_storage_grid_size()
        core_ranges = ttnn.num_cores_to_corerangeset(cores, grid, row_wise=True)
        configs = (ttnn.ReaderConfigDescriptor(), ttnn.WriterConfigDescriptor(), ttnn.ComputeConfigDescriptor())
        kernels = [
            ttnn.KernelDescriptor(
                kernel_source="#include <cstdint>\nvoid kernel_main() {}\n",
                source_type=ttnn.KernelDescriptor.SourceType.SOURCE_CODE,
                core_ranges=core_ranges,
                config=config,
            )
            for config in configs
        ]
        program = ttnn.ProgramDescriptor(kernels=kernels, semaphores=[], cbs=[])
        tensor = ttnn.allocate_tensor_on_device(
            ttnn.Shape([1, 32]), ttnn.bfloat16, ttnn.ROW_MAJOR_LAYOUT, self._device, ttnn.DRAM_MEMORY_CONFIG
        )
        ttnn.generic_op([tensor, tensor], program)
        return self.last_launch(lambda: ttnn.generic_op([tensor, tensor], program)).cycles


def _measure(trial: "Trial", bar: Bar, costs: CostTable, record: Record, stopwatch: Stopwatch) -> Result:
    """Runs ours once, and checks the result; then for its cycles."""
    from micro_ops.layernorm.plan import CB_INPUT, CB_OUTPUT

    name = str(trial.case)
    errors = trial.errors(trial.run_ours())
    repeats = SMALL_LAUNCHES if trial.case.rows * trial.case.width <= SMALL_ELEMENTS else 1
    warm = min((stopwatch.last_launch(trial.run_ours) for _ in range(repeats)), key=lambda launch: launch.cycles)
    floor = Floor.of(trial.case, costs, stopwatch.of_nothing(warm.cores))
    one_core = record.get(Section.one_core, name)
    return Result(
        case=name,
        cycles=warm.cycles,
        cores=warm.cores,
        one_core=one_core["cycles"] if one_core else None,
        bar=bar.over(floor.cycles, record),
        floor=floor,
        phases=Phases.of(warm.last, CB_INPUT, CB_OUTPUT),
        errors=errors,
        peer=record.get(Section.ttnn, name),
    )


def _speed(results: list[Result], arch: Arch) -> Table:
    columns = ("cycles", "cores", "one core", "bar", "ttnn (cores)", "floor", "ratio", "exact", "ttnn's", "scaled ULP")
    table = _titled(
        f"Simulated cycles on {arch}, DRAM to DRAM, or L1 to L1 where there are shards", *columns, verdict=True
    )
    for r in results:
        reached = f"[red]MISSED: {', '.join(r.missed)}[/]" if r.missed else "[green]reached[/]"
        table.add_row(
            r.case,
            f"{r.cycles:,}",
            str(r.cores),
            f"{r.one_core:,}" if r.one_core else "",
            f"{r.bar:,}" if r.bar else "",
            f"{r.peer['cycles']:,} ({r.peer['cores']})" if r.peer else "",
            f"{r.floor.cycles:,}",
            f"{r.cycles / r.floor.cycles:.2f}",
            f"{r.errors.equal:.4f}",
            f"{r.peer['exact']:.4f}" if r.peer else "",
            f"{r.errors.scaled:.2g}",
            reached if r.is_right else "[red]WRONG[/]",
        )
    table.caption = (
        f"Each case is held to its bar, to ttnn's cycles, and to its own on one core + {ONE_CORE_SLACK}."
        " ratio: cycles / floor."
    )
    dates = sorted({r.peer["date"] for r in results if r.peer})
    if dates:
        table.caption += f"\nttnn's norms (tiles in and out, float32 Dest, HiFi4): measured {' and '.join(dates)}."
    return table


def _where(results: list[Result]) -> Table:
    columns = ("start", "statistics", "normalize", "write", "compute waits", "writer waits")
    table = _titled("Where the cycles go on the core that ended last", *columns)
    for r in results:
        p = r.phases
        cycles = (p.start, p.statistics, p.normalize, p.write, p.compute_waits, p.writer_waits)
        table.add_row(r.case, *(f"{c:,}" for c in cycles))
    table.caption = (
        "start: until the first piece of x is in L1; statistics: until the first output; normalize: until the last;\n"
        "write: until the end. Reads, writes and statistics of other rows lie behind."
    )
    return table


def _titled(title: str, *figures: str, verdict: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title)
    table.add_column("case", no_wrap=True)
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    if verdict:
        table.add_column("", no_wrap=True)
    return table


def _plot(results: list[Result], arch: Arch, path: Path) -> None:
    """Each case's cycles as a bar; floor, bar, one core's cycles and ttnn's as marks on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 0.42 * len(results) + 1.6), layout="constrained")
    places = range(len(results))
    axes.barh(places, [r.cycles for r in results], height=0.55, color="#4477aa", label="ours")
    marks: list[tuple[str, str, str, list[int | None]]] = [
        ("floor", "|", "black", [r.floor.cycles for r in results]),
        ("bar", "D", "#228833", [r.bar for r in results]),
        ("one core", "s", "#aa7744", [r.one_core for r in results]),
        ("ttnn", "o", "#ee6677", [r.peer["cycles"] if r.peer else None for r in results]),
    ]
    for label, marker, color, values in marks:
        known = [(value, place) for place, value in zip(places, values, strict=True) if value]
        axes.scatter([x for x, _ in known], [y for _, y in known], s=60, c=color, marker=marker, label=label, zorder=3)
    axes.set_yticks(places, [r.case for r in results])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"simulated cycles from the first GO to the last DONE, {arch} (wolfpine's cost model)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def _as_json(result: Result) -> dict[str, Any]:
    """With the columns' names in the printed tables for what has another one here."""
    content = asdict(result)
    content["floor"]["cycles"] = result.floor.cycles
    content["errors"]["exact"] = content["errors"].pop("equal")
    return content


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=True)


if __name__ == "__main__":
    run()
