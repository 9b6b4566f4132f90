"""The command line: fakecloud-ccm run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ccm import app, errors, logs
from ccm import settings as settings_

cli = typer.Typer(
    name="fakecloud-ccm",
    help="Cloud controller manager: one fakecloud load balancer per Service of type LoadBalancer.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help shows long option names whole
    pretty_exceptions_enable=False,
)


@cli.callback()
def _root() -> None:
    """Keep `run` a subcommand although it is the only one."""


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
            classes=tuple(load_balancer_class or (settings_.DEFAULT_CLASS,)),
            handle_unclassed=handle_unclassed,
            service_conditions=service_conditions,
            service_workers=concurrent_service_syncs,
            reachability_check=reachability_check,
            pod_networks=tuple(one.strip() for one in pod_networks.split(",") if one.strip()),
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


def main() -> None:
    """Run the command line."""
    cli()


def _run(settings: settings_.Settings) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(app.run(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(app.run(settings))


if __name__ == "__main__":
    main()
