"""fakecloud webhook: where news of budgets go, signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fakecloud.cli import client, output

app = typer.Typer(help="Where news of budgets go, signed.", no_args_is_help=True)

COLUMNS: Final = ("name", "url", "enabled", "created_at")
DELIVERIES: Final = ("id", "type", "status", "attempts", "answer", "created_at")
Name = Annotated[str, typer.Argument(help="of the webhook")]


@app.command()
def put(
    name: Name,
    target: Annotated[str, typer.Option("--target", help="http or https URL that takes the news")],
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", help="whsec_… to sign with; default: made", exists=True),
    ] = None,
    enabled: Annotated[bool, typer.Option("--enabled/--disabled", help="send or keep silent")] = (
        True
    ),
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Create or replace a webhook. A secret that is made is shown this once, with -o json.

    Example: fakecloud webhook put ops --target https://ops.example.org/fakecloud -o json
    """
    secret = None if secret_file is None else secret_file.read_text().strip()
    body = {"url": target, "enabled": enabled, "secret": secret}
    with client.connect(url, token_file) as cloud:
        found = cloud.put(client.path("webhooks", name), body)
    _show(o, found if o is output.Format.JSON else [found])


@app.command("list")
def list_all(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List webhooks.

    Example: fakecloud webhook list
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/webhooks")["items"]
    _show(o, found)


@app.command()
def get(
    name: Name,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show a webhook's latest deliveries and what was answered.

    Example: fakecloud webhook get ops -o csv
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(client.path("webhooks", name))
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [[str(one[column]) for column in DELIVERIES] for one in found["deliveries"]]
    output.rows(o, DELIVERIES, lines)


@app.command()
def delete(
    name: Name,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Delete a webhook, with what is still to be delivered.

    Example: fakecloud webhook delete ops
    """
    with client.connect(url, token_file) as cloud:
        cloud.delete(client.path("webhooks", name))


def _show(o: output.Format, found: Any) -> None:
    if o is output.Format.JSON:
        output.json(found)
        return
    output.rows(o, COLUMNS, [[str(one[column]) for column in COLUMNS] for one in found])
