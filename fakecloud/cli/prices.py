"""fakecloud prices: the price books, and how old their sources are."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated

import typer

from fakecloud.cli import client, output
from fakecloud.clock import SystemClock

app = typer.Typer(help="The price books.", no_args_is_help=True)


@app.command(name="list")
def list_(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List every version of every price book, when it was read, and what has no price in it.

    Example: fakecloud prices list
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/prices")["items"]
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [one["id"], one["provider"]["name"], one["provider"]["region"], one["currency"],
         one["oldest_source"], ", ".join(one["unpriced"]) or "-"]
        for one in found
    ]  # fmt: skip
    output.rows(o, ("price book", "provider", "region", "currency", "read", "unpriced"), lines)


@app.command()
def show(
    book: Annotated[str, typer.Argument(help="a name, or NAME@VERSION")],
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show a book's prices, each with its source, the day it was read and how sure it is.

    Grade A is the provider's own page, B a third party's word, ? not verified: no price.

    Example: fakecloud prices show hetzner-eu
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(f"/v1/prices/{book}")
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [sku["id"], sku["plan"] or "-", sku["price"] or "unpriced", sku["unit"],
         sku["rate"]["kind"], sku["source"]["grade"], sku["source"]["read"], sku["source"]["url"]]
        for sku in found["skus"]
    ]  # fmt: skip
    columns = ("sku", "plan", "price", "unit", "rate", "grade", "read", "source")
    output.rows(o, columns, lines, right=frozenset({"price"}))
    if o is output.Format.TABLE:
        typer.echo(f"\n{found['id']}, {found['currency']}: figures as they were read, not a quote")


@app.command()
def check(
    age: Annotated[str, typer.Option(help="days that a source may be old, such as 180d")] = "180d",
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Name the books whose sources were read longer ago; exit with 1 if there are any.

    Example: fakecloud prices check --age 90d
    """
    days = re.fullmatch(r"(\d{1,5})d", age)
    if days is None:
        raise typer.BadParameter(f"{age!r} is not a number of days such as 180d")
    limit = SystemClock().wall().date() - timedelta(days=int(days[1]))
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/prices")["items"]
    old = [one for one in found if date.fromisoformat(one["oldest_source"]) < limit]
    for one in old:
        typer.echo(f"{one['id']}: read on {one['oldest_source']}")
    if old:
        raise typer.Exit(1)
    typer.echo(f"every source was read since {limit.isoformat()}")
