"""fakecloud token: who may call."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer

from fakecloud.cli import client, output
from fakecloud.clock import rfc3339

app = typer.Typer(help="Tokens: who may call.", no_args_is_help=True)

COLUMNS: Final = ("id", "prefix", "scopes", "description", "expires", "last used")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Project = Annotated[
    str | None, typer.Option(help="another project; needs an administrator's token")
]


@app.command("list")
def list_all(
    project: Project = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List tokens that weren't revoked.

    Example: fakecloud token list -o json
    """
    with client.connect(url, token_file, project) as cloud:
        _show(o, list(cloud.items("/v1/tokens")))


@app.command()
def create(
    scopes: Annotated[
        list[str], typer.Argument(help="presets (ccm, viewer, tester, admin) and scopes (lb:read)")
    ],
    description: Annotated[str, typer.Option(help="what it is for")] = "",
    expires_in: Annotated[
        str | None, typer.Option(help="business time, such as 30d, 12h, 90m; default: never")
    ] = None,
    project: Project = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Make a token and print its secret, which nobody can see again.

    Example: fakecloud token create ccm --description "kind cluster" > ccm.token
    """
    body: dict[str, Any] = {"scopes": scopes, "description": description}
    with client.connect(url, token_file, project) as cloud:
        if expires_in is not None:
            now = datetime.fromisoformat(cloud.get("/v1/clock")["now"])
            body["expires_at"] = rfc3339(now + _span(expires_in))
        made = cloud.post("/v1/tokens", body)
    if o is output.Format.TABLE:
        typer.echo(made["secret"])  # alone, so that it can go into a file
        typer.echo(f"token {made['id']}: {', '.join(made['scopes'])}", err=True)
    elif o is output.Format.JSON:
        output.json(made)
    else:
        output.rows(o, (*COLUMNS, "secret"), [[*_row(made), made["secret"]]])


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="tok_…")],
    project: Project = None,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Let a token open nothing any more.

    Example: fakecloud token revoke tok_1a2084183f41fbed35f2284
    """
    with client.connect(url, token_file, project) as cloud:
        cloud.delete(client.path("tokens", id))
    typer.echo(f"{id}: revoked")


def _show(o: output.Format, found: list[dict[str, Any]]) -> None:
    if o is output.Format.JSON:
        output.json(found)
    else:
        output.rows(o, COLUMNS, map(_row, found))


def _row(token: dict[str, Any]) -> list[str]:
    return [
        token["id"],
        token["prefix"],
        ",".join(token["scopes"]),
        token["description"],
        token["expires_at"] or "never",
        token["last_used_at"] or "never",
    ]


def _span(text: str) -> timedelta:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isdecimal() and 0 < int(number) <= 100_000_000):
        raise typer.BadParameter(f"{text!r} is not a time such as 30d, 12h or 90m")
    return timedelta(seconds=int(number) * _UNITS[unit])
