"""fakecloud clock: business time."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from fakecloud.cli import client, output

app = typer.Typer(help="Business time: real, faster, or moved by hand.", no_args_is_help=True)

WAIT: Final = "1s"


@app.command()
def show(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show business time and how it passes.

    Example: fakecloud clock show
    """
    with client.connect(url, token_file) as cloud:
        _print(o, cloud.get("/v1/clock"))


@app.command("set")
def set_mode(
    mode: Annotated[str, typer.Argument(help="real, manual, or rate")],
    rate: Annotated[int | None, typer.Argument(help="with rate: times as fast as real")] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Change how business time passes; it goes on from where it is.

    Example: fakecloud clock set rate 3600
    """
    body: dict[str, Any] = {"mode": mode} | ({} if rate is None else {"rate": rate})
    with client.connect(url, token_file) as cloud:
        _print(o, cloud.put("/v1/clock", body))


@app.command()
def advance(
    by: Annotated[str | None, typer.Argument(help="90s, 5m, 12h or 30d")] = None,
    to: Annotated[str | None, typer.Option(help="RFC 3339, instead of a duration")] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Move business time forward and wait until it is there.

    Example: fakecloud clock advance 30d
    """
    body = {name: value for name, value in (("by", by), ("to", to)) if value is not None}
    with client.connect(url, token_file) as cloud:
        operation = cloud.post("/v1/clock:advance", body)
        operation = _waited(cloud, operation)
        if operation["status"] != "SUCCEEDED":
            raise client.CommandFailed(f"{operation['id']} ended as {operation['status']}")
        _print(o, cloud.get("/v1/clock"))


def _waited(cloud: client.Client, operation: Any) -> Any:
    """Return the operation when it has ended; show how far it is where somebody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("advancing", total=100)
        while not operation["done"]:
            operation = cloud.get(f"/v1/operations/{operation['id']}", wait=WAIT)
            progress.update(task, completed=operation["progress"])
    return operation


def _print(format: output.Format, clock: Any) -> None:
    if format is output.Format.JSON:
        output.json(clock)
        return
    columns = ("now", "mode", "rate", "status", "target")
    output.rows(format, columns, [[str(clock[name] or "-") for name in columns]])
