"""Memory of everything that makes load balancers, as PSS: shared pages count once."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.e2e.commands import Failure, run

_PROXY = "docker-proxy"
_SHIM = "containerd-shim"


def of_us(container: str, cluster: str) -> float:
    """Return MB of the cloud's container, its shim and ports, and the controller on its node."""
    pids = _inside(container) | _around([container])
    nodes = run("kind", "get", "nodes", "--name", cluster).split()
    for node in nodes:
        pids |= {pid for pid in _inside(node) if "fakecloud-ccm" in _command(pid)}
    return _pss_mb(pids)


def of_peer(process: int, cluster: str) -> float:
    """Return MB of the provider, its proxies' containers, and their shims and ports."""
    label = f"label=io.x-k8s.cloud-provider-kind.cluster={cluster}"
    containers = run("docker", "ps", "--quiet", "--filter", label).split()
    pids = {process} | _around(containers)
    for one in containers:
        pids |= _inside(one)
    return _pss_mb(pids)


def _inside(container: str) -> set[int]:
    lines = run("docker", "top", container, "-eo", "pid").splitlines()
    return {int(line) for line in lines[1:]}


def _around(containers: list[str]) -> set[int]:
    """Return the engine's own processes for these containers."""
    if not containers:
        return set()
    form = "{{.Id}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    told = run("docker", "inspect", "--format", form, *containers).splitlines()
    ids = {line.split()[0] for line in told}
    ips = {ip for line in told for ip in line.split()[1:]}
    found = set()
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        command = _command(pid)
        named = re.search(r"-id (\w+)", command)
        if _SHIM in command and named is not None and named[1] in ids:
            found.add(pid)
        if _PROXY in command and ips & set(command.split()):
            found.add(pid)
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _pss_mb(pids: set[int]) -> float:
    """Return the sum over `pids`. Raises: Failure without the right to look."""
    if os.getuid() != 0:
        raise Failure("memory can only be measured by root: sudo make bench-kind")
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        total += int(found[1]) if found else 0
    return total / 1000
