"""The doors to docker, kind and kubectl: bounded, with what they said when they fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INSTALL = {
    "docker": "https://docs.docker.com/engine/install/",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/#kubectl",
}


class Failure(Exception):
    """A step that did not work: one line for the user, with the next thing to try."""


def need_tools() -> None:
    """Raises: Failure that names what is missing and where to get it."""
    for name, url in INSTALL.items():
        if shutil.which(name) is None:
            raise Failure(f"{name} is not on PATH; how to install it: {url}")
    run("docker", "version", "--format", "{{.Server.Version}}", hint="is the engine running?")
    run("docker", "compose", "version", hint="install the compose plugin (docker-compose-plugin)")


def run(
    *command: str,
    timeout_s: float = 60,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    hint: str = "",
) -> str:
    """Return standard output. Raises: Failure with the command's last words and `hint`."""
    shown = " ".join(command[:4])
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=ROOT,
            env=env,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{shown} … took longer than {timeout_s:.0f} s {hint}".rstrip()) from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        tail = "\n    ".join(words[-8:]) or f"exit code {done.returncode}"
        raise Failure(f"{shown} … failed{f' ({hint})' if hint else ''}:\n    {tail}")
    return done.stdout


def run_or_nothing(*command: str, both: bool = False) -> str:
    """Return standard output, with `both` also standard error; nothing when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (subprocess.SubprocessError, OSError):
        return ""
    return done.stdout + (done.stderr if both else "")


def say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say what was done and how long it took, once it is done."""
    began = time.monotonic()
    yield
    say(f"  {name}  ({time.monotonic() - began:.1f} s)")


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """Return `docker KIND inspect NAME`, None if there is no such thing."""
    try:
        found: list[dict[str, Any]] = json.loads(run("docker", kind, "inspect", name))
    except Failure:
        return None
    return found[0]


class Kubectl:
    """kubectl against one cluster, whatever the current context is."""

    def __init__(self, kubeconfig: Path) -> None:
        self.base = ("kubectl", "--kubeconfig", str(kubeconfig))

    def __call__(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        return run(*self.base, *arguments, stdin=stdin, timeout_s=timeout_s)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what `kubectl get … -o json` shows."""
        found: dict[str, Any] = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects by standard input, so that no secret stands on a command line."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self("apply", "-f", "-", stdin=text)
