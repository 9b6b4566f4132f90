"""fakecloud-ccm explain, on the real API server and the real cloud."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import embedded
from tests.flows.kube.services import PORT, Shop, answer, port
from tests.flows.kube.world import World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]


def explain(world: World, service: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "fakecloud-ccm"),
        "explain",
        service,
        f"--kubeconfig={world.cluster.kubeconfig}",
        f"--cloud-url={world.url}",
        f"--cloud-token-file={world.token_file}",
        *flags,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_served_and_refused_services_are_explained(shop: Shop, world: World) -> None:
    shop.create()
    shop.create("none", ports=[port(PORT, protocol="SCTP")])
    ip = shop.ip()
    answer(ip)

    def served() -> subprocess.CompletedProcess[str]:
        return explain(world, f"{shop.namespace}/web", "--output=json")

    done = embedded.eventually(served, lambda it: it.returncode == 0, timeout_s=60)
    texts = [one["text"] for one in json.loads(done.stdout)]
    assert f"published: {ip}" in texts
    assert "2 pods are ready" in texts

    refused = explain(world, f"{shop.namespace}/none")
    assert refused.returncode == 1
    assert "protocol SCTP is not supported" in refused.stdout


def test_a_missing_service_is_one_line(world: World) -> None:
    world.ensure_running()
    done = explain(world, "default/nothing")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "not found" in done.stderr
