"""fakecloud project: tenants."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fakecloud.cli import client, output

app = typer.Typer(help="Projects: tenants that don't see each other.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="lower-case letters, digits and -")]


@app.command("list")
def list_all(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List projects.

    Example: fakecloud project list
    """
    with client.connect(url, token_file) as cloud:
        found: list[dict[str, Any]] = list(cloud.items("/v1/projects"))
    if o is output.Format.JSON:
        output.json(found)
        return
    columns = ("id", "description", "created_at")
    output.rows(o, columns, [[one[name] for name in columns] for one in found])


@app.command()
def create(
    id: Id,
    description: Annotated[str, typer.Option(help="whose it is")] = "",
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Make a project; then give it a token.

    Example: fakecloud project create shop && fakecloud token create ccm --project shop
    """
    with client.connect(url, token_file) as cloud:
        cloud.post("/v1/projects", {"id": id, "description": description})
    typer.echo(f"{id}: made")


@app.command()
def delete(
    id: Id,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Delete a project that has nothing any more.

    Example: fakecloud project delete shop
    """
    with client.connect(url, token_file) as cloud:
        cloud.delete(client.path("projects", id))
    typer.echo(f"{id}: deleted")
