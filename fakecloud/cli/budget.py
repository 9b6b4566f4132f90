"""fakecloud budget: what may be spent, how much of it is, and what happens then."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from fakecloud.cli import client, output

app = typer.Typer(help="What may be spent, and what happens then.", no_args_is_help=True)

COLUMNS: Final = ("name", "scope", "period", "kind", "spent", "forecast", "amount", "used", "fired")
RIGHT: Final = frozenset({"spent", "forecast", "amount", "used"})
Name = Annotated[str, typer.Argument(help="of the budget")]


class Period(StrEnum):
    """What begins anew with each."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Basis(StrEnum):
    """What is compared with the thresholds."""

    ACTUAL = "actual"
    FORECAST = "forecast"


class Kind(StrEnum):
    """Whether a budget that is used up only tells, or also refuses."""

    SOFT = "soft"
    HARD = "hard"


@app.command()
def put(
    name: Name,
    amount: Annotated[str, typer.Option("--amount", help="in the currency, such as 150 or 0.5")],
    currency: Annotated[str, typer.Option("--currency", help="of the price book")] = "USD",
    period: Annotated[Period, typer.Option("--period", help="UTC; weeks begin on Monday")] = (
        Period.MONTH
    ),
    threshold: Annotated[
        list[int] | None, typer.Option("--threshold", help="percent; default 50, 80 and 100")
    ] = None,
    basis: Annotated[Basis, typer.Option("--basis", help="what the thresholds look at")] = (
        Basis.ACTUAL
    ),
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            help="hard refuses new load balancers of the scope; without a scope it suspends all",
        ),
    ] = Kind.SOFT,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="LABEL=VALUE that what counts has")
    ] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Create or replace a budget. It is evaluated at once.

    Example: fakecloud budget put shop --amount 150 --scope namespace=shop --threshold 80
    """
    body: dict[str, Any] = {
        "amount": amount,
        "currency": currency,
        "period": period.value,
        "basis": basis.value,
        "kind": kind.value,
        "scope": dict(_label(one) for one in scope or ()),
    }
    if threshold:
        body["thresholds"] = threshold
    with client.connect(url, token_file) as cloud:
        found = cloud.put(client.path("budgets", name), body)
    _show(o, found if o is output.Format.JSON else [found])


@app.command("list")
def list_all(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List budgets and how far each is used up.

    Example: fakecloud budget list -o csv
    """
    with client.connect(url, token_file) as cloud:
        found = list(cloud.items("/v1/budgets"))
    _show(o, found)


@app.command()
def get(
    name: Name,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show one budget and the thresholds that were passed.

    Example: fakecloud budget get shop -o json
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(client.path("budgets", name))
    _show(o, found if o is output.Format.JSON else [found])


@app.command()
def delete(
    name: Name,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Delete a budget: it tells and refuses nothing any more.

    Example: fakecloud budget delete shop
    """
    with client.connect(url, token_file) as cloud:
        cloud.delete(client.path("budgets", name))


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"--scope {text!r} is not LABEL=VALUE, such as namespace=shop")
    return name, value


def _show(o: output.Format, found: Any) -> None:
    if o is output.Format.JSON:
        output.json(found)
        return
    output.rows(o, COLUMNS, [_row(one) for one in found], right=RIGHT)


def _row(one: Any) -> list[str]:
    status = one["status"]
    scope = ", ".join(f"{name}={value}" for name, value in sorted(one["scope"].items()))
    amounts = [f"{value} {one['currency']}" for value in (status["spent"], status["forecast"])]
    return [
        one["name"],
        scope or "everything",
        one["period"],
        one["kind"],
        *amounts,
        f"{one['amount']} {one['currency']}",
        _percent(status["spent"], one["amount"]),
        ", ".join(f"{fired['threshold']} %" for fired in status["fired"]),
    ]


def _percent(spent: str, amount: str) -> str:
    try:
        return f"{Decimal(spent) * 100 / Decimal(amount):.0f} %"
    except (InvalidOperation, ZeroDivisionError):
        return ""
