"""What is wired together: which controllers there are, and what /readyz waits for."""

from __future__ import annotations

import pytest

from ccm import app, metrics, selection
from ccm.kube import events
from tests.fakes.ccm_clock import FakeClock
from tests.fakes.kubeapi import FakeApiServer
from tests.unit.ccm import builders


@pytest.fixture
async def leading():
    """Give a maker of instances that lead, with no cache filled."""
    transport = FakeApiServer().transport()

    def make(**changes):
        clock, numbers = FakeClock(), metrics.Metrics()
        settings = builders.run_settings(**changes)
        made = app.Instance(settings, transport, None, clock, numbers)
        recorder = events.Recorder(transport, "test", clock, numbers)
        made._controllers = made._make_controllers("uid", recorder)
        made._is_leading = True
        return made

    yield make
    await transport.close()


async def test_each_known_controller_is_made(leading):
    assert [one.name for one in leading()._controllers] == list(selection.KNOWN)


async def test_readiness_waits_for_endpointslices_where_pods_are_targets(leading):
    plain, by_pods = leading(), leading(pod_networks=("10.244.0.0/16",))
    for one in (plain, by_pods):
        one._services.synced.set()
        one._nodes.synced.set()
    assert plain._cache_problem() == ""
    assert by_pods._cache_problem() == "not listed yet: endpointslices"
