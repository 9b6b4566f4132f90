"""Waiting for an operation, and saying how far it is: one changing line on a terminal, else lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from rich.console import Console
from rich.status import Status

from fakecloud.cli import client
from fakecloud.clock import SystemClock

STEP_S: Final = 1.0
"""How long the cloud holds one question; the line is as old as that at most."""


def follow(cloud: client.Client, operation: dict[str, Any], wait_s: float) -> dict[str, Any]:
    """Return the operation once it has ended, or as it is after `wait_s`; progress on stderr."""
    clock = SystemClock()
    deadline = clock.monotonic() + wait_s
    with _teller() as tell:
        while not operation["done"] and (left := deadline - clock.monotonic()) > 0:
            tell(operation)
            wait = f"{min(left, STEP_S):.3f}s"
            operation = cloud.get(f"/v1/operations/{operation['id']}", wait=wait)
    return operation


def line(operation: dict[str, Any]) -> str:
    """Return where an operation is: what it does, its phase, percent and when it should end."""
    parts = [f"{operation.get('target')}: {operation.get('type')}", operation.get("phase") or ""]
    if operation.get("progress"):
        parts.append(f"{operation['progress']} %")
    if operation.get("eta"):
        parts.append(f"until about {operation['eta']}")
    return ", ".join(part for part in parts if part)


class _Teller:
    def __init__(self, status: Status | None) -> None:
        self._status = status
        self._said = ""

    def __call__(self, operation: dict[str, Any]) -> None:
        now = line(operation)
        if now == self._said:
            return
        self._said = now
        if self._status is not None:
            self._status.update(now)
        else:
            typer.echo(now, err=True)


@contextmanager
def _teller() -> Iterator[_Teller]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Teller(None)
        return
    with console.status("") as status:
        yield _Teller(status)
