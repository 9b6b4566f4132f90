"""The command `fakecloud`: the server, and the client of its API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fakecloud import logs, settings
from fakecloud.clock import SystemClock
from fakecloud.errors import StartError


def server() -> typer.Typer:
    """Return the command line of the server alone: it is loaded in half the time of the whole."""
    made = typer.Typer(
        name="fakecloud",
        help="A small cloud on your own machine: real HAProxy load balancers, and what they cost.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.command()(serve)
    made.command()(work)
    return made


def whole() -> typer.Typer:
    """Return the whole command line, with the client of the API."""
    from fakecloud.cli import (
        admin,
        budget,
        cert,
        clock,
        cost,
        fault,
        focus,
        lb,
        networks,
        op,
        prices,
        project,
        token,
        watch,
        webhook,
    )

    made = server()
    made.add_typer(lb.app, name="lb")
    made.add_typer(op.app, name="op")
    made.add_typer(cert.app, name="cert")
    made.add_typer(networks.networks, name="network")
    made.add_typer(networks.routes, name="route")
    made.add_typer(cost.app, name="cost")
    made.add_typer(budget.app, name="budget")
    made.add_typer(webhook.app, name="webhook")
    made.add_typer(prices.app, name="prices")
    made.add_typer(focus.app, name="focus")
    made.add_typer(admin.app, name="admin")
    made.command("watch")(watch.watch)
    made.add_typer(clock.app, name="clock")
    made.add_typer(fault.app, name="fault")
    made.add_typer(token.app, name="token")
    made.add_typer(project.app, name="project")
    return made


def serve(
    listen: Annotated[str | None, typer.Option(help="HOST:PORT; default 127.0.0.1:8440")] = None,
    database: Annotated[
        str | None, typer.Option(help="URL; default SQLite in the state directory")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="default ~/.local/state/fakecloud")] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="NAME=KIND:CIDR[@INTERFACE]; repeatable")
    ] = None,
    host_ports: Annotated[
        str | None, typer.Option(help="FIRST-LAST, as published by the container: one per listener")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="where the first token is written")
    ] = None,
    runtime_dir: Annotated[Path | None, typer.Option(help="short directory for sockets")] = None,
    price_book: Annotated[str | None, typer.Option(help="prices of the cost report")] = None,
    haproxy: Annotated[str | None, typer.Option(help="the HAProxy program")] = None,
    haproxy_user: Annotated[str | None, typer.Option(help="UID:GID of HAProxy when root")] = None,
    workers: Annotated[int | None, typer.Option(help="load balancers worked on at a time")] = None,
    transparent: Annotated[
        bool | None,
        typer.Option("--transparent", help="targets may see clients' addresses; own network only"),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="serve HTTPS with this certificate")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="key of the certificate")] = None,
    insecure_listen: Annotated[
        bool | None, typer.Option("--insecure-listen", help="allow HTTP beyond loopback")
    ] = None,
    rate_limit: Annotated[
        int | None, typer.Option(help="requests per token and minute; default: no limit")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="how long the cloud takes: dev, aws-nlb, gcp, …")
    ] = None,
    host_name: Annotated[
        str | None, typer.Option(help="among servers of one PostgreSQL; default: this machine's")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error")] = None,
) -> None:
    """Run the cloud until Ctrl-C; load balancers go on running.

    Example: fakecloud serve --listen 127.0.0.1:8440 --pool default=loopback:127.77.0.0/16

    Every option is also an environment variable: --state-dir is FAKECLOUD_STATE_DIR.
    """
    options = settings.load(**locals())
    logs.configure(options.log_level)
    # Not for the client commands; and what was served is, before the rest is loaded in a second.
    from fakecloud import restoring

    restoring.restore(options, SystemClock())
    from fakecloud import serving

    serving.serve(options)


def work(
    database: Annotated[str, typer.Option(help="URL of the PostgreSQL that servers share")],
    state_dir: Annotated[Path | None, typer.Option(help="default ~/.local/state/fakecloud")] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="NAME=KIND:CIDR[@INTERFACE], as the servers'")
    ] = None,
    runtime_dir: Annotated[Path | None, typer.Option(help="short directory for sockets")] = None,
    haproxy: Annotated[str | None, typer.Option(help="the HAProxy program")] = None,
    haproxy_user: Annotated[str | None, typer.Option(help="UID:GID of HAProxy when root")] = None,
    workers: Annotated[int | None, typer.Option(help="load balancers worked on at a time")] = None,
    transparent: Annotated[
        bool | None,
        typer.Option("--transparent", help="targets may see clients' addresses; own network only"),
    ] = None,
    host_name: Annotated[
        str | None, typer.Option(help="among servers of the database; default: this machine's")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error")] = None,
) -> None:
    """Run load balancers of a cloud whose API is served elsewhere; until Ctrl-C.

    Example: fakecloud work --database postgresql://cloud@db/cloud --host-name lb-2
    """
    options = settings.load(**locals())
    logs.configure(options.log_level)
    from fakecloud import serving  # not for the client commands: it costs half a second

    serving.work(options)


def main() -> None:
    """Run the command line: exit 0 done, 1 failed, 2 wrong usage or configuration."""
    is_server = sys.argv[1:2] in (["serve"], ["work"])
    try:
        (server() if is_server else whole())()
    except StartError as error:
        print(f"fakecloud: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
