# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A report as files: one page that opens offline, report.json, and the figures as PNG."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.files import WriteError, written_whole
from model_comparison.block_diagram import SYMBOLS, diagram
from model_comparison.judge import Comparison
from model_comparison.norm_figures import norm_figures, timelines
from model_comparison.recording import Recording
from model_comparison.report import BLOCK_FIGURE, CYCLES_FIGURE, DATA, ReportError, read_report

PAGE = "report.html"
TEMPLATE = "report.html.jinja"


def check_folder(folder: Path) -> None:
    """Refuses what `write_report` would not replace: anything but an empty folder or an earlier report.

    Raises:
        ReportError
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ReportError(f"{folder}: a report is a folder, and this is a file: name another")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    ours = {PAGE, DATA, *(read_report(folder / DATA).get("figures", []) if DATA in names else [])}
    if DATA not in names or names - ours:
        raise ReportError(
            f"{folder}: holds {min(names - ours or names)}, which is no part of a report: name a new or empty folder"
        )


def write_report(folder: Path, content: dict[str, Any], recording: Recording, comparison: Comparison) -> None:
    """Writes report.html, report.json and the figures to a new folder beside, which then takes the place of `folder`:
    the report is there as a whole or not at all, and nothing of an earlier one is left.

    Args:
        content: what `report` made of `recording` and `comparison`

    Raises:
        ReportError: it can't be written, or `folder` holds anything else
    """
    folder = folder.resolve()
    check_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(folder, force=True) as new:
            new.mkdir()
            (new / DATA).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
            _write_page(new, content, recording, comparison)
    except (OSError, WriteError) as error:
        raise ReportError(f"{folder}: can't write the report ({error})") from error


def _write_page(folder: Path, content: dict[str, Any], recording: Recording, comparison: Comparison) -> None:
    block = diagram(comparison)
    (folder / BLOCK_FIGURE).write_bytes(block.png)
    svg = {}
    for norm in content["norms"]:
        name = norm["name"]
        figures = norm_figures(name, recording.norms[name], recording.result.norm(name), comparison.bounds)
        (folder / f"{name}.png").write_bytes(figures.png)
        svg[name] = figures.svg
    if "cycles" in recording.facts:
        lines = timelines(recording.facts["cycles"])
        (folder / CYCLES_FIGURE).write_bytes(lines.png)
        for name, line in lines.svg.items():
            svg[name]["timeline"] = line
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sci": _scientific, "short": comparison.short_names.__getitem__, "figure": _figure}
    changes = content["baseline"]["taps"] if content["baseline"] else []
    page = environment.get_template(TEMPLATE).render(
        content,
        block=block.svg["block"],
        svg=svg,
        states={(verdict.name, verdict.reference): comparison.state(verdict) for verdict in comparison.verdicts},
        symbols=SYMBOLS,
        changes={(change["name"], change["reference"]): change for change in changes},
    )
    (folder / PAGE).write_text(page)


def _scientific(value: float | None) -> str:
    return "not finite" if value is None else "0" if value == 0 else f"{value:.2e}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "not finite" if value is None else f"{value:.{digits}g}"
