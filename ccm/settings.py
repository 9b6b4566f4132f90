"""Every knob of the controller: unit in the name, default, where it came from."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ccm import errors, selection

VERSION = "0.1.0"
USER_AGENT = f"fakecloud-ccm/{VERSION}"
FIELD_MANAGER = "fakecloud-ccm"
DEFAULT_CLASS = "fakecloud.dev/haproxy"

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Knob:
    """What a field is on the command line: the one place where a flag is written down.

    is_repeatable: of a list, which else is given once with commas; least, most: of a number;
    also: further environment variables.
    """

    flag: str
    text: str
    is_repeatable: bool = False
    least: int | None = None
    most: int | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Leader election; names and defaults of k8s.io/component-base/config/v1alpha1."""

    enabled: Annotated[bool, Knob("--leader-elect", "Write only while holding the Lease.")] = True
    duration_s: Annotated[float, Knob("--leader-elect-lease-duration", "How long it lasts.")] = 15.0
    renew_deadline_s: Annotated[
        float, Knob("--leader-elect-renew-deadline", "How long renewing may fail.")
    ] = 10.0
    retry_period_s: Annotated[
        float, Knob("--leader-elect-retry-period", "Between two attempts.")
    ] = 2.0
    namespace: Annotated[
        str, Knob("--leader-elect-resource-namespace", "Namespace of the Lease.")
    ] = "kube-system"
    name: Annotated[str, Knob("--leader-elect-resource-name", "Name of the Lease.")] = (
        "cloud-controller-manager"
    )
    lock: Annotated[str, Knob("--leader-elect-resource-lock", "Only leases.")] = "leases"

    def __post_init__(self) -> None:
        """Refuse timings that would let two instances lead. Raises: ConfigError."""
        if self.lock != "leases":
            raise errors.ConfigError(
                f"--leader-elect-resource-lock must be leases, not {self.lock!r}"
            )
        if not self.duration_s > self.renew_deadline_s > self.retry_period_s > 0:
            raise errors.ConfigError(
                "--leader-elect-lease-duration must be longer than --leader-elect-renew-deadline, "
                "and that longer than --leader-elect-retry-period"
            )


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run of the controller is told. Fields with a knob are the flags of `run`."""

    cloud_url: Annotated[str, Knob("--cloud-url", "URL of fakecloud.")]
    cloud_token_file: Annotated[Path, Knob("--cloud-token-file", "File with fakecloud's token.")]
    cloud_ca_file: Annotated[
        Path | None,
        Knob("--cloud-ca-file", "Whom to trust for https. Default: whom the system trusts."),
    ] = None
    kubeconfig: Annotated[
        Path | None,
        Knob(
            "--kubeconfig",
            "How to reach the API server. Default: the pod's service account.",
            also=("KUBECONFIG",),
        ),
    ] = None
    cloud_provider: Annotated[str, Knob("--cloud-provider", "Only fakecloud.")] = "fakecloud"
    cluster_name: Annotated[str, Knob("--cluster-name", "Shown on the bill.")] = "kubernetes"
    controllers: Annotated[
        tuple[str, ...],
        Knob(
            "--controllers",
            "Which run, separated by commas: * all, NAME this one, -NAME not this one. "
            f"There are {', '.join(selection.KNOWN)}.",
            is_repeatable=True,
        ),
    ] = ("*",)
    classes: Annotated[
        tuple[str, ...],
        Knob("--load-balancer-class", "Class to handle; may be repeated.", is_repeatable=True),
    ] = (DEFAULT_CLASS,)
    handle_unclassed: Annotated[
        bool, Knob("--handle-unclassed", "Also Services without a class.")
    ] = True
    service_conditions: Annotated[
        bool, Knob("--service-conditions", "Write conditions that say why it is pending.")
    ] = True
    hourly_cost: Annotated[
        bool,
        Knob("--hourly-cost", "Say on Services what they cost: an annotation, and two Events."),
    ] = True
    service_workers: Annotated[
        int, Knob("--concurrent-service-syncs", "Workers.", least=1, most=256)
    ] = 16
    node_workers: Annotated[int, Knob("--concurrent-node-syncs", "Workers.", least=1, most=256)] = 1
    node_status_period_s: Annotated[
        float,
        Knob(
            "--node-status-update-frequency",
            "How often addresses and labels of nodes are compared with the cloud.",
        ),
    ] = 300.0
    node_monitor_period_s: Annotated[
        float,
        Knob("--node-monitor-period", "How often instances of unready nodes are looked for."),
    ] = 5.0
    configure_cloud_routes: Annotated[
        bool,
        Knob(
            "--configure-cloud-routes",
            "Lead the cloud to the pods of each node. Upstream does by default; here the cluster's "
            "own network plug-in is in charge unless told otherwise.",
        ),
    ] = False
    cluster_cidrs: Annotated[
        tuple[str, ...],
        Knob("--cluster-cidr", "CIDRs of all pods, at most one of each family; routes stay in it."),
    ] = ()
    route_period_s: Annotated[
        float,
        Knob(
            "--route-reconciliation-period",
            "How often routes are compared while neither nodes nor routes change.",
        ),
    ] = 600.0
    reachability_check: Annotated[
        bool,
        Knob(
            "--reachability-check",
            "Connect to published addresses once, for the condition Reachable.",
        ),
    ] = True
    pod_networks: Annotated[
        tuple[str, ...],
        Knob(
            "--pod-networks",
            "CIDRs of pods that load balancers reach directly, separated by commas; then Services "
            "need no nodePorts. Default: --cluster-cidr with --configure-cloud-routes.",
        ),
    ] = ()
    transparent: Annotated[
        bool,
        Knob(
            "--transparent",
            "Pods see the client's address with externalTrafficPolicy Local; needs ccm.returning "
            "on every node, and a cloud that was started with --transparent.",
        ),
    ] = False
    orphan_sweep: Annotated[
        str,
        Knob("--orphan-sweep", "Load balancers whose Service vanished: delete, or only report."),
    ] = "delete"
    orphan_grace_s: Annotated[
        float, Knob("--orphan-grace-period", "How long they are left alone, e.g. 30s.")
    ] = 30.0
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    secure_port: Annotated[
        int, Knob("--secure-port", "Health and metrics; 0 = none.", least=0, most=65535)
    ] = 10258
    bind_address: Annotated[str, Knob("--bind-address", "Where the secure port listens.")] = (
        "0.0.0.0"  # noqa: S104 - probes of the kubelet come from outside the pod
    )
    always_allow_paths: Annotated[
        tuple[str, ...],
        Knob("--authorization-always-allow-paths", "Paths of the secure port without a token."),
    ] = ("/healthz", "/readyz", "/livez")
    authentication_kubeconfig: Annotated[
        Path | None,
        Knob(
            "--authentication-kubeconfig",
            "How to reach who says whose token it is. Default: as --kubeconfig.",
        ),
    ] = None
    authorization_kubeconfig: Annotated[
        Path | None,
        Knob(
            "--authorization-kubeconfig",
            "How to reach who says what its owner may read. Default: as --kubeconfig.",
        ),
    ] = None
    tls_cert_file: Annotated[
        Path | None, Knob("--tls-cert-file", "Certificate; self-signed if not given.")
    ] = None
    tls_key_file: Annotated[Path | None, Knob("--tls-private-key-file", "Its key.")] = None
    log_level: Annotated[str, Knob("--log-level", "debug, info, warning or error.")] = "info"

    # Bounds and paces that are not flags.
    node_debounce_s: float = 0.1
    """Node changes within this time are one change."""
    watch_idle_s: float = 90.0
    """Silence after which a watch is opened again; the API server sends a bookmark each minute."""
    resync_period_s: float = 600.0
    """Every Service is looked at this often, spread by jitter; nothing is written if all is well."""
    recheck_s: float = 60.0
    """Safety net while waiting for an event of the cloud."""
    reprobe_s: float = 300.0
    """How often a refused Service is tried again without an edit (a quota may have grown)."""
    retry_base_s: float = 0.5
    retry_max_s: float = 120.0
    shutdown_grace_s: float = 10.0
    """How long keys in work may take to finish after SIGTERM."""

    def __post_init__(self) -> None:
        """Refuse what can't work. Raises: ConfigError naming the flag."""
        if self.cloud_provider != "fakecloud":
            raise errors.ConfigError(
                f"--cloud-provider must be fakecloud, not {self.cloud_provider!r}"
            )
        if not self.cloud_url.startswith(("http://", "https://")):
            raise errors.ConfigError(
                f"--cloud-url must start with http:// or https://, not {self.cloud_url!r}"
            )
        selection.check(self.controllers)
        self._check_routes()
        _check_at_least_one(
            {
                "--concurrent-service-syncs": self.service_workers,
                "--concurrent-node-syncs": self.node_workers,
                "--node-status-update-frequency": self.node_status_period_s,
                "--node-monitor-period": self.node_monitor_period_s,
                "--route-reconciliation-period": self.route_period_s,
            }
        )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise errors.ConfigError("--tls-cert-file and --tls-private-key-file go together")
        for one in self.pod_networks:
            _check_network("--pod-networks", one)
        if self.orphan_sweep not in ("delete", "report"):
            raise errors.ConfigError(
                f"--orphan-sweep must be delete or report, not {self.orphan_sweep!r}"
            )
        if not self.classes and not self.handle_unclassed:
            raise errors.ConfigError(
                "no Service would be handled: give --load-balancer-class or --handle-unclassed"
            )

    def runs(self, controller: str) -> bool:
        """Return whether the controller of that name is to run."""
        if controller == selection.ROUTE and not self.configure_cloud_routes:
            return False
        return selection.is_enabled(controller, self.controllers)

    def _check_routes(self) -> None:
        for one in self.cluster_cidrs:
            _check_network("--cluster-cidr", one)
        families = [ipaddress.ip_network(one, strict=False).version for one in self.cluster_cidrs]
        if len(families) != len(set(families)):
            raise errors.ConfigError("--cluster-cidr may have one CIDR of each family, not two")
        if self.configure_cloud_routes and not self.cluster_cidrs:
            raise errors.ConfigError(
                "--configure-cloud-routes needs --cluster-cidr: only routes in it are touched"
            )
        if not any(self.runs(one) for one in selection.KNOWN):
            raise errors.ConfigError("--controllers=route needs --configure-cloud-routes")
        if self.runs(selection.ROUTE) and not self.pod_networks:
            object.__setattr__(self, "pod_networks", self.cluster_cidrs)


def _check_at_least_one(flags: dict[str, float]) -> None:
    for flag, value in flags.items():
        if value < 1:
            raise errors.ConfigError(f"{flag} must be at least 1")


def _check_network(flag: str, text: str) -> None:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise errors.ConfigError(f"{flag}: {error}") from error


def parse_list(text: str) -> tuple[str, ...]:
    """Return the parts between commas, trimmed, without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_duration_s(flag: str, text: str) -> float:
    """Return seconds of a duration as Go writes them: 15s, 1m30s, 500ms.

    Raises: ConfigError naming `flag`.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise errors.ConfigError(f"{flag} must be a duration such as 15s or 1m30s, not {text!r}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
