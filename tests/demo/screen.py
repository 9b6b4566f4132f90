"""What the reader sees: coloured on a terminal, plain lines in a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Screen:
    """Prints the story. Safe to use from several threads."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.is_terminal = self.console.is_terminal
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def act(self, title: str) -> None:
        """Begin an act."""
        with self._lock:
            self.console.print()
            self.console.print(Text(f"== {title}", style="bold cyan"))

    def fact(self, text: str, note: str = "") -> None:
        """Print something that was seen to be true."""
        with self._lock:
            line = Text("   ")
            line.append("ok ", style="bold green")
            line.append(text)
            if note:
                line.append(f"  {note}", style="dim")
            self.console.print(line)

    def line(self, text: str, style: str = "") -> None:
        """Print a line as it is."""
        with self._lock:
            self.console.print(Text(f"   {text}", style=style))

    def failure(self, text: str) -> None:
        """Print why the story stopped."""
        with self._lock:
            self.console.print(Text(f"FAILED: {text}", style="bold red"))

    def table(self, columns: list[str], rows: list[list[str]], right: set[int]) -> None:
        """Print a table; the columns in `right` hold numbers."""
        if not self.is_terminal:
            widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
            for row in [columns, *rows]:
                cells = [
                    cell.rjust(width) if i in right else cell.ljust(width)
                    for i, (cell, width) in enumerate(zip(row, widths, strict=True))
                ]
                self.line("  ".join(cells).rstrip())
            return
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i in right else "left")
        for row in rows:
            table.add_row(*row)
        with self._lock:
            self.console.print(table)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show how far long work is: a moving line on a terminal, a line per tenth elsewhere."""
        shown = Progress(self, label)
        try:
            yield shown
        finally:
            shown.end()


class Progress:
    """One piece of long work."""

    def __init__(self, screen: Screen, label: str) -> None:
        self._screen = screen
        self._began = time.monotonic()
        self._last = ("", -1)
        self._status = screen.console.status(label) if screen.is_terminal else None
        if self._status is not None:
            self._status.start()

    def at(self, fraction: float, label: str) -> None:
        """Say how far it is."""
        elapsed = int(time.monotonic() - self._began)
        if self._status is not None:
            self._status.update(f"{fraction:4.0%} {label} ({elapsed} s so far)")
            return
        now = (label, int(fraction * 10))
        if now != self._last:
            self._last = now
            self._screen.line(f"{fraction:4.0%} {label} ({elapsed} s so far)")

    def end(self) -> None:
        """Take the moving line away."""
        if self._status is not None:
            self._status.stop()
