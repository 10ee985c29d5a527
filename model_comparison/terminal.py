"""A comparison on the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from model_comparison.compare import Comparison, Tap, short

MIN_WIDTH = 132  # of the table of all taps: a figure that is cut is no figure


def print_comparison(console: Console, comparison: Comparison, content: dict[str, Any]) -> None:
    """
    Args:
        content: of the comparison's report
    """
    facts = content["facts"]
    mode = "each norm fed HuggingFace's input" if facts["isolated"] else "chained"
    console.print(
        _tap_table(f"{facts['model']} layer {facts['layer']}, tokens: {comparison.tokens}, {mode}", comparison)
    )
    if comparison.flips:
        console.print(_flip_table(comparison))
    index_topk = facts["index_topk"] or 0
    if not facts["isolated"] and index_topk >= comparison.tokens:
        console.print(f"index_topk is {index_topk}: each query attends to all keys, whatever k_norm gives.")
    for tap in comparison.taps:
        if tap.holds is False:
            console.print(_why(tap), highlight=False)
    if content["baseline"]:
        console.print(_change_table(content["baseline"]))
    colour = "green" if comparison.holds else "red"
    console.print(f"[{colour}]{verdict_line(content)}[/]", highlight=False, soft_wrap=True)
    for norm in content["norms"]:
        if norm["holds"] is False:
            hint = f"{short(norm['name'])}: {norm['diagnosis']['kind']}? {norm['diagnosis']['evidence']}"
            console.print(hint, highlight=False, soft_wrap=True)


def verdict_line(content: dict[str, Any]) -> str:
    """In one line, from a report's content."""
    verdict = content["verdict"]
    return f"{'PASS' if verdict['holds'] else 'FAIL'}: {verdict['sentence']}"


def _tap_table(title: str, comparison: Comparison) -> Table:
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
            short(tap.name),
            tap.reference,
            "x".join(map(str, tap.shape)),
            *figures,
            f"{tap.floor:.2e}",
            str(tap.launches),
            _verdict(tap.holds),
        )
    return table


def _flip_table(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="tokens that chose another set than HuggingFace's in bfloat16")
    table.add_column("choice")
    for column in ("tokens", "device", "float32", "scores had to move by", "float32 moves them by", "launches"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for flips in comparison.flips:
        figures = (flips.tokens, flips.flipped, flips.floor, f"{flips.needed:.2e}", f"{flips.noise:.2e}")
        table.add_row(flips.name, *map(str, figures), str(flips.launches), _verdict(flips.holds))
    return table


def _change_table(baseline: dict[str, Any]) -> Table:
    since = ", ".join(str(baseline[fact]) for fact in ("date", "commit") if baseline[fact])
    table = Table(box=box.SIMPLE_HEAD, title=f"against the report of {since or 'an unknown date'}")
    for column in ("tap", "against"):
        table.add_column(column)
    for column in ("rel. norm then", "now / then"):
        table.add_column(column, justify="right")
    table.add_column("change")
    colours = {"worse": "[red]worse[/]", "better": "[green]better[/]"}
    for tap in baseline["taps"]:
        then, ratio = tap.get("relative_norm"), tap.get("ratio")
        figures = ("" if then is None else f"{then:.2e}", "" if ratio is None else f"{ratio:.3f}")
        name = short(tap["name"])
        table.add_row(name, tap["reference"], *figures, colours.get(tap["change"], tap["change"]))
    return table


def _why(tap: Tap) -> str:
    name = f"{tap.name} against {tap.reference}"
    if tap.errors is None:
        return f"{name}: each token's choices flipped, so there is nothing to compare: take more --tokens"
    if not tap.launches:
        return f"{name}: the device ran no launch"
    result, expected = tap.errors.worst_values
    return f"{name}: the worst element is {tap.errors.worst}, {result} for {expected}"


def _verdict(holds: bool | None) -> str:
    return "" if holds is None else "[green]holds[/]" if holds else "[red]FAILS[/]"
