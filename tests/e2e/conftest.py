"""Fixtures of the e2e cases: one cluster with the controller, one namespace for each case."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.e2e import kind, kind_cloud, kind_cluster
from tests.e2e.cases import Case
from tests.e2e.commands import Failure, Kubectl, need_tools, run_or_nothing, say


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Give the cluster of E2E_CLUSTER, or one that is made for this run and deleted after it."""
    name = os.environ.get("E2E_CLUSTER") or "fakecloud-e2e"
    try:
        need_tools()
        before = kind_cluster.names()
        kind.up(name, os.environ.get("E2E_CONFIG") if name not in before else None, samples=False)
    except Failure as failure:
        pytest.exit(f"make e2e: {failure}", returncode=1)
    yield name
    if name in before:
        return
    if name in kind_cluster.names():
        kind.down(name)
    elif not kind_cluster.served():  # a case has deleted it
        kind_cloud.stop()


@pytest.fixture(scope="session")
def kubectl(cluster: str) -> Iterator[Kubectl]:
    with kind_cluster.kubectl_of(cluster) as made:
        yield made


@pytest.fixture
def case(kubectl: Kubectl, cluster: str, request: pytest.FixtureRequest) -> Iterator[Case]:
    """Give a case with a namespace of its own; what it knows is shown when it fails."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[:50].strip("-")
    made = Case(kubectl, cluster, f"e2e-{words}")
    made.remove()
    made.make()
    failures = request.session.testsfailed
    yield made
    if request.session.testsfailed > failures:
        say(_what_is_known(made))
    if cluster in kind_cluster.names():
        made.remove(wait=False)


def _what_is_known(case: Case) -> str:
    place = (*case.kubectl.base, "-n", case.namespace)
    commands = (("get", "services,pods", "-o", "wide"), ("get", "events"))
    return "\n".join(run_or_nothing(*place, *one, both=True) for one in commands)
