"""manifests/samples, on ports that this user may bind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
_FIRST_FREE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

Json = dict[str, Any]


def lowest_port() -> int:
    """Return the lowest port that this user may bind."""
    if os.getuid() == 0:
        return 1
    try:
        return int(_FIRST_FREE.read_text())
    except (OSError, ValueError):
        return 1024


def load() -> tuple[list[Json], bool]:
    """Return the sample objects, and whether ports had to be raised: 80 becomes 8080."""
    lowest = lowest_port()
    objects: list[Json] = []
    raised = False
    for file in sorted(SAMPLES.glob("*.yaml")):
        if file.name == "kustomization.yaml":
            continue
        objects += [one for one in yaml.safe_load_all(file.read_text()) if one]
    for one in objects:
        if one["kind"] != "Service":
            continue
        taken = {port["port"] for port in one["spec"]["ports"]}
        for port in one["spec"]["ports"]:
            while port["port"] < lowest:
                new = port["port"] + 8000
                while new in taken:
                    new += 1
                taken.add(new)
                port["port"] = new
                raised = True
    return objects, raised
