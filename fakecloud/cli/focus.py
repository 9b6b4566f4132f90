"""fakecloud focus: check files of the FinOps cost and usage format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fakecloud.billing import focus, focus_invoice_check
from fakecloud.cli import client, output

app = typer.Typer(help="FOCUS cost and usage files.", no_args_is_help=True)


@app.callback()
def _several() -> None:
    """FOCUS cost and usage files."""


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="CostAndUsage, BillingPeriod or InvoiceDetail, CSV")],
    invoices: Annotated[
        Path | None, typer.Option(help="InvoiceDetail of the same months, to be the charges' sums")
    ] = None,
    o: output.Output = output.Format.TABLE,
) -> None:
    """Check every row of an export against FOCUS 1.4 and our own promises; exit with 1 if wrong.

    Example: fakecloud cost export --file november.csv && fakecloud focus verify november.csv
    """
    try:
        with file.open(encoding="utf-8", newline="") as text:
            found = list(focus_invoice_check.check(text))
        if invoices is not None:
            with (
                file.open(encoding="utf-8", newline="") as text,
                invoices.open(encoding="utf-8", newline="") as details,
            ):
                found += focus_invoice_check.reconcile(text, details)
    except (OSError, UnicodeDecodeError) as error:
        raise client.CommandFailed(f"{file}: {error}") from None
    if o is output.Format.JSON:
        output.json([msgspec.structs.asdict(one) for one in found])
    elif found:
        lines = [[str(one.row), one.column, one.message] for one in found]
        output.rows(o, ("row", "column", "problem"), lines, right=frozenset({"row"}))
    else:
        typer.echo(f"{file} is right: FOCUS {focus.VERSION}")
    if found:
        raise typer.Exit(1)
