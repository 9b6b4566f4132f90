"""The fixtures of this folder: one pair of programs for all of its tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.cluster import embedded
from tests.cluster.fixtures import cluster, namespace
from tests.flows.kube.services import Shop
from tests.flows.kube.world import World

__all__ = ["cluster", "namespace"]


@pytest.fixture(scope="package")
def world(
    cluster: embedded.EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """`fakecloud serve` and `fakecloud-ccm run`; tests that kill one start it again."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    made = World(cluster, tmp_path_factory.mktemp("w"))
    try:
        made.start()
        yield made
        made.remove_services()
    finally:
        made.end()


@pytest.fixture
def shop(world: World, namespace: str) -> Iterator[Shop]:
    """A namespace with a pod on each of two nodes; its Services are gone after the test."""
    world.ensure_running()
    made = Shop(world, namespace)
    made.pod("one", "standin-1")
    made.pod("two", "standin-2")
    yield made
    world.ensure_running()
    made.remove_services()
