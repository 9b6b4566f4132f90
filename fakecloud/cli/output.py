"""What commands print: a table (with colours on a terminal), JSON, CSV, or Markdown."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


Output = Annotated[Format, typer.Option("-o", "--output", help="how to print")]

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_STYLES = {
    "ACTIVE": "green", "ONLINE": "green", "healthy": "green",
    "ERROR": "bold red", "OFFLINE": "red", "unhealthy": "red",
    "PENDING": "yellow", "PROVISIONING": "yellow", "UPDATING": "yellow", "DELETING": "yellow",
    "DEGRADED": "yellow",
}  # fmt: skip


def json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def rows(
    format: Format,
    columns: Sequence[str],
    lines: Iterable[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    total: Sequence[str] | None = None,
) -> None:
    """Print rows; `total` is the last line of a table, in CSV there is none."""
    made = [[clean(cell) for cell in line] for line in lines]
    if format is Format.CSV:
        csv.writer(sys.stdout, lineterminator="\n").writerows([columns, *made])
        return
    if total is not None:
        made.append(list(total))
    if format is Format.MARKDOWN:
        _markdown(columns, made, right)
        return
    console = Console()
    if console.is_terminal:
        _coloured(console, columns, made, right)
        return
    heads = [name.upper() for name in columns]
    widths = [max(len(line[i]) for line in [heads, *made]) for i in range(len(columns))]
    for line in [heads, *made]:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def _markdown(columns: Sequence[str], lines: list[list[str]], right: frozenset[str]) -> None:
    rule = ["---:" if name in right else "---" for name in columns]
    for line in (columns, rule, *lines):
        typer.echo(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |")


def _coloured(
    console: Console, columns: Sequence[str], lines: list[list[str]], right: frozenset[str]
) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name.upper(), justify="right" if name in right else "left")
    for line in lines:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in line))
    console.print(table)


def size(count: int) -> str:
    """Return bytes as people read them: 1536 is 1.5 KiB."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"


def clean(cell: str) -> str:
    """Return a cell without control characters: names are other people's text."""
    return "".join(char if char.isprintable() else "?" for char in cell)
