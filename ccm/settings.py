"""Every knob of the controller: unit in the name, default, where it came from."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from ccm import errors, selection

VERSION = "0.1.0"
USER_AGENT = f"fakecloud-ccm/{VERSION}"
FIELD_MANAGER = "fakecloud-ccm"
DEFAULT_CLASS = "fakecloud.dev/haproxy"


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Leader election; names and defaults of k8s.io/component-base/config/v1alpha1."""

    enabled: bool = True
    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0
    namespace: str = "kube-system"
    name: str = "cloud-controller-manager"

    def __post_init__(self) -> None:
        """Refuse timings that would let two instances lead. Raises: ConfigError."""
        if not self.duration_s > self.renew_deadline_s > self.retry_period_s > 0:
            raise errors.ConfigError(
                "--leader-elect-lease-duration must be longer than --leader-elect-renew-deadline, "
                "and that longer than --leader-elect-retry-period"
            )


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run of the controller is told."""

    cloud_url: str
    cloud_token_file: Path
    kubeconfig: Path | None = None
    cloud_provider: str = "fakecloud"
    cluster_name: str = "kubernetes"
    controllers: tuple[str, ...] = ("*",)
    classes: tuple[str, ...] = (DEFAULT_CLASS,)
    handle_unclassed: bool = True
    service_conditions: bool = True
    service_workers: int = 16
    node_workers: int = 1
    node_status_period_s: float = 300.0
    node_monitor_period_s: float = 5.0
    reachability_check: bool = True
    pod_networks: tuple[str, ...] = ()
    transparent: bool = False
    orphan_sweep: str = "delete"
    orphan_grace_s: float = 30.0
    lease: LeaseSettings = field(default_factory=LeaseSettings)
    bind_address: str = "0.0.0.0"  # noqa: S104 - probes of the kubelet come from outside the pod
    secure_port: int = 10258
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

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
        _check_at_least_one(
            {
                "--concurrent-service-syncs": self.service_workers,
                "--concurrent-node-syncs": self.node_workers,
                "--node-status-update-frequency": self.node_status_period_s,
                "--node-monitor-period": self.node_monitor_period_s,
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


_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration_s(flag: str, text: str) -> float:
    """Return seconds of a duration as Go writes them: 15s, 1m30s, 500ms.

    Raises: ConfigError naming `flag`.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise errors.ConfigError(f"{flag} must be a duration such as 15s or 1m30s, not {text!r}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
