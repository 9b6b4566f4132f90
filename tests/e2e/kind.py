"""`make kind`: fakecloud beside a kind cluster, until a Service has an address that answers.

    python3 -m tests.e2e.kind up | down

Needs docker, kind and kubectl on PATH, and Python's standard library. Environment:
  KIND_CLUSTER          the cluster to use; without it the current context's, or the only one;
                        a cluster named `fakecloud` is made if there is none
  FAKECLOUD_POOL_RANGE  the load balancers' addresses; otherwise the top of the network's subnet
  FAKECLOUD_IMAGE       an image that exists; otherwise fakecloud:dev is built from the Dockerfile
  FAKECLOUD_PORT        the API's port on 127.0.0.1, 8440
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from tests.e2e import ranges
from tests.e2e.commands import ROOT, Failure, Kubectl, inspect, need_tools, run
from tests.e2e.story import answer_everywhere, watch_addresses

NEW_CLUSTER = "fakecloud"
CONTAINER = "fakecloud"
DEPLOYMENT = "fakecloud-ccm"
NAMESPACE = "kube-system"
LEASE = "cloud-controller-manager"
TOKEN_FILE = "/var/lib/fakecloud/admin.token"
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
CLASSES = (None, "fakecloud.dev/haproxy")
READY_S = 60
ROLLOUT_S = 120


def main(arguments: list[str]) -> int:
    """Run one of the two stories; 0 done, 1 a step failed, 2 wrong usage."""
    stories: dict[str, Callable[[], None]] = {"up": up, "down": down}
    if len(arguments) != 1 or arguments[0] not in stories:
        sys.stderr.write("usage: python3 -m tests.e2e.kind up | down\n")
        return 2
    try:
        stories[arguments[0]]()
    except (Failure, ranges.NoRange) as failure:
        sys.stderr.write(f"make kind: {failure}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("make kind: interrupted; `make kind-down` removes what is there\n")
        return 1
    return 0


def up() -> None:
    """Bring everything up and show one Service going from <pending> to an address."""
    began = time.monotonic()
    need_tools()
    cluster, made = choose_cluster()
    with kubectl_of(cluster) as kubectl:
        nodes = control_planes_of(kubectl)
        image = build_image()
        start_cloud(image, nodes[0])
        with step("image loaded for the controller"):
            run("kind", "load", "docker-image", image, "--name", cluster, "--nodes", ",".join(nodes),
                timeout_s=300)  # fmt: skip
        install_controller(kubectl, cluster, image, made=made)
        services = watch_addresses(kubectl)
        answer_everywhere(kubectl, nodes[0], services)
        say(f"\nready after {time.monotonic() - began:.0f} s")
        say_how_to_use(cluster)


def down() -> None:
    """Remove what `up` made: samples, controller, container and its volume, a cluster of ours."""
    need_tools()
    names = clusters()
    wanted = os.environ.get("KIND_CLUSTER")
    for cluster in [wanted] if wanted else names:
        if cluster not in names:
            raise Failure(f"there is no kind cluster {cluster!r}; there are: {', '.join(names)}")
        with kubectl_of(cluster) as kubectl:
            remove_from(cluster, kubectl)
    with step("container and its volume removed"):
        run("docker", "compose", "down", "--volumes", env=compose_env("unused", "192.0.2.0/24"))
    if "FAKECLOUD_IMAGE" not in os.environ and inspect("image", image_name()):
        run("docker", "image", "rm", image_name(), timeout_s=120)
    say("nothing of fakecloud is left")


# ---- the cluster


def clusters() -> list[str]:
    return run("kind", "get", "clusters").split()


def choose_cluster() -> tuple[str, bool]:
    """Return the cluster to use, and whether it was made just now."""
    names, wanted = clusters(), os.environ.get("KIND_CLUSTER")
    current = run_or_nothing("kubectl", "config", "current-context").removeprefix("kind-").strip()
    if wanted:
        if wanted not in names:
            raise Failure(f"no kind cluster {wanted!r}; there are: {', '.join(names) or 'none'}")
        return wanted, False
    if names:
        chosen = current if current in names else names[0]
        if len(names) > 1 and current not in names:
            raise Failure(f"which cluster? say KIND_CLUSTER=… with one of: {', '.join(names)}")
        say(f"using the kind cluster {chosen}")
        return chosen, False
    with step(f"kind cluster {NEW_CLUSTER} made"):
        run("kind", "create", "cluster", "--name", NEW_CLUSTER, "--wait", "180s", timeout_s=600)
    return NEW_CLUSTER, True


def run_or_nothing(*command: str) -> str:
    try:
        return run(*command)
    except Failure:
        return ""


@contextmanager
def kubectl_of(cluster: str) -> Iterator[Kubectl]:
    """Give a kubectl for `cluster` that no current context can lead astray."""
    with tempfile.TemporaryDirectory(prefix="fakecloud-kind-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(run("kind", "get", "kubeconfig", "--name", cluster))
        yield Kubectl(kubeconfig)


def control_planes_of(kubectl: Kubectl) -> list[str]:
    """Return the names of the control plane nodes; in kind also those of their containers."""
    nodes = kubectl.get("nodes", "-l", "node-role.kubernetes.io/control-plane")["items"]
    if not nodes:
        raise Failure("the cluster has no control plane node: is it a kind cluster?")
    return [str(node["metadata"]["name"]) for node in nodes]


# ---- the cloud


def build_image() -> str:
    """Return the name of the image to run, built now unless one was given."""
    name = image_name()
    if "FAKECLOUD_IMAGE" not in os.environ:
        with step(f"image {name} built"):
            run("docker", "build", "--tag", name, ".", timeout_s=1200)
    return name


def image_name() -> str:
    return os.environ.get("FAKECLOUD_IMAGE") or "fakecloud:dev"


def start_cloud(image: str, node: str) -> None:
    """Start the container on the network of `node` and wait until it is ready."""
    details = inspect("container", node)
    if details is None:
        raise Failure(f"there is no container {node}: does kind run on this docker engine?")
    network = next(iter(details["NetworkSettings"]["Networks"]))
    pool = os.environ.get("FAKECLOUD_POOL_RANGE") or str(free_range(network))
    with step(f"fakecloud on the network {network}, addresses from {pool}"):
        env = compose_env(network, pool) | {"FAKECLOUD_IMAGE": image}
        run("docker", "compose", "up", "--detach", "--no-build", env=env, timeout_s=180,
            hint="a taken port? FAKECLOUD_PORT sets another")  # fmt: skip
        await_ready()


def compose_env(network: str, pool: str) -> dict[str, str]:
    return dict(os.environ) | {"FAKECLOUD_NETWORK": network, "FAKECLOUD_POOL_RANGE": pool}


def free_range(network: str) -> IPv4Network:
    """Return the range of a container that runs already, otherwise a free one."""
    running = inspect("container", CONTAINER)
    if running:
        for line in running["Config"]["Env"]:
            if line.startswith("FAKECLOUD_POOL="):
                first = line.partition("=")[2].partition(",")[0]  # NAME=KIND:CIDR@INTERFACE
                return IPv4Network(first.rpartition(":")[2].partition("@")[0])
    details = inspect("network", network)
    if details is None:
        raise Failure(f"there is no docker network {network}")
    return ranges.choose(ranges.subnet_of(details), ranges.taken_of(details))


def await_ready() -> None:
    """Wait for /readyz. Raises: Failure with the container's last words."""
    url = f"http://127.0.0.1:{os.environ.get('FAKECLOUD_PORT', '8440')}/readyz"
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    logs = run_or_nothing("docker", "logs", "--tail", "8", CONTAINER)
    raise Failure(
        f"fakecloud is not ready after {READY_S} s ({url}); docker logs {CONTAINER}:\n{logs}"
    )


# ---- the controller


def install_controller(kubectl: Kubectl, cluster: str, image: str, *, made: bool) -> None:
    """Apply token, settings and manifests, and wait until the controller leads."""
    token = run("docker", "exec", CONTAINER, "cat", TOKEN_FILE).strip()
    with step("controller runs in the cluster"):
        kubectl.apply(
            named("Secret", DEPLOYMENT, stringData={"token": token}),
            named("ConfigMap", "fakecloud-kind", data={"made-cluster": str(made).lower()}),
        )
        overlay = kubectl("kustomize", str(ROOT / "manifests" / "kind"))
        overlay = overlay.replace("image: fakecloud:dev", f"image: {image}")
        kubectl(
            "apply",
            "-f",
            "-",
            stdin=overlay.replace("CCM_CLUSTER_NAME: kind", f"CCM_CLUSTER_NAME: {cluster}"),
        )
        # A new token or image under the same name only reaches pods that start anew.
        kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{DEPLOYMENT}")
        try:
            kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{DEPLOYMENT}",
                    f"--timeout={ROLLOUT_S}s", timeout_s=ROLLOUT_S + 20)  # fmt: skip
        except Failure as failure:
            logs = run_or_nothing(*kubectl.base, "-n", NAMESPACE, "logs", "--tail=12",
                                  f"deployment/{DEPLOYMENT}")  # fmt: skip
            raise Failure(f"{failure}\n  its log:\n{logs}") from None


def named(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


def remove_from(cluster: str, kubectl: Kubectl) -> None:
    """Remove everything of ours from one cluster; the cluster itself if `up` made it."""
    marker = run_or_nothing(*kubectl.base, "-n", NAMESPACE, "get", "configmap", "fakecloud-kind",
                            "-o", "jsonpath={.data.made-cluster}")  # fmt: skip
    if marker == "true":
        with step(f"cluster {cluster} deleted"):
            run("kind", "delete", "cluster", "--name", cluster, timeout_s=180)
        return
    if not marker:
        return  # not a cluster that `up` was used on
    with step(f"samples and controller removed from {cluster}"):
        kubectl("delete", "-k", str(ROOT / "manifests" / "samples"), "--ignore-not-found",
                "--wait", "--timeout=60s", timeout_s=90)  # fmt: skip
        # The controller first: it gives its lease back while it still may.
        kubectl("-n", NAMESPACE, "delete", "deployment", DEPLOYMENT, "--ignore-not-found",
                "--wait", "--cascade=foreground", "--timeout=60s", timeout_s=90)  # fmt: skip
        kubectl("delete", "-k", str(ROOT / "manifests" / "kind"), "--ignore-not-found",
                "--wait", "--timeout=60s", timeout_s=90)  # fmt: skip
        kubectl("-n", NAMESPACE, "delete", f"secret/{DEPLOYMENT}", f"lease/{LEASE}",
                "--ignore-not-found")  # fmt: skip
        release_services(kubectl)
        for node in control_planes_of(kubectl):
            run_or_nothing("docker", "exec", node, "crictl", "rmi", image_name())
        kubectl("-n", NAMESPACE, "delete", "configmap", "fakecloud-kind", "--ignore-not-found")


def release_services(kubectl: Kubectl) -> None:
    """Give the user's own Services back: <pending> again, and free to be deleted."""
    for service in kubectl.get("services", "--all-namespaces")["items"]:
        metadata, spec = service["metadata"], service["spec"]
        kept = [f for f in metadata.get("finalizers", []) if f != FINALIZER]
        ours = spec.get("loadBalancerClass") in CLASSES and kept != metadata.get("finalizers", [])
        if ours:
            place = ("-n", metadata["namespace"], "patch", "service", metadata["name"])
            status = json.dumps({"status": {"loadBalancer": None, "conditions": foreign(service)}})
            kubectl(*place, "--subresource=status", "--type=merge", "-p", status)
            finalizers = json.dumps({"metadata": {"finalizers": kept}})
            kubectl(*place, "--type=merge", "-p", finalizers)
            say(f"  {metadata['namespace']}/{metadata['name']} is <pending> again")


def foreign(service: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the conditions of a Service that the controller didn't write."""
    conditions = service["status"].get("conditions", [])
    return [one for one in conditions if not one["type"].startswith("LoadBalancer")]


# ---- what the user sees


def say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say what was done and how long it took, once it is done."""
    began = time.monotonic()
    yield
    say(f"  {name}  ({time.monotonic() - began:.1f} s)")


def say_how_to_use(cluster: str) -> None:
    port = os.environ.get("FAKECLOUD_PORT", "8440")
    say(f"""
From now on every Service of type LoadBalancer in this cluster gets an address:
  kubectl --context kind-{cluster} get services --watch
What they cost (also: docker exec {CONTAINER} fakecloud cost report):
  export FAKECLOUD_TOKEN=$(docker exec {CONTAINER} cat {TOKEN_FILE})
  curl -H "Authorization: Bearer $FAKECLOUD_TOKEN" http://127.0.0.1:{port}/v1/cost-report
The API's pages: http://127.0.0.1:{port}/docs        The log: docker logs -f {CONTAINER}
The end: make kind-down""")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
