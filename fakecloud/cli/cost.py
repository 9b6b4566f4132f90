"""fakecloud cost: what load balancers cost."""

from __future__ import annotations

from typing import Annotated

import typer

from fakecloud.cli import client, output

app = typer.Typer(help="What load balancers cost.", no_args_is_help=True)


@app.callback()
def _several() -> None:
    """What load balancers cost."""


@app.command()
def report(
    start: Annotated[
        str | None, typer.Option("--from", help="RFC 3339; default: the first of this month")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="RFC 3339; default: now")] = None,
    group_by: Annotated[
        str,
        typer.Option(
            help="project, cluster, namespace, service, load_balancer, sku, label:NAME; "
            "several by commas"
        ),
    ] = "namespace,load_balancer",
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show the cost up to now, and per month of 730 hours.

    Example: fakecloud cost report --group-by namespace,service --from 2026-11-01T00:00:00Z
    """
    asked = {"from": start, "to": end, "group_by": group_by}
    with client.connect(url, token_file) as cloud:
        if o is output.Format.CSV:
            typer.echo(cloud.text("/v1/cost-report", format="csv", **asked), nl=False)
            return
        found = cloud.get("/v1/cost-report", **asked)
    if o is output.Format.JSON:
        output.json(found)
        return
    names = group_by.split(",")
    lines = [
        [*(group["key"][name] or "-" for name in names), group["amount"], group["monthly_run_rate"]]
        for group in found["groups"]
    ]
    money = (f"cost {found['currency']}", "per month (730 h)")
    total = ["total", *[""] * (len(names) - 1), found["total"], found["monthly_run_rate"]]
    output.rows(o, (*names, *money), lines, right=frozenset(money), total=total)
    typer.echo(f"\n{found['from']} to {found['to']}, prices of {found['price_book']}")
