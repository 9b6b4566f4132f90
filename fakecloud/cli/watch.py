"""fakecloud watch: every change as it happens."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from fakecloud.cli import client, output


def watch(
    kinds: Annotated[
        str, typer.Option(help="load_balancer, operation, instance, route, …; several by commas")
    ] = "load_balancer,operation",
    selector: Annotated[
        str | None, typer.Option("-l", "--selector", help="labels: team=a,env!=test")
    ] = None,
    since: Annotated[str | None, typer.Option(help="a resource_version; default: now")] = None,
    initial: Annotated[bool, typer.Option(help="begin with everything that exists")] = False,
    fields: Annotated[str | None, typer.Option(help="only these parts: status.state")] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show every change until Ctrl-C, one line each.

    Example: fakecloud watch --kinds load_balancer -l team=a -o json

    Exit codes: 1 when the stream can't be begun or ends, 2 wrong usage.
    """
    if o is output.Format.CSV:
        raise typer.BadParameter("a watch is printed as table or json")
    with client.connect(url, token_file) as cloud:
        lines = cloud.lines(
            "/v1/watch",
            kinds=kinds,
            label_selector=selector,
            since=since,
            initial="true" if initial else None,
            fields=fields,
        )
        for line in lines:
            if line and o is output.Format.JSON:
                typer.echo(line)
            elif line:
                _show(line)
    raise client.CommandFailed("the cloud ended the stream; begin again")


def _show(line: str) -> None:
    frame = msgspec.json.decode(line)
    if frame["type"] == "ERROR":
        raise client.CommandFailed(frame["object"]["detail"])
    if frame["type"] == "BOOKMARK":
        return
    found = frame["object"]
    status = found.get("status") or found.get("power_state") or ""
    if isinstance(status, dict):
        status = " ".join(str(status.get(k, "")) for k in ("state", "operating_state"))
    what = found.get("name") or f"{found.get('id')} {found.get('type')} {found.get('target')}"
    typer.echo(
        output.clean(
            f"{frame['resource_version']:>8} {frame['type']:<8} {frame['kind']:<13} {what} {status}"
        ).rstrip()
    )
