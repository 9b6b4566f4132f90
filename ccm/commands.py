"""The commands that run once: explain, manifests, release, teardown."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from ccm import errors, inquiry, installation, releasing
from ccm import settings as settings_
from ccm.cloud import connection as connections
from ccm.service import explaining

MAX_KUBECONFIG: Final = 1_000_000
LEASE: Final = "kube-system/cloud-controller-manager"

CloudUrl = Annotated[
    str, typer.Option(envvar=["CCM_CLOUD_URL", "FAKECLOUD_URL"], help="URL of fakecloud.")
]
CloudTokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar=["CCM_CLOUD_TOKEN_FILE", "FAKECLOUD_TOKEN_FILE"],
        help="File with fakecloud's token.",
    ),
]
CloudToken = Annotated[
    str, typer.Option(envvar="FAKECLOUD_TOKEN", help="The token itself; better not as a flag.")
]
CloudCaFile = Annotated[
    Path | None,
    typer.Option(
        envvar="CCM_CLOUD_CA_FILE", help="Whom to trust for https; default: the system's."
    ),
]
Lease = Annotated[str, typer.Option(help="Where the controller's Lease is.")]


class Output(StrEnum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"


def explain(
    service: Annotated[str, typer.Argument(metavar="NAMESPACE/SERVICE")],
    cloud_url: CloudUrl,
    cloud_token_file: CloudTokenFile = None,
    cloud_token: CloudToken = "",
    cloud_ca_file: CloudCaFile = None,
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
    lease: Lease = LEASE,
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
        cloud_ca_file,
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


def teardown(
    cluster_uid: Annotated[
        str, typer.Option(help="UID of the kube-system namespace of the cluster that is gone.")
    ],
    cloud_url: CloudUrl,
    cloud_token_file: CloudTokenFile = None,
    cloud_token: CloudToken = "",
    cloud_ca_file: CloudCaFile = None,
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
                ca_file=cloud_ca_file,
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


def release(
    kubeconfig: Annotated[
        str,
        typer.Option(
            envvar=["CCM_KUBECONFIG", "KUBECONFIG"],
            help="How to reach the API server; - reads it from standard input.",
        ),
    ],
    cloud_url: CloudUrl = "http://127.0.0.1:8440",
    cloud_token_file: CloudTokenFile = None,
    cloud_token: CloudToken = "",
    cloud_ca_file: CloudCaFile = None,
    project: Annotated[
        str, typer.Option(help="The controller's project, if the token is an administrator's.")
    ] = "",
    lease: Lease = LEASE,
) -> None:
    """Give a cluster's Services back after its controller was deleted: <pending>, free to go.

    Exit codes: 0 done, 1 a server refused, 2 wrong usage, or a controller still leads.
    """
    try:
        with _kubeconfig_file(kubeconfig) as file:
            done = releasing.release(
                file,
                lease,
                cloud_url,
                lambda: _read_token(cloud_token, cloud_token_file),
                project=project,
                ca_file=cloud_ca_file,
            )
            for line in releasing.told(*asyncio.run(done)):
                typer.echo(line)
    except errors.ConfigError as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(2) from None
    except (errors.KubeError, errors.CloudError) as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(1) from None


def manifests(
    cluster_name: Annotated[
        str, typer.Option(envvar="CCM_CLUSTER_NAME", help="Shown on the bill.")
    ],
    cloud_url: Annotated[
        str, typer.Option(envvar="CCM_CLOUD_URL", help="URL of fakecloud, as pods reach it.")
    ] = "http://fakecloud:8440",
    cloud_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar=["CCM_CLOUD_TOKEN_FILE", "FAKECLOUD_TOKEN_FILE"],
            help="File with the controller's token; with --project, an administrator's.",
        ),
    ] = None,
    cloud_token: CloudToken = "",
    cloud_ca_file: CloudCaFile = None,
    project: Annotated[
        str,
        typer.Option(
            help="Make this project of the cloud, if there is none, and a token in it for the "
            "controller. Default: the controller gets the token as it is."
        ),
    ] = "",
    image: Annotated[str, typer.Option(help="Image of the controller.")] = "fakecloud:dev",
    replicas: Annotated[int, typer.Option(min=0, max=9, help="One leads, the others wait.")] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="CCM_NAME=VALUE", help="More of its environment."),
    ] = None,
) -> None:
    """Print what installs the controller, its Secret included: … | kubectl apply -f -.

    Exit codes: 0 done, 1 the cloud refused, 2 wrong usage.
    """
    pairs = [one.partition("=") for one in settings or ()]
    try:
        token = _read_token(cloud_token, cloud_token_file)
        if project:
            made = installation.make_token(cloud_url, token, project, cluster_name, cloud_ca_file)
            token = asyncio.run(made)
        wanted = installation.Installation(
            cloud_url,
            cluster_name,
            token,
            image,
            replicas,
            _read_ca(cloud_ca_file),
            {name: value for name, _, value in pairs},
        )
        typer.echo(installation.as_yaml(installation.objects(wanted)), nl=False)
    except errors.ConfigError as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(2) from None
    except errors.CloudError as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(1) from None


def _read_token(token: str, file: Path | None) -> str:
    if token:
        return token
    if file is None:
        raise errors.ConfigError("give --cloud-token-file, or FAKECLOUD_TOKEN")
    return connections.read_token(file)


@contextlib.contextmanager
def _kubeconfig_file(text: str) -> Iterator[Path]:
    """Give a file that can be read several times, which standard input can't."""
    if text != "-":
        yield Path(text)
        return
    with tempfile.NamedTemporaryFile("w", prefix="fakecloud-", suffix=".kubeconfig") as file:
        file.write(sys.stdin.read(MAX_KUBECONFIG))
        file.flush()
        yield Path(file.name)


def _read_ca(file: Path | None) -> str:
    try:
        return "" if file is None else file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"--cloud-ca-file {file}: {error}") from error


def _show(findings: list[explaining.Finding], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(msgspec.json.encode(findings).decode())
        return
    for one in findings:
        typer.echo(f"{one.level.value:8} {one.text}")
        if one.remedy:
            typer.echo(f"{'':8}   {one.remedy}")
