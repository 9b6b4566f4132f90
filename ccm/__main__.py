"""The command line: fakecloud-ccm run, explain, teardown, version."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ccm import app, errors, inquiry, logs, options
from ccm import settings as settings_
from ccm.cloud import client as clients
from ccm.service import explaining

cli = typer.Typer(
    name="fakecloud-ccm",
    help="Cloud controller manager: one fakecloud load balancer per Service of type LoadBalancer.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help shows long option names whole
    pretty_exceptions_enable=False,
)


CloudUrl = Annotated[
    str, typer.Option(envvar=["CCM_CLOUD_URL", "FAKECLOUD_URL"], help="URL of fakecloud.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar=["CCM_CLOUD_TOKEN_FILE", "FAKECLOUD_TOKEN_FILE"],
        help="File with fakecloud's token.",
    ),
]
Token = Annotated[
    str, typer.Option(envvar="FAKECLOUD_TOKEN", help="The token itself; better not as a flag.")
]


class Output(StrEnum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(settings_.VERSION)


def run(settings: settings_.Settings) -> None:
    """Watch Services and Nodes and keep one load balancer per Service.

    Exit codes: 0 stopped as asked, 1 lost the lease or failed, 2 wrong usage or configuration.
    """
    logs.configure(settings.log_level)
    raise typer.Exit(_run(settings))


cli.command("run")(options.takes_settings(run))


@cli.command()
def explain(
    service: Annotated[str, typer.Argument(metavar="NAMESPACE/SERVICE")],
    cloud_url: CloudUrl,
    cloud_token_file: TokenFile = None,
    cloud_token: Token = "",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(envvar=["CCM_KUBECONFIG", "KUBECONFIG"], help="How to reach the API server."),
    ] = None,
    load_balancer_class: Annotated[
        list[str] | None,
        typer.Option(envvar="CCM_LOAD_BALANCER_CLASS", help="As the controller was started."),
    ] = None,
    handle_unclassed: Annotated[
        bool, typer.Option(envvar="CCM_HANDLE_UNCLASSED", help="As the controller was started.")
    ] = True,
    pod_networks: Annotated[
        str, typer.Option(envvar="CCM_POD_NETWORKS", help="As the controller was started.")
    ] = "",
    transparent: Annotated[
        bool, typer.Option(envvar="CCM_TRANSPARENT", help="As the controller was started.")
    ] = False,
    lease: Annotated[
        str, typer.Option(help="Where the controller's Lease is.")
    ] = "kube-system/cloud-controller-manager",
    output: Annotated[Output, typer.Option("-o", "--output", help="text or json.")] = Output.TEXT,
) -> None:
    """Say why a Service has no address, or one that doesn't answer. Changes nothing.

    Exit codes: 0 it is served, 1 something is wrong or waited for, 2 wrong usage.
    """
    if service.count("/") != 1:
        raise typer.BadParameter("must be NAMESPACE/SERVICE, such as default/web")
    question = inquiry.Question(
        service,
        kubeconfig,
        cloud_url,
        lambda: _read_token(cloud_token, cloud_token_file),
        tuple(load_balancer_class or (settings_.DEFAULT_CLASS,)),
        handle_unclassed,
        settings_.parse_list(pod_networks),
        transparent,
        lease,
    )
    try:
        findings = asyncio.run(inquiry.ask(question))
    except errors.ConfigError as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(2) from None
    except errors.KubeError as error:
        typer.echo(f"fakecloud-ccm: {service}: {error}", err=True)
        raise typer.Exit(1) from None
    _show(findings, output)
    raise typer.Exit(0 if explaining.is_serving(findings) else 1)


@cli.command()
def teardown(
    cluster_uid: Annotated[
        str, typer.Option(help="UID of the kube-system namespace of the cluster that is gone.")
    ],
    cloud_url: CloudUrl,
    cloud_token_file: TokenFile = None,
    cloud_token: Token = "",
    delete: Annotated[
        bool, typer.Option(help="Delete them; otherwise they are only named.")
    ] = False,
) -> None:
    """Delete what a cluster that no longer exists left in the cloud; names only without --delete.

    Exit codes: 0 done, 1 the cloud refused, 2 wrong usage.
    """
    try:
        names = asyncio.run(
            inquiry.teardown(
                cloud_url,
                lambda: _read_token(cloud_token, cloud_token_file),
                cluster_uid,
                delete=delete,
            )
        )
    except errors.ConfigError as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(2) from None
    except errors.CloudError as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(1) from None
    for name in names:
        typer.echo(f"{'deleted' if delete else 'left'} {name}")


def main() -> None:
    """Run the command line."""
    cli()


def _read_token(token: str, file: Path | None) -> str:
    if token:
        return token
    if file is None:
        raise errors.ConfigError("give --cloud-token-file, or FAKECLOUD_TOKEN")
    return clients.read_token(file)


def _show(findings: list[explaining.Finding], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(msgspec.json.encode(findings).decode())
        return
    for one in findings:
        typer.echo(f"{one.level.value:8} {one.text}")
        if one.remedy:
            typer.echo(f"{'':8}   {one.remedy}")


def _run(settings: settings_.Settings) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(app.run(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(app.run(settings))


if __name__ == "__main__":
    main()
