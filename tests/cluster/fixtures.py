"""Pytest fixtures: `cluster`, one embedded cluster per session, and `namespace`, one per test.

A folder whose tests use them has a conftest.py that says
`from tests.cluster.fixtures import cluster, namespace`: all share the one cluster.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster import binaries, embedded, errors


@functools.cache
def _shared() -> embedded.EmbeddedCluster | str:
    """Start the session's cluster, or return the reason why there is none.

    Outside of pytest's fixture cache because each conftest that imports the fixture has its own.
    """
    try:
        found = binaries.find(fetch=False)
    except errors.BinariesMissingError as error:
        return str(error)
    started = embedded.EmbeddedCluster(found.directory)
    started.start()
    return started


@pytest.fixture(scope="session")
def cluster() -> Iterator[embedded.EmbeddedCluster]:
    """A running cluster with three stand-in nodes; skips with the reason if there are no binaries.

    Tests that add nodes remove them again. Its start takes 3 s, and 20 s on a busy machine: tests
    that use it are marked `timeout(120)`.
    """
    shared = _shared()
    if isinstance(shared, str):
        pytest.skip(shared)
    yield shared
    shared.stop()


@pytest.fixture
def namespace(cluster: embedded.EmbeddedCluster) -> Iterator[str]:
    """The name of a fresh namespace, deleted afterwards (its contents go in the background)."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    cluster.create({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
    yield name
    cluster.request("DELETE", f"/api/v1/namespaces/{name}")
