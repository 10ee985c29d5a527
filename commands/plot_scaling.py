# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Draw how LayerNorm's cycles grow with rows and with width: ours, ttnn's and the floor, as bench_norms.py recorded
them in commands/bench_record.json.

Exit code: 0 the figure is drawn, 2 bad arguments or files, or a case is not recorded.
"""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from loguru import logger

from commands.bench_record import Record, Section
from common.command import ExitCode, start
from common.files import WriteError, written_whole
from tt_device import Arch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = {7168: (1, 3, 32, 128), 128: (1, 4, 32, 64, 256, 1024, 4096)}  # by width
WIDTHS = {32: (32, 128, 512, 1024, 7168), 1: (32, 64, 128, 256, 512, 1536, 4096, 7168, 16384, 28672)}  # by rows

Series = list[tuple[int, str]]  # place on the axis, and the case's name

app = typer.Typer(add_completion=False)


@app.command()
def main(
    file: Annotated[Path, typer.Argument(help="The figure, PNG.")],
    arch: Annotated[Arch, typer.Option(help="Of the simulated chip.")] = Arch.blackhole,
) -> None:
    """Needs no device. `bench_norms.py --record ours --record ttnn` measures what it draws."""
    record = Record(arch)
    over_rows = {f"width {width}": [(n, _name(n, width)) for n in rows] for width, rows in ROWS.items()}
    over_width = {
        "1 row" if rows == 1 else f"{rows} rows": [(n, _name(rows, n)) for n in widths]
        for rows, widths in WIDTHS.items()
    }
    names = dict.fromkeys(name for _, name in chain(*over_rows.values(), *over_width.values()))
    if missing := [name for name in names if record.get(Section.ours, name) is None]:
        logger.error(f"error: not recorded for {arch} (bench_norms.py --record ours): {', '.join(missing)}")
        raise typer.Exit(ExitCode.BAD_ARGUMENTS)
    try:
        with written_whole(file, force=True) as new:
            _draw(record, over_rows, over_width, new)
    except WriteError as error:
        logger.error(f"error: {error}")
        raise typer.Exit(ExitCode.BAD_ARGUMENTS) from error


def _name(rows: int, width: int) -> str:
    return f"LayerNorm [{rows}, {width}]"


def _draw(record: Record, over_rows: dict[str, Series], over_width: dict[str, Series], path: Path) -> None:
    import matplotlib as mpl

    from model_comparison import drawing

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(drawing.STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
        for axes, label, series in zip(panels, ("rows", "width (elements)"), (over_rows, over_width), strict=True):
            _draw_panel(axes, record, series)
            axes.set_xscale("log", base=4)
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.set_yscale("log")
            axes.set_xlabel(label)
            axes.legend()
        panels[0].set_ylabel("simulated cycles, DRAM to DRAM")
        path.write_bytes(drawing.as_png(figure))
        plt.close(figure)


def _draw_panel(axes: "Axes", record: Record, series: dict[str, Series]) -> None:
    from model_comparison.drawing import NEUTRAL, SECOND, WRONG

    lines = (
        ("ttnn", WRONG, Section.ttnn, "cycles"),
        ("ours", SECOND, Section.ours, "cycles"),
        ("floor", NEUTRAL, Section.ours, "floor"),
    )
    for (name, cases), style, marker in zip(series.items(), ("-", "--"), ("o", "s"), strict=True):
        for who, color, section, figure in lines:
            recorded = [(place, record.get(section, case)) for place, case in cases]
            points = [(place, entry[figure]) for place, entry in recorded if entry]
            places, cycles = zip(*points, strict=True)
            axes.plot(places, cycles, style, marker=marker, markersize=3.5, color=color, label=f"{who}, {name}")


def run() -> None:
    """The command."""
    start(app, ends_at_interrupt=False)


if __name__ == "__main__":
    run()
