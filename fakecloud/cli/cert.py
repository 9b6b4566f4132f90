"""fakecloud cert: certificates of listeners. The key goes in and never comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fakecloud.cli import client, output

app = typer.Typer(help="Certificates that listeners use.", no_args_is_help=True)

COLUMNS: Final = ("name", "hosts", "not_after", "fingerprint")
Name = Annotated[str, typer.Argument(help="of the certificate, as listeners name it")]


@app.command()
def put(
    name: Name,
    certificate: Annotated[
        Path, typer.Option("--cert", help="PEM file: certificate, then its chain", exists=True)
    ],
    key: Annotated[Path, typer.Option("--key", help="PEM file of the key", exists=True)],
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Create a certificate, or renew it: load balancers use it at once.

    Example: fakecloud cert put shop --cert shop.pem --key shop.key
    """
    body = {"certificate": certificate.read_text(), "private_key": key.read_text()}
    with client.connect(url, token_file) as cloud:
        found = cloud.put(client.path("certificates", name), body)
    _show(o, found if o is output.Format.JSON else [found])


@app.command("list")
def list_all(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List certificates.

    Example: fakecloud cert list
    """
    with client.connect(url, token_file) as cloud:
        found = list(cloud.items("/v1/certificates"))
    _show(o, found)


@app.command()
def get(
    name: Name,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show one certificate and who uses it.

    Example: fakecloud cert get shop -o json
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(client.path("certificates", name))
    _show(o, found if o is output.Format.JSON else [found])


@app.command()
def delete(
    name: Name,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Delete a certificate that no load balancer uses.

    Example: fakecloud cert delete shop
    """
    with client.connect(url, token_file) as cloud:
        cloud.delete(client.path("certificates", name))


def _show(o: output.Format, found: Any) -> None:
    if o is output.Format.JSON:
        output.json(found)
        return
    output.rows(o, COLUMNS, [[_cell(one[column]) for column in COLUMNS] for one in found])


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
