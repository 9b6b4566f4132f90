"""fakecloud op: operations.

Exit codes: 0 done, 1 failed (also: it ended otherwise than well, or not in time), 2 wrong usage.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from fakecloud.cli import client, output, progress

app = typer.Typer(help="Operations: the progress of asynchronous work.", no_args_is_help=True)

COLUMNS: Final = ("id", "type", "target", "status", "phase", "progress", "eta", "error")

Id = Annotated[str, typer.Argument(help="of the operation, as in status.operation")]


@app.command("list")
def list_all(
    target: Annotated[str | None, typer.Option(help="of this load balancer only")] = None,
    status: Annotated[str | None, typer.Option(help="RUNNING, SUCCEEDED, FAILED …")] = None,
    type: Annotated[str | None, typer.Option(help="create, update, delete …")] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List operations, oldest first.

    Example: fakecloud op list --target web --status RUNNING
    """
    asked = {"target": target, "status": status, "type": type}
    terms = [f'{name}="{_quoted(value)}"' for name, value in asked.items() if value is not None]
    with client.connect(url, token_file) as cloud:
        found = list(cloud.items("/v1/operations", filter=" AND ".join(terms) or None))
    _show(o, found)


@app.command()
def get(
    id: Id,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show one operation with its phases.

    Example: fakecloud op get op_1a2084d2a4c668b658533f1
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(_path(id))
    if o is not output.Format.TABLE:
        _show(o, found if o is output.Format.JSON else [found])
        return
    _show(o, [found])
    phases = [[one["name"], one["started_at"], one["ended_at"] or ""] for one in found["phases"]]
    if phases:
        typer.echo("")
        output.rows(o, ("phase", "started", "ended"), phases)


@app.command()
def wait(
    id: Id,
    wait_s: Annotated[float, typer.Option("--timeout", help="seconds")] = 300.0,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Wait for the end of an operation; exit code 1 unless it is SUCCEEDED.

    Example: fakecloud op wait op_1a2084d2a4c668b658533f1 --timeout 60
    """
    with client.connect(url, token_file) as cloud:
        found = progress.follow(cloud, cloud.get(_path(id)), wait_s)
    _show(o, found if o is output.Format.JSON else [found])
    refuse_unless_done(found)


@app.command()
def cancel(
    id: Id,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Stop trying; the load balancer waits in ERROR until it is changed or repaired.

    Example: fakecloud op cancel op_1a2084d2a4c668b658533f1
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.post(f"{_path(id)}:cancel")
    typer.echo(f"{found['id']}: {found['status']}")


def refuse_unless_done(operation: dict[str, Any]) -> None:
    """Return if the operation did what it was for. Raises: CommandFailed (exit code 1)."""
    if operation["status"] == "SUCCEEDED":
        return
    if not operation["done"]:
        raise client.CommandFailed(f"{operation['id']} has not ended in time")
    error = operation.get("error") or {}
    reason = f": {error['message']} ({error['code']})" if error else ""
    raise client.CommandFailed(f"{operation['id']} ended as {operation['status']}{reason}")


def _show(o: output.Format, found: Any) -> None:
    if o is output.Format.JSON:
        output.json(found)
    else:
        output.rows(o, COLUMNS, map(_row, found))


def _row(found: dict[str, Any]) -> list[str]:
    error = found["error"]
    return [
        found["id"],
        found["type"],
        found["target"],
        found["status"],
        found["phase"] or "",
        f"{found['progress']}%",
        found["eta"] or "",
        error["code"] if error else "",
    ]


def _path(id: str) -> str:
    return client.path("operations", id, "the id of an operation")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
