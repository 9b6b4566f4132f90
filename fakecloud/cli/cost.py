"""fakecloud cost: what load balancers cost, would cost elsewhere, and could cost less."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fakecloud.cli import client, manifests, output

BAR: Final = 20
From = Annotated[
    str | None, typer.Option("--from", help="RFC 3339; default: the first of this month")
]
To = Annotated[str | None, typer.Option("--to", help="RFC 3339; default: now")]

app = typer.Typer(help="What load balancers cost.", no_args_is_help=True)


@app.command()
def report(
    start: From = None,
    end: To = None,
    group_by: Annotated[
        str,
        typer.Option(
            help="project, cluster, namespace, service, load_balancer, sku, price_book, day, "
            "hour, month, label:NAME; several by commas"
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
    for note in found["notes"]:
        typer.echo(f"note: {output.clean(note)}")


@app.command()
def top(
    by: Annotated[str, typer.Option(help="what to compare, as for report")] = "service",
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show what goes on costing most per month of 730 hours, with bars.

    Example: fakecloud cost top --by namespace
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/cost-report", group_by=by)
    groups = sorted(found["groups"], key=lambda one: -Decimal(one["monthly_run_rate"]))
    if o is output.Format.JSON:
        output.json(groups)
        return
    most = max((Decimal(one["monthly_run_rate"]) for one in groups), default=Decimal(0))
    lines = [
        [
            " / ".join(str(part or "-") for part in one["key"].values()),
            one["monthly_run_rate"],
            one["amount"],
            _bar(Decimal(one["monthly_run_rate"]), most),
        ]
        for one in groups
    ]
    money = (f"per month {found['currency']}", "so far")
    output.rows(o, (by, *money, "share"), lines, right=frozenset(money))


@app.command()
def forecast(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show what this month will have cost at its end, and how that is known.

    Example: fakecloud cost forecast
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/costs/forecast")
    if o is output.Format.JSON:
        output.json(found)
        return
    end = found["month_end"]
    lines = [
        ["so far", found["to_date"], f"up to {found['as_of']}"],
        ["by time", end["fixed"], found["method"]["fixed"]],
        ["by traffic", end["traffic"], found["method"]["traffic"]],
        ["month's end", end["total"], f"{found['hours_left']} h left"],
    ]
    cost = f"cost {found['currency']}"
    output.rows(o, (found["period"], cost, "how"), lines, right=frozenset({cost}))


@app.command()
def compare(
    books: Annotated[str, typer.Option(help="price books by commas; see fakecloud prices list")],
    start: From = None,
    end: To = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show what the same use would have cost by other prices, and what has none there.

    Example: fakecloud cost compare --books aws-nlb-us-east-1,gcp-us-central1,hetzner-eu
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/costs/compare", **{"books": books, "from": start, "to": end})
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [one["id"], one["total"], one["currency"], ", ".join(one["unpriced"]) or "-"]
        for one in found["books"]
    ]
    output.rows(o, ("price book", "total", "currency", "unpriced"), lines, right=_TOTAL)


@app.command()
def diff(
    files: Annotated[
        list[Path], typer.Option("-f", "--file", help="manifests, or - for standard input")
    ],
    whole: Annotated[
        bool, typer.Option("--whole", help="they are everything: other Services go")
    ] = False,
    fail_on_delta: Annotated[
        str | None, typer.Option(help="exit with 1 if a month gets dearer by more than this")
    ] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show what manifests would change of a month's bill, before anybody applies them.

    Example: fakecloud cost diff -f deploy/ -f extra.yaml -o markdown --fail-on-delta 50
    """
    limit = None if fail_on_delta is None else _decimal(fail_on_delta)
    wanted = [one for file in files for one in manifests.read(file)]
    with client.connect(url, token_file) as cloud:
        found = cloud.post("/v1/costs/preview", {"manifests": wanted, "whole": whole})
    if o is output.Format.JSON:
        output.json(found)
    else:
        _show_diff(found, o)
    if limit is not None and Decimal(found["summary"]["delta"]) > limit:
        raise client.CommandFailed(
            f"a month gets dearer by {found['summary']['delta']} {found['currency']}, "
            f"which is more than {limit}"
        )


@app.command()
def recommend(
    manifest: Annotated[
        bool, typer.Option("--manifest", help="print the Gateway and its routes as YAML")
    ] = False,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show which load balancers could share one Gateway, and what that saves a month.

    Example: fakecloud cost recommend --manifest > gateway.yaml
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/costs/recommendations")
    if manifest:
        typer.echo("---\n".join(one["manifest"] for one in found["items"]), nl=False)
        return
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [", ".join(one["services"]), one["current_monthly"], one["proposed_monthly"],
         one["saves_monthly"], one["confidence"]]
        for one in found["items"]
    ]  # fmt: skip
    saves = f"saves {found['currency']}"
    columns = ("can share one gateway", "now", "then", saves, "confidence")
    output.rows(o, columns, lines, right=frozenset({"now", "then", saves}))
    if o is output.Format.TABLE and found["excluded"]:
        typer.echo("")
        excluded = [[one["service"], one["why"]] for one in found["excluded"]]
        output.rows(o, ("stays as it is", "why"), excluded)


@app.command()
def waste(
    idle_days: Annotated[int, typer.Option(help="without traffic")] = 7,
    silent_s: Annotated[int, typer.Option(help="after its lease a cluster counts as gone")] = 900,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show what costs and serves nobody, and the command that would delete it.

    Example: fakecloud cost waste --idle-days 14
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/costs/waste", idle_days=idle_days, silent_s=silent_s)
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [one["kind"], one["name"], one["why"], one["cost_to_date"], one["monthly_run_rate"],
         "protected" if one["protected"] else "-", one["command"]]
        for one in found["items"]
    ]  # fmt: skip
    money = (f"cost {found['currency']}", "per month")
    columns = ("kind", "name", "why", *money, "protected", "command")
    total = ["total", "", "each once", "", found["monthly_run_rate"], "", ""]
    output.rows(o, columns, lines, right=frozenset(money), total=total)


@app.command()
def anomalies(
    start: Annotated[
        str | None, typer.Option("--from", help="RFC 3339; default: 30 days ago")
    ] = None,
    end: To = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show days on which a namespace cost something else than usual, and why.

    Example: fakecloud cost anomalies --from 2026-11-01T00:00:00Z
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/costs/anomalies", **{"from": start, "to": end})
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [one["day"], f"{one['cluster'] or '-'}/{one['namespace'] or '-'}", one["usual"],
         one["amount"], "; ".join(f"{_signed(part['amount'])} {part['message']}"
                                  for part in one["causes"])]
        for one in found["items"]
    ]  # fmt: skip
    cost = f"cost {found['currency']}"
    columns = ("day", "cluster/namespace", "usual", cost, "why")
    output.rows(o, columns, lines, right=frozenset({"usual", cost}))
    if o is output.Format.TABLE:
        for one in found["insufficient_history"]:
            where = output.clean(f"{one['cluster'] or '-'}/{one['namespace'] or '-'}")
            typer.echo(f"note: {where} has too few days to judge ({one['days']})")


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="name or id, also of a deleted load balancer")],
    start: From = None,
    end: To = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show why a load balancer costs what it costs: every charge with its price and source.

    Example: fakecloud cost explain web --from 2026-11-01T00:00:00Z
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(f"/v1/load-balancers/{name}/statement", **{"from": start, "to": end})
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [one["from"], one["description"], f"{one['quantity']} {one['unit']}", one["price"],
         one["amount"], f"{one['source']} ({one['source_read']}, {one['grade']})"]
        for one in found["lines"]
    ]  # fmt: skip
    total = ["total", "", "", "", found["total"], ""]
    columns = ("from", "what", "quantity", "price", "amount", "source")
    output.rows(o, columns, lines, right=frozenset({"price", "amount"}), total=total)


@app.command()
def verify(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Check that events, charges, daily sums and closed invoices agree; exit with 1 if not.

    Example: fakecloud cost verify
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/billing/verify")
    if o is output.Format.JSON:
        output.json(found)
    elif found["problems"]:
        lines = [[one["what"], one["id"], one["message"]] for one in found["problems"]]
        output.rows(o, ("what", "id", "problem"), lines)
    else:
        typer.echo("everything that was billed agrees with what happened")
    if not found["verified"]:
        raise typer.Exit(1)


@app.command()
def export(
    to_file: Annotated[Path | None, typer.Option("--file", help="default: standard output")] = None,
    start: From = None,
    end: To = None,
    dataset: Annotated[
        str, typer.Option(help="or BillingPeriod, InvoiceDetail: of all months")
    ] = "CostAndUsage",
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Write a dataset of FOCUS 1.4 as CSV: every charge, or the months, or what is on invoices.

    Example: fakecloud cost export --file november.csv --from 2026-11-01T00:00:00Z
    """
    with client.connect(url, token_file) as cloud:
        asked: dict[str, Any] = {"from": start, "to": end, "dataset": dataset}
        rows = cloud.lines("/v1/billing/export", **asked)
        if to_file is None:
            for row in rows:
                typer.echo(row)
            return
        try:
            with to_file.open("w", encoding="utf-8") as file:
                file.writelines(f"{row}\n" for row in rows)
        except OSError as error:
            raise client.CommandFailed(f"{to_file}: {error.strerror}") from None


_TOTAL: Final = frozenset({"total"})
_MONEY: Final = frozenset({"now", "then", "change"})


def _show_diff(found: Any, o: output.Format) -> None:
    summary, currency = found["summary"], found["currency"]
    columns = ("service", "now", "then", "change")
    lines = [
        [f"{one['namespace']}/{one['service']}", one["monthly_before"], one["monthly_after"],
         _signed(one["delta"])]
        for one in found["items"]
    ]  # fmt: skip
    total = [
        "total",
        summary["monthly_before"],
        summary["monthly_after"],
        _signed(summary["delta"]),
    ]
    if o is output.Format.MARKDOWN:
        typer.echo(f"### Load balancers: {_signed(summary['delta'])} {currency} a month\n")
    output.rows(o, columns, lines, right=_MONEY, total=total)
    if o is output.Format.MARKDOWN:
        typer.echo(f"\nPrices of {found['price_book']}, 730 hours; traffic {found['traffic']}.")
    if o is output.Format.TABLE:
        typer.echo(f"\n{currency} a month of 730 hours, prices of {found['price_book']}")


def _signed(amount: str) -> str:
    return amount if amount.startswith("-") else f"+{amount}"


def _bar(part: Decimal, most: Decimal) -> str:
    return "█" * int((part / most * BAR).to_integral_value()) if most else ""


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError:
        raise typer.BadParameter(f"{text!r} is not an amount such as 50") from None
