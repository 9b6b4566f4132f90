"""The cloud of `make kind`: one container on kind's network, its projects and its image."""

from __future__ import annotations

import json
import os
import platform
import time
import urllib.error
import urllib.request
from typing import Any

from tests.e2e.commands import Failure, inspect, run, run_or_nothing, step

CONTAINER = os.environ.get("FAKECLOUD_NAME") or "fakecloud"
TOKEN_FILE = "/var/lib/fakecloud/admin.token"
WRONG_CONFIGURATION = 2
READY_S = 60
PROJECT_LENGTH = 40


def port() -> str:
    """Return the port of the API on 127.0.0.1."""
    return os.environ.get("FAKECLOUD_PORT", "8440")


def image_name() -> str:
    """Return the image that runs: one that was given, otherwise what is built here."""
    return os.environ.get("FAKECLOUD_IMAGE") or "fakecloud:dev"


def build_image() -> str:
    """Return the name of the image, built now unless one was given."""
    name = image_name()
    if "FAKECLOUD_IMAGE" not in os.environ:
        with step(f"image {name} built"):
            run("docker", "build", "--tag", name, ".", timeout_s=1200)
    return name


def remove_image() -> None:
    """Remove the image if it was built here."""
    if "FAKECLOUD_IMAGE" not in os.environ and inspect("image", image_name()):
        run_or_nothing("docker", "image", "rm", image_name())


def network_of(node: str) -> str:
    """Return the docker network of a node. Raises: Failure if kind runs elsewhere."""
    details = inspect("container", node)
    if details is None:
        raise Failure(
            f"there is no container {node} on this docker engine: is it a kind cluster, made with "
            "this engine? docker ps and docker context show say which"
        )
    return str(next(iter(details["NetworkSettings"]["Networks"])))


def start(image: str, network: str, *, transparent: bool = False) -> None:
    """Start the container, or the newer image in its place, and wait until it is ready."""
    with step(f"fakecloud on the network {network}"):
        environment = compose_environment(network) | {"FAKECLOUD_IMAGE": image}
        run(*compose(transparent=transparent), "up", "--detach", "--no-build", env=environment, timeout_s=180,
            hint="a taken port? FAKECLOUD_PORT sets another")  # fmt: skip
        await_ready()


def stop() -> None:
    """Remove the container and its volume."""
    with step("container and its volume removed"):
        # Only ever used on what is there; the variables must merely have values.
        run(*compose(), "down", "--volumes", env=compose_environment("kind"))


def compose(*, transparent: bool = False) -> tuple[str, ...]:
    """Return the start of a compose command; with host ports where addresses aren't reachable."""
    files = ["docker-compose.yml"]
    if "FAKECLOUD_HOST_PORTS" in os.environ or platform.system() != "Linux":
        files.append("docker-compose.host-ports.yml")
    if transparent:
        files.append("docker-compose.transparent.yml")
    return ("docker", "compose", *(part for file in files for part in ("--file", file)))


def is_there() -> bool:
    return inspect("container", CONTAINER) is not None


def compose_environment(network: str) -> dict[str, str]:
    return dict(os.environ) | {"FAKECLOUD_NETWORK": network}


def await_ready() -> None:
    """Wait for /readyz. Raises: Failure with the container's last words."""
    url = f"http://127.0.0.1:{port()}/readyz"
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            _refuse_what_cannot_start()
            time.sleep(0.1)
    raise Failure(f"fakecloud is not ready after {READY_S} s ({url}):\n{_last_words()}")


def _refuse_what_cannot_start() -> None:
    """Raises: Failure when the server has said that its options can't be used."""
    state = (inspect("container", CONTAINER) or {}).get("State", {})
    if state.get("ExitCode") == WRONG_CONFIGURATION and state.get("Status") != "running":
        words = _last_words()
        run_or_nothing("docker", "stop", CONTAINER)
        raise Failure(f"{words}\n  then again; `make kind-down` removes what is there")


def _last_words() -> str:
    lines = run_or_nothing("docker", "logs", "--tail", "8", CONTAINER, both=True).splitlines()
    errors = [line for line in lines if line.startswith("fakecloud: ")]
    return errors[-1] if errors else "\n".join(lines)


# ---- one project and one token for each cluster


def project_of(cluster: str) -> str:
    """Return the project of a cluster: its name in the characters that a project may have."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in cluster.lower())
    return f"kind-{kept}"[:PROJECT_LENGTH].rstrip("-")


def manifests(cluster: str, image: str, *settings: str) -> str:
    """Return what installs the controller in `cluster`, with a new token of its project."""
    return run("docker", "exec", CONTAINER, "fakecloud-ccm", "manifests",
               "--cluster-name", cluster, "--project", project_of(cluster), "--image", image,
               *(part for one in settings for part in ("--set", one)))  # fmt: skip


def tokens(cluster: str) -> list[str]:
    """Return the ids of the tokens that the cluster's project has."""
    shown = run("docker", "exec", CONTAINER, "fakecloud", "token", "list",
                "--project", project_of(cluster), "-o", "json")  # fmt: skip
    listed: list[dict[str, Any]] = json.loads(shown)
    return [str(one["id"]) for one in listed]


def revoke(cluster: str, ids: list[str]) -> None:
    """Let these tokens open nothing any more."""
    for one in ids:
        run("docker", "exec", CONTAINER, "fakecloud", "token", "revoke", one,
            "--project", project_of(cluster))  # fmt: skip


def forget(cluster: str) -> None:
    """Remove what the cloud has of a cluster that is released: its tokens, its empty project."""
    revoke(cluster, tokens(cluster))
    run_or_nothing("docker", "exec", CONTAINER, "fakecloud", "project", "delete",
                   project_of(cluster))  # fmt: skip


def has_project(cluster: str) -> bool:
    """Return whether the cloud knows the cluster."""
    shown = run("docker", "exec", CONTAINER, "fakecloud", "project", "list", "-o", "json")
    return any(one["id"] == project_of(cluster) for one in json.loads(shown))


def release(cluster: str, kubeconfig: str) -> str:
    """Give back the Services of a cluster that runs; return what was said of each.

    kubeconfig: as `kind get kubeconfig --internal` prints it.
    """
    return run("docker", "exec", "--interactive", CONTAINER, "fakecloud-ccm", "release",
               "--kubeconfig", "-", "--project", project_of(cluster), stdin=kubeconfig,
               timeout_s=120)  # fmt: skip
