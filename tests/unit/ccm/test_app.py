"""What is wired together: which controllers there are, and what /readyz waits for."""

from __future__ import annotations

import asyncio

import pytest

from ccm import app, errors, metrics, selection
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
    routed = leading(configure_cloud_routes=True, cluster_cidrs=("10.244.0.0/16",))
    assert [one.name for one in routed._controllers] == list(selection.KNOWN)
    assert [one.name for one in leading()._controllers] == list(selection.KNOWN)[:-1]


async def test_readiness_waits_for_endpointslices_where_pods_are_targets(leading):
    plain, by_pods = leading(), leading(pod_networks=("10.244.0.0/16",))
    for one in (plain, by_pods):
        one._services.synced.set()
        one._nodes.synced.set()
    assert plain._cache_problem() == ""
    assert by_pods._cache_problem() == "not listed yet: endpointslices"


async def test_p_14_nobody_is_ready_before_it_is_known_who_leads(leading):
    made = leading()
    made._is_leading = False
    assert made._cache_problem() == "starting"
    made._elector._seen = ("another", None, "1")
    assert made._cache_problem() == "", "a standby is ready"


async def test_p_16_scrape_has_the_names_of_upstream_and_ours(leading):
    made = leading(configure_cloud_routes=True, cluster_cidrs=("10.244.0.0/16",))
    with pytest.raises(errors.KubeError):
        await made._transport.request("GET", "/api/v1/nodes")
    text = (made._metrics.render() + made._transport._metrics.render()).decode()
    queues = ("service", "Nodes", "Routes")
    for name in (
        *(f'workqueue_depth{{name="{one}"}}' for one in queues),
        *(f'workqueue_adds_total{{name="{one}"}}' for one in queues),
        *(f'workqueue_retries_total{{name="{one}"}}' for one in queues),
        *(f'workqueue_queue_duration_seconds_bucket{{le="1e-08",name="{one}"}}' for one in queues),
        *(f'workqueue_work_duration_seconds_count{{name="{one}"}}' for one in queues),
        *(f'workqueue_unfinished_work_seconds{{name="{one}"}} 0.0' for one in queues),
        *(f'workqueue_longest_running_processor_seconds{{name="{one}"}} 0.0' for one in queues),
        'rest_client_requests_total{code="<error>",host="',
        'rest_client_request_duration_seconds_count{host="',
        "service_controller_loadbalancer_sync_total",
        "service_controller_nodesync_error_total",
        'service_controller_nodesync_latency_seconds_bucket{le="16384.0"}',
        'service_controller_update_loadbalancer_host_latency_seconds_bucket{le="1.0"}',
        'leader_election_slowpath_total{name="cloud-controller-manager"}',
        "ccm_drift_repairs_total",
        "route_controller_route_sync_total",
        "node_controller_initial_node_sync_delay_seconds",
        'ccm_informer_lag_seconds{resource="services"}',
        'ccm_informer_lag_seconds{resource="nodes"}',
        "ccm_loop_lag_seconds_count",
        "ccm_time_to_address_seconds_count",
        "ccm_cloud_request_duration_seconds",
    ):
        assert name in text, name


async def test_lag_of_the_loop_is_measured(leading):
    made = leading()
    measuring = asyncio.create_task(made._measure_lag())
    clock = made._clock
    await clock.advance(app.LAG_S)
    clock._seconds += 3  # something held the loop for so long
    await clock.advance(app.LAG_S)
    measuring.cancel()
    value = made._metrics.registry.get_sample_value
    assert value("ccm_loop_lag_seconds_count") >= 1
