# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Measure our norms in simulated cycles, beside ttnn's own and beside the lower bound that the cost model sets.

Exit code: 0 every bar is reached, 1 one is missed or a result is wrong, 2 bad arguments or files, 3 no usable device.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import torch
import typer
from loguru import logger
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from common.command import ExitCode, start
from common.files import WriteError, check_writable, written_whole
from tt_device import Arch, PlatformError
from tt_device.cycles import CostTable, CycleCounter, Launch, Phases, cost_table, open_counted

if TYPE_CHECKING:
    from model_comparison.metrics import Errors
    from model_comparison.peers import Case

PEERS = Path(__file__).with_name("bench_peers.json")  # ttnn's figures, as last recorded
IN_CHECKOUT = (PEERS.parents[1] / "pyproject.toml").is_file()  # and not in an installed package

# Cycles to reach on one Blackhole core in bfloat16; None for a shape that must only not be slower than ttnn's norm.
BARS: dict[tuple[Literal["LayerNorm", "RMSNorm"], int, int], int | None] = {
    ("LayerNorm", 1, 7168): 3600,
    ("LayerNorm", 32, 7168): 45_000,
    ("LayerNorm", 32, 1024): 14_000,
    ("LayerNorm", 1, 128): 1900,
    ("LayerNorm", 32, 128): 5000,
    ("RMSNorm", 1, 7168): 3000,
    ("RMSNorm", 1, 1536): 2200,
    ("RMSNorm", 1, 512): 1800,
    # The shapes of test_layernorm.py, as matrices
    **{
        ("LayerNorm", rows, width): None
        for rows, width in (
            *((1, 32), (1, 64), (1, 256), (3, 32), (4, 128), (32, 32), (6, 37), (37, 41), (40, 37), (5, 384), (4, 512)),
            *((7, 512), (32, 512), (64, 128), (256, 64), (257, 32), (3, 1025), (4, 4096), (3, 7168), (2, 16384)),
        )
    },
}
ARCH_FACTOR = {Arch.blackhole: 1.0, Arch.wormhole: 1.35}  # times as many there
FLOAT32_FACTOR = 2.2  # times as many
FLOAT32_CASES: list[tuple[Literal["LayerNorm", "RMSNorm"], int, int]] = [
    ("LayerNorm", 1, 7168),
    ("LayerNorm", 1, 128),
    ("LayerNorm", 32, 128),
    ("RMSNorm", 1, 7168),
]
# For each row more: from how many rows to how many, of which width, and cycles to reach.
GROWTH = [(1, 32, 7168, 1350), (32, 64, 128, 90)]


@dataclass(frozen=True)
class LowerBound:
    """Fewest cycles that the cost model leaves to a norm on one core, whatever the kernels are like.

    Attributes:
        launch: of a program whose kernels do nothing, measured in the same run
        read: until the first row is in L1: the request's flight, the bank, the way back, and the stick's bytes
        compute: of one row: it is unpacked to be normalized, and each SFPU instruction makes 32 elements a cycle:
            one to load them, one to multiply and add, one to store them. Statistics cost nothing here.
        rows: of all rows but one, by what they share: link in, link out, unpacker (twice: the mean must be known before
            a row is normalized), SFPU
        write: of the last bytes: the flight and the bank
    """

    launch: int
    read: float
    compute: float
    rows: float
    write: float

    @property
    def cycles(self) -> int:
        return round(self.launch + self.read + self.compute + self.rows + self.write)

    @classmethod
    def of(cls, case: "Case", costs: CostTable, launch: int) -> "LowerBound":
        stick = case.width * case.dtype.itemsize
        sfpu = 3 * case.width / 32
        return cls(
            launch=launch,
            read=2 * costs.flight + costs.read_latency + stick / min(costs.bank, costs.link),
            compute=max(stick / costs.unpack, sfpu),
            rows=(case.rows - 1) * max(stick / costs.link, 2 * stick / costs.unpack, sfpu),
            write=costs.flight + costs.write_latency,
        )


@dataclass(frozen=True)
class Result:
    case: str
    cycles: int
    bar: int | None
    lower_bound: LowerBound
    phases: Phases
    errors: "Errors"
    peer: dict[str, Any] | None  # cycles, cores, exact, raw, scaled, date

    @property
    def is_reached(self) -> bool:
        """Where there is no bar, ttnn's is: as many cycles as it takes of all its cores."""
        bar = self.peer["cycles"] * self.peer["cores"] if self.bar is None and self.peer else self.bar
        return bar is None or self.cycles <= bar

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
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Measure ttnn's norms, too: slow. In a checkout they are recorded in commands/bench_peers.json, for"
            " the runs after; an installed package stays as it is.",
        ),
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.png.")] = None,
) -> None:
    """Print the cycles of a warm launch from GO to DONE, on wolfpine with its cost model.

    The model is a lower bound of what a chip takes, good for comparing kernels in the same run. Not in it: the host,
    dispatch, most of the packer, congestion, other cores.
    """
    console = Console(width=max(Console().width, 150))
    cases = _cases(pattern, arch)
    if not cases:
        _stop(f"no case matches {pattern!r}", ExitCode.BAD_ARGUMENTS)
    try:
        if output:
            check_writable(output)
        if peers and IN_CHECKOUT:
            check_writable(PEERS.parent)
        results = _measure_all(cases, arch, peers)
    except PlatformError as error:
        _stop(error, ExitCode.NO_DEVICE)
    except WriteError as error:
        _stop(error, ExitCode.BAD_ARGUMENTS)
    growth = _growth(results, arch)
    console.print(_speed(results, arch))
    console.print(_where(results))
    for line, reached in growth:
        console.print(line if reached else f"[red]{line}[/]", highlight=False)
    if output:
        content = {"arch": arch, "date": _today(), "results": [_as_json(result) for result in results]}
        try:
            with written_whole(output / "bench.json", force=True) as new:
                new.write_text(json.dumps(content, indent=2, default=str) + "\n")
            with written_whole(output / "bench.png", force=True) as new:
                _plot(results, arch, new)
        except WriteError as error:
            _stop(error, ExitCode.BAD_ARGUMENTS)
    if not all(result.is_right and result.is_reached for result in results) or not all(held for _, held in growth):
        raise typer.Exit(ExitCode.FAILS)


def _stop(error: object, code: ExitCode) -> NoReturn:
    logger.error(f"error: {error}")
    raise typer.Exit(code)


def _cases(pattern: str, arch: Arch) -> dict["Case", int | None]:
    """Those that match, with the cycles to reach on `arch`."""
    from model_comparison.peers import Case

    factor = ARCH_FACTOR[arch]
    cases = {Case(*key): bar and round(bar * factor) for key, bar in BARS.items()}
    for key in FLOAT32_CASES:
        bar = BARS[key]
        cases[Case(*key, dtype=torch.float32)] = bar and round(bar * factor * FLOAT32_FACTOR)
    return {case: bar for case, bar in cases.items() if fnmatchcase(str(case), pattern.replace("[", "[[]"))}


def _measure_all(cases: dict["Case", int | None], arch: Arch, with_peers: bool) -> list[Result]:
    costs, recorded = cost_table(arch), _recorded()
    with open_counted(arch, timeout=600) as (platform, device, counter):
        logger.info(f"device: {platform}, cost model on")
        launch = _launch_of_nothing(device, counter)
        results = []
        for case, bar in track(cases.items(), "measuring", console=Console(stderr=True), transient=True):
            peer = recorded.get(arch, {}).get(str(case))
            if with_peers:
                peer = _measure_peer(case, device, counter)
                recorded.setdefault(arch, {})[str(case)] = peer
                if IN_CHECKOUT:
                    with written_whole(PEERS, force=True) as new:
                        new.write_text(json.dumps(recorded, indent=2) + "\n")
            results.append(_measure(case, bar, peer, device, counter, LowerBound.of(case, costs, launch)))
    return results


def _growth(results: list[Result], arch: Arch) -> list[tuple[str, bool]]:
    """For each of `GROWTH` whose both ends were measured: a line, and whether its bar is reached."""
    from model_comparison.peers import Case

    cycles = {result.case: result.cycles for result in results}
    growth = []
    for few, many, width, bar in GROWTH:
        first, last = (cycles.get(str(Case("LayerNorm", rows, width))) for rows in (few, many))
        if first and last:
            each, bar = (last - first) / (many - few), round(bar * ARCH_FACTOR[arch])
            growth.append((f"each row of {width} more: {each:,.0f} cycles, bar {bar:,}", each <= bar))
    return growth


def _measure(
    case: "Case",
    bar: int | None,
    peer: dict[str, Any] | None,
    device: Any,
    counter: CycleCounter,
    lower_bound: LowerBound,
) -> Result:
    """Runs `case` twice; the first launch's result is checked, the second one's cycles count."""
    from micro_ops.layernorm.plan import CB_INPUT, CB_OUTPUT
    from model_comparison.peers import Trial

    trial = Trial(case, device)
    errors = trial.errors(trial.run_ours())
    warm = _last_launch(trial.run_ours, device, counter)
    return Result(str(case), warm.cycles, bar, lower_bound, Phases.of(warm.last, CB_INPUT, CB_OUTPUT), errors, peer)


def _measure_peer(case: "Case", device: Any, counter: CycleCounter) -> dict[str, Any]:
    from model_comparison.peers import Trial

    trial = Trial(case, device)
    errors = trial.errors(trial.run_ttnns())
    warm = _last_launch(trial.run_ttnns, device, counter)
    exactness = {"exact": errors.equal, "raw": errors.raw, "scaled": errors.scaled}
    return {"cycles": warm.cycles, "cores": warm.cores, **exactness, "date": _today()}


def _last_launch(run: Callable[[], Any], device: Any, counter: CycleCounter) -> Launch:
    import ttnn

    run()
    ttnn.synchronize_device(device)
    return counter.launches()[-1]


def _launch_of_nothing(device: Any, counter: CycleCounter) -> int:
    """Cycles of a program whose five kernels do nothing."""
    import ttnn

    core = ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(0, 0))
    configs = (ttnn.ReaderConfigDescriptor(), ttnn.WriterConfigDescriptor(), ttnn.ComputeConfigDescriptor())
    kernels = [
        ttnn.KernelDescriptor(
            kernel_source="#include <cstdint>\nvoid kernel_main() {}\n",
            source_type=ttnn.KernelDescriptor.SourceType.SOURCE_CODE,
            core_ranges=ttnn.CoreRangeSet([core]),
            config=config,
        )
        for config in configs
    ]
    program = ttnn.ProgramDescriptor(kernels=kernels, semaphores=[], cbs=[])
    tensor = ttnn.allocate_tensor_on_device(
        ttnn.Shape([1, 32]), ttnn.bfloat16, ttnn.ROW_MAJOR_LAYOUT, device, ttnn.DRAM_MEMORY_CONFIG
    )
    ttnn.generic_op([tensor, tensor], program)
    return _last_launch(lambda: ttnn.generic_op([tensor, tensor], program), device, counter).cycles


def _speed(results: list[Result], arch: Arch) -> Table:
    columns = (
        "cycles",
        "bar",
        "ttnn",
        "cores",
        "ttnn / ours",
        "floor",
        "ours / floor",
        "exact",
        "ttnn's",
        "scaled ULP",
    )
    table = _titled(f"Simulated cycles on one core of {arch}, DRAM to DRAM", *columns, verdict=True)
    for r in results:
        verdict = "[red]WRONG[/]" if not r.is_right else "[green]reached[/]" if r.is_reached else "[red]MISSED[/]"
        table.add_row(
            r.case,
            f"{r.cycles:,}",
            f"{r.bar:,}" if r.bar else "",
            f"{r.peer['cycles']:,}" if r.peer else "",
            str(r.peer["cores"]) if r.peer else "",
            f"{r.peer['cycles'] / r.cycles:.1f}" if r.peer else "",
            f"{r.lower_bound.cycles:,}",
            f"{r.cycles / r.lower_bound.cycles:.2f}",
            f"{r.errors.equal:.4f}",
            f"{r.peer['exact']:.4f}" if r.peer else "",
            f"{r.errors.scaled:.2g}",
            verdict,
        )
    dates = sorted({r.peer["date"] for r in results if r.peer})
    if dates:
        table.caption = (
            f"ttnn's norms (tiles in and out, float32 Dest, HiFi4): measured {' and '.join(dates)}.\n"
            "A case without a bar is held to ttnn's cycles times the cores that it takes."
        )
    return table


def _where(results: list[Result]) -> Table:
    columns = ("start", "statistics", "normalize", "write", "compute waits", "writer waits")
    table = _titled("Where the cycles go", *columns)
    for r in results:
        p = r.phases
        cycles = (p.start, p.statistics, p.normalize, p.write, p.compute_waits, p.writer_waits)
        table.add_row(r.case, *(f"{c:,}" for c in cycles))
    table.caption = (
        "Of the core that ended last. start: until the first piece of x is in L1; statistics: until the first output;\n"
        "normalize: until the last; write: until the end. Reads, writes and statistics of other rows lie behind."
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
    """Each case's phases as a bar, with its lower bound, its bar and ttnn's figure as marks on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 0.42 * len(results) + 1.6), layout="constrained")
    places = range(len(results))
    axes.barh(places, [r.cycles for r in results], height=0.55, color="#4477aa", label="ours")
    marks: list[tuple[str, str, str, list[int | None]]] = [
        ("floor", "|", "black", [r.lower_bound.cycles for r in results]),
        ("bar", "D", "#228833", [r.bar for r in results]),
        ("ttnn", "o", "#ee6677", [r.peer["cycles"] if r.peer else None for r in results]),
    ]
    for label, marker, color, values in marks:
        known = [(value, place) for place, value in zip(places, values, strict=True) if value]
        axes.scatter([x for x, _ in known], [y for _, y in known], s=60, c=color, marker=marker, label=label, zorder=3)
    axes.set_yticks(places, [r.case for r in results])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"simulated cycles from GO to DONE, {arch}, one core (wolfpine's cost model)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)


def _recorded() -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(PEERS.read_text()) if PEERS.exists() else {}
    return content


def _as_json(result: Result) -> dict[str, Any]:
    """With the columns' names in the printed tables for what has another one here."""
    content = asdict(result)
    content["floor"] = content.pop("lower_bound")
    content["errors"]["exact"] = content["errors"].pop("equal")
    return content


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=True)


if __name__ == "__main__":
    run()
