"""What is applied to a cluster: the objects of manifests/base with Secret, settings and image."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from ccm import errors
from ccm import metrics as metrics_
from ccm.cloud import client as clients
from ccm.cloud import connection as connections

NAMESPACE: Final = "kube-system"
NAME: Final = "fakecloud-ccm"
LABELS: Final = {"app.kubernetes.io/name": NAME}
CONFIGURATION: Final = "fakecloud.dev/configuration"
"""Annotation of the pods: it changes with Secret and settings, so that pods start anew."""
CA_FILE: Final = "/etc/fakecloud-ccm/ca.crt"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Installation:
    """One controller. settings: more of its CCM_* environment; ca: PEM, "" = the system's."""

    cloud_url: str
    cluster_name: str
    token: str
    image: str
    replicas: int = 1
    ca: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def objects(wanted: Installation, folder: Path | None = None) -> list[Object]:
    """Return the objects to apply, in an order that works. Raises: ConfigError."""
    folder = folder or _folder()
    found = list(_read(folder, pods=_targets_pods(wanted.settings)))
    configuration = _configuration(wanted)
    for one in found:
        one["metadata"]["labels"] = {**LABELS, **one["metadata"].get("labels", {})}
        if one["kind"] == "Deployment":
            _fill_in(one["spec"], wanted, configuration)
    return [*configuration, *found]


async def make_token(
    cloud_url: str, token: str, project: str, cluster_name: str, ca_file: Path | None
) -> str:
    """Return the secret of a new token for the controller, in a project of its own.

    token: an administrator's. The project is made if there is none. Raises: ConfigError, CloudError.
    """
    read, metrics = (lambda: token), metrics_.Metrics()
    outside = clients.Client(connections.Connection(cloud_url, read, metrics, ca_file))
    inside = clients.Client(connections.Connection(cloud_url, read, metrics, ca_file, project))
    async with contextlib.aclosing(outside), contextlib.aclosing(inside):
        await outside.ensure_project(project)
        return await inside.make_token(f"controller of cluster {cluster_name}")


def as_yaml(found: list[Object]) -> str:
    """Return the objects as one stream of YAML documents."""
    return yaml.safe_dump_all(found, sort_keys=False, width=1000)


def _configuration(wanted: Installation) -> list[Object]:
    settings = {"CCM_CLOUD_URL": wanted.cloud_url, "CCM_CLUSTER_NAME": wanted.cluster_name}
    secret = {"token": wanted.token}
    if wanted.ca:
        secret["ca.crt"] = wanted.ca
        settings["CCM_CLOUD_CA_FILE"] = CA_FILE
    for name in wanted.settings:
        if not name.startswith("CCM_") or not name.replace("_", "").isalnum():
            raise errors.ConfigError(
                f"--set {name}: settings are named CCM_…, as `run --help` says"
            )
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": dict(LABELS)}
    common = {"apiVersion": "v1", "metadata": metadata}
    return [
        {**common, "kind": "Secret", "type": "Opaque", "stringData": secret},
        {**common, "kind": "ConfigMap", "data": {**settings, **wanted.settings}},
    ]


def _fill_in(spec: Object, wanted: Installation, configuration: list[Object]) -> None:
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
    spec["replicas"] = wanted.replicas
    spec["template"]["metadata"]["annotations"] = {CONFIGURATION: digest[:12]}
    spec["template"]["spec"]["containers"][0]["image"] = wanted.image


def _read(folder: Path, *, pods: bool) -> Iterator[Object]:
    """Return the objects of base/; with `pods` also the right to read EndpointSlices."""
    files = list(folder.glob("base/*.yaml"))
    if pods:
        files.append(folder / "components" / "pod-networks" / "rbac.yaml")
    for file in sorted(files, key=lambda one: one.name == "deployment.yaml"):
        if file.name != "kustomization.yaml":
            yield from yaml.safe_load_all(file.read_text("utf-8"))


def _targets_pods(settings: Mapping[str, str]) -> bool:
    """Return whether Services without nodePorts have their pods as targets."""
    routes = settings.get("CCM_CONFIGURE_CLOUD_ROUTES", "false").lower()
    return bool(settings.get("CCM_POD_NETWORKS")) or routes not in ("false", "0", "no", "off")


def _folder() -> Path:
    """Return where the manifests are: beside this file when installed, else in the checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "manifests", here.parent / "manifests"):
        if folder.is_dir():
            return folder
    raise errors.ConfigError(f"{here} has no manifests beside it: is the installation complete?")
