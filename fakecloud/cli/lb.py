"""fakecloud lb: load balancers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml

from fakecloud.cli import client, op, output, progress

app = typer.Typer(help="Load balancers.", no_args_is_help=True)

COLUMNS = (
    "name", "state", "health", "addresses", "ports", "targets", "namespace", "service", "localhost",
)  # fmt: skip

STATS = (
    "kind", "name", "health", "connections", "total", "in", "out", "requests", "failed",
    "share", "last min", "connect", "response",
)  # fmt: skip

Name = Annotated[str, typer.Argument(help="name or id")]


@app.command("list")
def list_all(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List load balancers.

    Example: fakecloud lb list -o json
    """
    with client.connect(url, token_file) as cloud:
        found = list(cloud.items("/v1/load-balancers"))
    if o is output.Format.JSON:
        output.json(found)
    else:
        output.rows(o, COLUMNS, map(_row, found))


@app.command()
def get(
    name: Name,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show one load balancer with its targets.

    Example: fakecloud lb get web
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(_path(name))
    if o is output.Format.JSON:
        output.json(found)
        return
    output.rows(o, COLUMNS, [_row(found)])
    if o is output.Format.CSV:
        return
    status = found["status"]
    if status["last_error"]:
        typer.echo(f"\nlast error: {status['last_error']['message']}")
    typer.echo("")
    targets = [
        [target["ip"], str(target["port"]), target["health"], target["reason"], target["since"]]
        for target in status["targets"]
    ]
    output.rows(o, ("target", "port", "health", "reason", "since"), targets)


@app.command()
def stats(
    name: Name,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show what a load balancer carried: listeners, target groups, and each target's share.

    Example: fakecloud lb stats web
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get(f"{_path(name)}/stats")
    if o is output.Format.JSON:
        output.json(found)
        return
    right = frozenset(STATS) - {"kind", "name", "health"}
    readable = o is output.Format.TABLE
    output.rows(o, STATS, [_carried(one, readable) for one in found["counters"]], right=right)
    if readable and not found["running"]:
        typer.echo(f"\n{found['name']} does not serve now")


@app.command()
def watch(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show every change until Ctrl-C.

    Example: fakecloud lb watch -o json
    """
    if o is output.Format.CSV:
        raise typer.BadParameter("a watch has no end, so no csv: table or json", param_hint="-o")
    show: Callable[[str], None] = typer.echo if o is output.Format.JSON else _change
    with client.connect(url, token_file) as cloud:
        for line in cloud.lines("/v1/watch", kinds="load_balancer", initial="true"):
            if line:
                show(line)


@app.command()
def delete(
    name: Name,
    wait_s: Annotated[float, typer.Option("--wait", help="seconds to wait for the end")] = 30.0,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Delete a load balancer and wait until it is gone.

    Example: fakecloud lb delete web --wait 0
    """
    with client.connect(url, token_file) as cloud:
        operation = cloud.delete(_path(name))
        operation = progress.follow(cloud, operation, wait_s)
    typer.echo(f"{name}: {'deleted' if operation['done'] else 'is being deleted'}")


@app.command()
def apply(
    file: Annotated[
        str, typer.Option("-f", "--file", help="YAML or JSON documents with a name; -: stdin")
    ],
    wait_s: Annotated[float, typer.Option("--wait", help="seconds to wait for each")] = 60.0,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Create or replace load balancers by their documents, and wait until they serve.

    Example: fakecloud lb apply -f web.yaml

    Exit codes: 0 all are ACTIVE (or --wait 0), 1 one is not, 2 the file can't be used.
    """
    wanted = [(_name(one), one) for one in _documents(file)]
    with client.connect(url, token_file) as cloud:
        for name, document in wanted:
            found = cloud.put(_path(name), document)
            operation = cloud.get(f"/v1/operations/{found['status']['operation']}")
            if wait_s:
                operation = progress.follow(cloud, operation, wait_s)
                found = cloud.get(_path(name))
            status = found["status"]
            addresses = ",".join(address["ip"] for address in status["addresses"])
            typer.echo(f"{name}: {status['state']} {addresses}")
            if wait_s and status["state"] != "ACTIVE":
                op.refuse_unless_done(operation)


def _documents(file: str) -> list[Any]:
    """Return the documents of a file. Raises: BadParameter."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return [one for one in yaml.safe_load_all(text) if one is not None]
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise typer.BadParameter(f"{file} is neither YAML nor JSON: {reason}") from None


def _name(document: Any) -> str:
    name = document.get("name") if isinstance(document, dict) else None
    if not isinstance(name, str):
        raise typer.BadParameter("each document needs a name, beside labels and spec")
    return name


def _path(name: str) -> str:
    return client.path("load-balancers", name, "the name of a load balancer")


def _row(found: dict[str, Any]) -> list[str]:
    spec, status = found["spec"], found["status"]
    healthy = sum(target["health"] == "healthy" for target in status["targets"])
    return [
        found["name"],
        status["state"],
        status["operating_state"],
        ",".join(address["ip"] for address in status["addresses"]),
        ",".join(f"{one['port']}/{one['protocol']}" for one in spec["listeners"]),
        f"{healthy}/{len(status['targets'])}",
        found["labels"].get("namespace", ""),
        found["labels"].get("service", ""),
        ",".join(_published(spec, status)),
    ]


def _published(spec: dict[str, Any], status: dict[str, Any]) -> Iterator[str]:
    """Yield each port with the one of the machine that leads to it."""
    ports = {one["listener"]: one["port"] for one in status.get("host_ports", ())}
    for one in spec["listeners"]:
        if one["name"] in ports:
            yield f"{one['port']}={ports[one['name']]}"


def _carried(one: dict[str, Any], readable: bool) -> list[str]:
    size = output.size if readable else str
    shares = (one["share"], one["recent_share"]) if one["kind"] == "target" else (None, None)
    times = (one["connect_ms"], one["response_ms"])
    return [
        one["kind"],
        one["name"],
        one.get("health") or "",
        str(one["connections"]),
        str(one["connections_total"]),
        size(one["bytes_in"]),
        size(one["bytes_out"]),
        str(one["requests_total"]),
        str(one["failed_total"]),
        *("" if share is None else f"{share:.1%}" for share in shares),
        *("" if time is None else f"{time} ms" for time in times),
    ]


def _change(line: str) -> None:
    frame = msgspec.json.decode(line)
    if frame["type"] == "ERROR":
        raise client.CommandFailed(frame["object"]["detail"])
    if frame["type"] != "BOOKMARK":
        status = frame["object"]["status"]
        addresses = ",".join(address["ip"] for address in status["addresses"])
        typer.echo(
            f"{frame['type']:<9} {frame['object']['name']}  {status['state']}  "
            f"{status['operating_state']}  {addresses}"
        )
