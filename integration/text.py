# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""Names and tables, as they are printed."""

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table


def abridged(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def new_table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        right = column in ("width", "eps", "layer", "launches", "fallbacks")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table


def as_text(table: Table) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]
