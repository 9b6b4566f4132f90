"""The cluster of `make kind`: chosen or made, the controller installed in it and removed again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e import kind_cloud
from tests.e2e.commands import ROOT, Failure, Kubectl, run, run_or_nothing, say, step

NEW_CLUSTER = "fakecloud"
DEPLOYMENT = "fakecloud-ccm"
MARKER = "fakecloud-kind"
NAMESPACE = "kube-system"
LEASE = "cloud-controller-manager"
RETURN_ROUTES = ROOT / "manifests" / "components" / "transparent" / "return-routes.yaml"
AGENTS = "fakecloud-return-routes"
PEER_LABEL = "io.x-k8s.cloud-provider-kind.cluster"
ROLLOUT_S = 120


@dataclass(frozen=True)
class Options:
    """What `make kind` was asked for beyond the default."""

    class_only: bool = False
    pod_routes: bool = False
    transparent: bool = False


PLAIN = Options()


def names() -> list[str]:
    return run("kind", "get", "clusters").split()


def only() -> str:
    """Return the one cluster that there is. Raises: Failure."""
    there = names()
    if len(there) != 1:
        raise Failure(f"which cluster? say --cluster with one of: {', '.join(there) or '(none)'}")
    return there[0]


def choose(wanted: str | None, config: str | None) -> tuple[str, bool]:
    """Return the cluster to use, and whether it was made just now."""
    there = names()
    if wanted is None and there:
        context = run_or_nothing("kubectl", "config", "current-context").strip()
        current = context.removeprefix("kind-")
        if len(there) > 1 and current not in there:
            raise Failure(f"which cluster? say NAME=… with one of: {', '.join(there)}")
        wanted = current if current in there else there[0]
        say(f"using the kind cluster {wanted}")
    wanted = wanted or NEW_CLUSTER
    if wanted in there:
        if config:
            raise Failure(f"cluster {wanted} is there already: CONFIG={config} has no effect on it")
        return wanted, False
    made = ("--config", config) if config else ()
    with step(f"kind cluster {wanted} made"):
        run("kind", "create", "cluster", "--name", wanted, "--wait", "180s", *made, timeout_s=600)
    return wanted, True


@contextmanager
def kubectl_of(cluster: str) -> Iterator[Kubectl]:
    """Give a kubectl for `cluster` that no current context can lead astray."""
    with tempfile.TemporaryDirectory(prefix="fakecloud-kind-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(run("kind", "get", "kubeconfig", "--name", cluster))
        yield Kubectl(kubeconfig)


def control_planes(kubectl: Kubectl) -> list[str]:
    """Return the names of the control plane nodes; in kind also those of their containers."""
    nodes = kubectl.get("nodes", "-l", "node-role.kubernetes.io/control-plane")["items"]
    if not nodes:
        raise Failure("the cluster has no control plane node: is it a kind cluster?")
    return [str(node["metadata"]["name"]) for node in nodes]


def refuse_beside_another(kubectl: Kubectl, cluster: str) -> None:
    """Raises: Failure when something else already gives addresses to Services without a class."""
    found = ""
    peers = run_or_nothing("docker", "ps", "--filter", f"label={PEER_LABEL}={cluster}",
                           "--format", "{{.Names}}").split()  # fmt: skip
    if peers:
        found = f"cloud-provider-kind (container {peers[0]})"
    elif not run_or_nothing(*kubectl.base, "-n", NAMESPACE, "get", "deployment", DEPLOYMENT,
                            "--ignore-not-found", "-o", "name"):  # fmt: skip
        found = _served(kubectl)
    if found:
        raise Failure(
            f"another provider of load balancers is active: {found}. Two would write the same "
            "status in turn. Stop it, or leave it the Services without a class: CLASS_ONLY=1; "
            "then ours are those with loadBalancerClass: fakecloud.dev/haproxy"
        )


def _served(kubectl: Kubectl) -> str:
    """Return what was published, and by whom, although no controller of ours is there."""
    for service in kubectl.get("services", "--all-namespaces", "--show-managed-fields")["items"]:
        if not service["status"].get("loadBalancer", {}).get("ingress"):
            continue
        writers = [
            one["manager"]
            for one in service["metadata"].get("managedFields", [])
            if one.get("subresource") == "status"
        ]
        if DEPLOYMENT in writers or service["spec"].get("loadBalancerClass"):
            continue
        name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        return f"{' and '.join(writers) or 'somebody'} gave {name} its address"
    return ""


def load(cluster: str, image: str, nodes: list[str]) -> None:
    """Load the image onto `nodes`, onto all if there are none."""
    with step("image loaded for the controller"):
        on = ("--nodes", ",".join(nodes)) if nodes else ()
        run("kind", "load", "docker-image", image, "--name", cluster, *on, timeout_s=300)


def install(kubectl: Kubectl, cluster: str, image: str, options: Options, *, made: bool) -> None:
    """Apply token, settings and manifests, and wait until the controller leads."""
    before = kind_cloud.tokens(cluster) if kind_cloud.has_project(cluster) else []
    with step("controller runs in the cluster"):
        marker = {"made-cluster": str(made or bool(marker_of(kubectl))).lower()}
        kubectl.apply(_named("ConfigMap", MARKER, data=marker))
        settings = _settings(kubectl, options)
        kubectl("apply", "-f", "-", stdin=kind_cloud.manifests(cluster, image, *settings))
        if options.transparent:
            agents = RETURN_ROUTES.read_text().replace("image: fakecloud:dev", f"image: {image}")
            kubectl("apply", "-f", "-", stdin=agents)
        else:
            _remove_agents(kubectl)  # of an installation that had them
        try:
            kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{DEPLOYMENT}",
                    f"--timeout={ROLLOUT_S}s", timeout_s=ROLLOUT_S + 20)  # fmt: skip
        except Failure as failure:
            logs = run_or_nothing(*kubectl.base, "-n", NAMESPACE, "logs", "--tail=12",
                                  f"deployment/{DEPLOYMENT}", both=True)  # fmt: skip
            raise Failure(f"{failure}\n  its log:\n{logs}") from None
        if options.transparent:
            kubectl("-n", NAMESPACE, "rollout", "status", f"daemonset/{AGENTS}",
                    f"--timeout={ROLLOUT_S}s", timeout_s=ROLLOUT_S + 20)  # fmt: skip
    kind_cloud.revoke(cluster, before)  # nothing runs with them any more


def _settings(kubectl: Kubectl, options: Options) -> list[str]:
    """Return the controller's settings for `options`."""
    settings = []
    if options.class_only:
        settings.append("CCM_HANDLE_UNCLASSED=false")
    if options.pod_routes:
        settings += ["CCM_CONFIGURE_CLOUD_ROUTES=true", f"CCM_CLUSTER_CIDR={_pods_of(kubectl)}"]
    if options.transparent:
        settings.append("CCM_TRANSPARENT=true")
    return settings


def _pods_of(kubectl: Kubectl) -> str:
    """Return the cluster's ranges of pods, as kubeadm was told. Raises: Failure."""
    text = kubectl("-n", NAMESPACE, "get", "configmap", "kubeadm-config", "-o",
                   "jsonpath={.data.ClusterConfiguration}")  # fmt: skip
    for line in text.splitlines():
        name, _, value = line.strip().partition(": ")
        if name == "podSubnet":
            return value.strip('"')
    raise Failure("kubeadm-config has no podSubnet: is it a kind cluster?")


def marker_of(kubectl: Kubectl) -> bool | None:
    """Return whether `up` made this cluster, None if it was never used on it."""
    text = run_or_nothing(*kubectl.base, "-n", NAMESPACE, "get", "configmap", MARKER,
                          "--request-timeout=10s", "-o", "jsonpath={.data.made-cluster}")  # fmt: skip
    return text == "true" if text else None


def served() -> list[str]:
    """Return the clusters that `up` was used on."""
    found = []
    for cluster in names():
        with kubectl_of(cluster) as kubectl:
            if marker_of(kubectl) is not None:
                found.append(cluster)
    return found


def remove_from(cluster: str, kubectl: Kubectl, *, made: bool) -> None:
    """Remove everything of ours from one cluster; the cluster itself if `up` made it."""
    with step(f"samples and controller removed from {cluster}"):
        kubectl("delete", "-k", str(ROOT / "manifests" / "samples"), "--ignore-not-found",
                "--wait", "--timeout=60s", timeout_s=90)  # fmt: skip
        remove_controller(kubectl)
    if kind_cloud.is_there():
        for line in kind_cloud.release(cluster, internal_kubeconfig(cluster)).splitlines():
            say(f"  {line}")
        kind_cloud.forget(cluster)
    if made:
        with step(f"cluster {cluster} deleted"):
            run("kind", "delete", "cluster", "--name", cluster, timeout_s=180)
        return
    for node in control_planes(kubectl):
        run_or_nothing("docker", "exec", node, "crictl", "rmi", kind_cloud.image_name())
    kubectl("-n", NAMESPACE, "delete", "configmap", MARKER, "--ignore-not-found")


def remove_controller(kubectl: Kubectl) -> None:
    """Delete the controller with all that its manifests applied."""
    # The Deployment first: the controller gives its lease back while it still may.
    kubectl("-n", NAMESPACE, "delete", "deployment", DEPLOYMENT, "--ignore-not-found",
            "--wait", "--cascade=foreground", "--timeout=60s", timeout_s=90)  # fmt: skip
    _remove_agents(kubectl)
    pod_networks = ROOT / "manifests" / "components" / "pod-networks" / "rbac.yaml"
    for what in (("-k", str(ROOT / "manifests" / "base")), ("-f", str(pod_networks))):
        kubectl("delete", *what, "--ignore-not-found", "--wait", "--timeout=60s",
                timeout_s=90)  # fmt: skip
    kubectl("-n", NAMESPACE, "delete", f"configmap/{DEPLOYMENT}", f"secret/{DEPLOYMENT}",
            f"lease/{LEASE}", "--ignore-not-found")  # fmt: skip


def _remove_agents(kubectl: Kubectl) -> None:
    """Delete the agents of --transparent, and what they told the nodes' kernels."""
    place = (*kubectl.base, "-n", NAMESPACE)
    pods = run_or_nothing(*place, "get", "pods", "-l", f"app.kubernetes.io/name={AGENTS}",
                          "-o", "name").split()  # fmt: skip
    for pod in pods:
        run_or_nothing(*place, "exec", pod, "--", "python", "-m", "ccm.returning", "--remove")
    kubectl("-n", NAMESPACE, "delete", "daemonset", AGENTS, "--ignore-not-found", "--wait",
            "--timeout=60s", timeout_s=90)  # fmt: skip


def internal_kubeconfig(cluster: str) -> str:
    """Return how a container on kind's network reaches the API server."""
    return run("kind", "get", "kubeconfig", "--internal", "--name", cluster)


def _named(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}
