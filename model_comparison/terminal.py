# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison on the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from model_comparison.judge import Comparison, Verdict
from model_comparison.names import short_names

MIN_WIDTH = 132  # columns, of the table of verdicts: a narrower one would cut its figures


def print_comparison(console: Console, comparison: Comparison, content: dict[str, Any]) -> None:
    """
    Args:
        content: of the comparison's report
    """
    facts = content["facts"]
    mode = "each norm fed HuggingFace's input" if facts["isolated"] else "chained"
    mode += ", in a ttnn graph" if facts.get("graph") == "ttnn" else ""
    mode += f", over {facts['mesh']} chips" if facts.get("mesh", "1x1") != "1x1" else ""
    title = f"{facts['model']} layer {facts['layer']}, tokens: {comparison.tokens}, {mode}"
    console.print(_verdict_table(title, comparison))
    if comparison.flips:
        console.print(_flip_table(comparison))
    if any(verdict.name == "indexer scores" and verdict.holds is None for verdict in comparison.verdicts):
        index_topk = facts["index_topk"]
        console.print(f"index_topk is {index_topk}: each query attends to all keys, whatever the indexer's norms give.")
    for verdict in comparison.verdicts:
        if verdict.holds is False:
            console.print(_why(verdict), highlight=False)
    if content["baseline"]:
        console.print(_change_table(content["baseline"]))
    colour = "green" if comparison.holds else "red"
    console.print(f"[{colour}]{verdict_line(content)}[/]", highlight=False, soft_wrap=True)
    for norm in content["norms"]:
        if norm["holds"] is False:
            hint = (
                f"{comparison.short_names[norm['name']]}: {norm['diagnosis']['kind']}? {norm['diagnosis']['evidence']}"
            )
            console.print(hint, highlight=False, soft_wrap=True)


def verdict_line(content: dict[str, Any]) -> str:
    """In one line, from a report's content."""
    verdict = content["verdict"]
    return f"{'PASS' if verdict['holds'] else 'FAIL'}: {verdict['sentence']}"


def _verdict_table(title: str, comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, collapse_padding=True)
    for column in ("tap", "against"):
        table.add_column(column, no_wrap=True)
    for column in ("shape", "PCC", "max abs", "nearest", "ULP", "rel. norm", "floor", "launches"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for verdict in comparison.verdicts:
        errors = verdict.errors
        figures = ["no token left", "", "", "", ""]
        if errors:
            # Scaled ULPs need the size of the operands, which is known of a norm in float64 alone.
            ulps = f"{errors.scaled:.2f}" if verdict.reference == "float64" else ""
            figures = [f"{errors.pcc:.7f}", f"{errors.max_abs:.3g}", f"{errors.nearest:.4f}", ulps]
            figures.append(f"{errors.relative_norm:.2e}")
        table.add_row(
            comparison.short_names[verdict.name],
            verdict.reference,
            "x".join(map(str, verdict.shape)),
            *figures,
            f"{verdict.noise_floor:.2e}",
            str(verdict.launches),
            _holds(verdict.holds),
        )
    return table


def _flip_table(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="tokens that chose another set than HuggingFace's in bfloat16")
    table.add_column("choice")
    for column in ("tokens", "device", "float32", "scores had to move by", "float32 moves them by", "launches"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for flips in comparison.flips:
        figures = (flips.tokens, flips.flipped, flips.float32_flipped, f"{flips.needed:.2e}", f"{flips.noise:.2e}")
        table.add_row(flips.name, *map(str, figures), str(flips.launches), _holds(flips.holds))
    return table


def _change_table(baseline: dict[str, Any]) -> Table:
    since = ", ".join(str(baseline[fact]) for fact in ("date", "commit") if baseline[fact])
    table = Table(box=box.SIMPLE_HEAD, title=f"against the report of {since or 'an unknown date'}")
    for column in ("tap", "against"):
        table.add_column(column)
    for column in ("rel. norm then", "now / then"):
        table.add_column(column, justify="right")
    table.add_column("change")
    short = short_names(change["name"] for change in baseline["taps"])
    colours = {"worse": "[red]worse[/]", "better": "[green]better[/]"}
    for change in baseline["taps"]:
        then, ratio = change.get("relative_norm"), change.get("ratio")
        figures = ("" if then is None else f"{then:.2e}", "" if ratio is None else f"{ratio:.3f}")
        name = short[change["name"]]
        table.add_row(name, change["reference"], *figures, colours.get(change["change"], change["change"]))
    return table


def _why(verdict: Verdict) -> str:
    name = f"{verdict.name} against {verdict.reference}"
    if verdict.errors is None:
        return f"{name}: each token's choices flipped, so there is nothing to compare: take more --tokens"
    if not verdict.launches:
        return f"{name}: the device ran no launch"
    result, expected = verdict.errors.worst_values
    return f"{name}: the worst element is {verdict.errors.worst}, {result} for {expected}"


def _holds(holds: bool | None) -> str:
    return "" if holds is None else "[green]holds[/]" if holds else "[red]FAILS[/]"
