"""The command line: fakecloud-ccm run, explain, teardown, version."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ccm import app, errors, inquiry, logs, selection
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


class Output(StrEnum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(settings_.VERSION)


@cli.command()
def run(
    cloud_url: Annotated[str, typer.Option(envvar="CCM_CLOUD_URL", help="URL of fakecloud.")],
    cloud_token_file: Annotated[
        Path, typer.Option(envvar="CCM_CLOUD_TOKEN_FILE", help="File with fakecloud's token.")
    ],
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            envvar=["CCM_KUBECONFIG", "KUBECONFIG"],
            help="How to reach the API server. Default: the pod's service account.",
        ),
    ] = None,
    cluster_name: Annotated[
        str, typer.Option(envvar="CCM_CLUSTER_NAME", help="Shown on the bill.")
    ] = "kubernetes",
    load_balancer_class: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CCM_LOAD_BALANCER_CLASS",
            help=f"Classes to handle; may be repeated. Default: {settings_.DEFAULT_CLASS}.",
        ),
    ] = None,
    handle_unclassed: Annotated[
        bool,
        typer.Option(envvar="CCM_HANDLE_UNCLASSED", help="Also Services without a class."),
    ] = True,
    cloud_provider: Annotated[
        str, typer.Option(envvar="CCM_CLOUD_PROVIDER", help="Only fakecloud.")
    ] = "fakecloud",
    controllers: Annotated[
        list[str] | None,
        typer.Option(
            envvar="CCM_CONTROLLERS",
            help="Which run, separated by commas: * all, NAME this one, -NAME not this one. "
            f"Default: *. There are {', '.join(selection.KNOWN)}.",
        ),
    ] = None,
    service_conditions: Annotated[
        bool,
        typer.Option(
            envvar="CCM_SERVICE_CONDITIONS", help="Write conditions that say why it is pending."
        ),
    ] = True,
    reachability_check: Annotated[
        bool,
        typer.Option(
            envvar="CCM_REACHABILITY_CHECK",
            help="Connect to published addresses once, for the condition Reachable.",
        ),
    ] = True,
    pod_networks: Annotated[
        str,
        typer.Option(
            envvar="CCM_POD_NETWORKS",
            help="CIDRs of pods that load balancers reach directly, separated by commas; "
            "then Services need no nodePorts.",
        ),
    ] = "",
    transparent: Annotated[
        bool,
        typer.Option(
            envvar="CCM_TRANSPARENT",
            help="Pods see the client's address with externalTrafficPolicy Local; needs "
            "ccm.returning on every node, and a cloud that was started with --transparent.",
        ),
    ] = False,
    orphan_sweep: Annotated[
        str,
        typer.Option(
            envvar="CCM_ORPHAN_SWEEP",
            help="Load balancers whose Service vanished: delete, or only report.",
        ),
    ] = "delete",
    orphan_grace_period: Annotated[
        str,
        typer.Option(
            envvar="CCM_ORPHAN_GRACE_PERIOD", help="How long they are left alone, e.g. 30s."
        ),
    ] = "30s",
    concurrent_service_syncs: Annotated[
        int,
        typer.Option(envvar="CCM_CONCURRENT_SERVICE_SYNCS", min=1, max=256, help="Workers."),
    ] = 16,
    concurrent_node_syncs: Annotated[
        int,
        typer.Option(envvar="CCM_CONCURRENT_NODE_SYNCS", min=1, max=256, help="Workers."),
    ] = 1,
    node_status_update_frequency: Annotated[
        str,
        typer.Option(
            envvar="CCM_NODE_STATUS_UPDATE_FREQUENCY",
            help="How often addresses and labels of nodes are compared with the cloud, e.g. 5m.",
        ),
    ] = "5m",
    node_monitor_period: Annotated[
        str,
        typer.Option(
            envvar="CCM_NODE_MONITOR_PERIOD",
            help="How often instances of nodes that aren't ready are looked for, e.g. 5s.",
        ),
    ] = "5s",
    leader_elect: Annotated[
        bool, typer.Option(envvar="CCM_LEADER_ELECT", help="Write only while holding the Lease.")
    ] = True,
    leader_elect_lease_duration: Annotated[
        str, typer.Option(envvar="CCM_LEADER_ELECT_LEASE_DURATION", help="E.g. 15s.")
    ] = "15s",
    leader_elect_renew_deadline: Annotated[
        str, typer.Option(envvar="CCM_LEADER_ELECT_RENEW_DEADLINE", help="E.g. 10s.")
    ] = "10s",
    leader_elect_retry_period: Annotated[
        str, typer.Option(envvar="CCM_LEADER_ELECT_RETRY_PERIOD", help="E.g. 2s.")
    ] = "2s",
    leader_elect_resource_name: Annotated[
        str, typer.Option(envvar="CCM_LEADER_ELECT_RESOURCE_NAME", help="Name of the Lease.")
    ] = "cloud-controller-manager",
    leader_elect_resource_namespace: Annotated[
        str, typer.Option(envvar="CCM_LEADER_ELECT_RESOURCE_NAMESPACE", help="Its namespace.")
    ] = "kube-system",
    secure_port: Annotated[
        int,
        typer.Option(
            envvar="CCM_SECURE_PORT", min=0, max=65535, help="Health and metrics; 0 = none."
        ),
    ] = 10258,
    bind_address: Annotated[
        str, typer.Option(envvar="CCM_BIND_ADDRESS", help="Where the secure port listens.")
    ] = "0.0.0.0",  # noqa: S104 - the kubelet probes from outside the pod
    tls_cert_file: Annotated[
        Path | None,
        typer.Option(envvar="CCM_TLS_CERT_FILE", help="Certificate; self-signed if not given."),
    ] = None,
    tls_private_key_file: Annotated[
        Path | None, typer.Option(envvar="CCM_TLS_PRIVATE_KEY_FILE", help="Its key.")
    ] = None,
    log_level: Annotated[
        str, typer.Option(envvar="CCM_LOG_LEVEL", help="debug, info, warning or error.")
    ] = "info",
) -> None:
    """Watch Services and Nodes and keep one load balancer per Service.

    Exit codes: 0 stopped as asked, 1 lost the lease or failed, 2 wrong usage or configuration.
    """
    try:
        logs.configure(log_level)
        lease = settings_.LeaseSettings(
            enabled=leader_elect,
            duration_s=settings_.parse_duration_s(
                "--leader-elect-lease-duration", leader_elect_lease_duration
            ),
            renew_deadline_s=settings_.parse_duration_s(
                "--leader-elect-renew-deadline", leader_elect_renew_deadline
            ),
            retry_period_s=settings_.parse_duration_s(
                "--leader-elect-retry-period", leader_elect_retry_period
            ),
            namespace=leader_elect_resource_namespace,
            name=leader_elect_resource_name,
        )
        settings = settings_.Settings(
            cloud_url=cloud_url,
            cloud_token_file=cloud_token_file,
            kubeconfig=kubeconfig,
            cloud_provider=cloud_provider,
            cluster_name=cluster_name,
            controllers=settings_.parse_list(",".join(controllers or ("*",))),
            classes=tuple(load_balancer_class or (settings_.DEFAULT_CLASS,)),
            handle_unclassed=handle_unclassed,
            service_conditions=service_conditions,
            service_workers=concurrent_service_syncs,
            node_workers=concurrent_node_syncs,
            node_monitor_period_s=settings_.parse_duration_s(
                "--node-monitor-period", node_monitor_period
            ),
            node_status_period_s=settings_.parse_duration_s(
                "--node-status-update-frequency", node_status_update_frequency
            ),
            reachability_check=reachability_check,
            pod_networks=settings_.parse_list(pod_networks),
            transparent=transparent,
            orphan_sweep=orphan_sweep,
            orphan_grace_s=settings_.parse_duration_s("--orphan-grace-period", orphan_grace_period),
            lease=lease,
            bind_address=bind_address,
            secure_port=secure_port,
            tls_cert_file=tls_cert_file,
            tls_key_file=tls_private_key_file,
        )
        code = _run(settings)
    except errors.ConfigError as error:
        typer.echo(f"fakecloud-ccm: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


@cli.command()
def explain(
    service: Annotated[str, typer.Argument(metavar="NAMESPACE/SERVICE")],
    cloud_url: Annotated[
        str, typer.Option(envvar=["CCM_CLOUD_URL", "FAKECLOUD_URL"], help="URL of fakecloud.")
    ],
    cloud_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar=["CCM_CLOUD_TOKEN_FILE", "FAKECLOUD_TOKEN_FILE"],
            help="File with fakecloud's token.",
        ),
    ] = None,
    cloud_token: Annotated[
        str, typer.Option(envvar="FAKECLOUD_TOKEN", help="The token itself; better not as a flag.")
    ] = "",
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
    cloud_url: Annotated[
        str, typer.Option(envvar=["CCM_CLOUD_URL", "FAKECLOUD_URL"], help="URL of fakecloud.")
    ],
    cloud_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar=["CCM_CLOUD_TOKEN_FILE", "FAKECLOUD_TOKEN_FILE"],
            help="File with fakecloud's token.",
        ),
    ] = None,
    cloud_token: Annotated[
        str, typer.Option(envvar="FAKECLOUD_TOKEN", help="The token itself; better not as a flag.")
    ] = "",
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
