"""Prometheus objects, named once. Names without ccm_ are those of upstream controller managers."""

from __future__ import annotations

import prometheus_client as prometheus

_SYNC = tuple(2.0**power for power in range(15))
_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_NODE = (1, 4, 16, 64, 256, 1024)
_QUEUE = tuple(10.0**power for power in range(-8, 4))
_REST = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
_LOOP = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """One set of metrics in a registry of its own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.syncs = self._counter(
            "service_controller_loadbalancer_sync_total", "Writes of load balancers to the cloud"
        )
        self.node_sync_errors = self._counter(
            "service_controller_nodesync_error_total",
            "Writes of load balancers that failed when only nodes had changed",
        )
        self.node_sync_latency = self._histogram(
            "service_controller_nodesync_latency_seconds",
            "From a change of nodes until every load balancer was looked at",
            _SYNC,
        )
        self.host_update_latency = self._histogram(
            "service_controller_update_loadbalancer_host_latency_seconds",
            "How long the cloud takes to take other nodes for a load balancer",
            _SYNC,
        )
        self.drift_repairs = self._counter(
            "ccm_drift_repairs_total",
            "Load balancers put back as asked for, after somebody else changed or deleted them",
        )
        self.reconciles = self._counter(
            "ccm_reconciles_total", "Looks at a Service or Node, by outcome", "kind", "outcome"
        )
        self.cloud_requests = self._counter(
            "ccm_cloud_requests_total", "Requests to the cloud", "verb", "code"
        )
        self.cloud_latency = self._histogram(
            "ccm_cloud_request_duration_seconds", "How long the cloud takes", _REST, "verb"
        )
        self.rest_requests = self._counter(
            "rest_client_requests_total",
            "Requests to the API server; code <error>: no answer",
            *("code", "method", "host"),
        )
        self.rest_latency = self._histogram(
            "rest_client_request_duration_seconds",
            "How long the API server takes, up to the head of its answer",
            _REST,
            *("verb", "host"),
        )
        self.events_dropped = self._counter(
            "ccm_events_dropped_total", "Kubernetes events not sent: full queue or refused"
        )
        self.events_waiting = self._gauge(
            "ccm_events_waiting", "Kubernetes events that are still to be written"
        )
        self.informer_errors = self._counter(
            "ccm_informer_errors_total", "Failed lists and watches", "resource"
        )
        self.informer_lag = self._gauge(
            "ccm_informer_lag_seconds",
            "Since the API server last said anything of a resource; bookmarks come every minute",
            "resource",
        )
        self.loop_lag = self._histogram(
            "ccm_loop_lag_seconds", "How late a timer of the event loop was", _LOOP
        )
        self.time_to_address = self._histogram(
            "ccm_time_to_address_seconds",
            "From the first sight of a Service to its address in status",
            _FAST,
        )
        self.node_taint_delay = self._histogram(
            "node_controller_cloud_provider_taint_removal_delay_seconds",
            "From the creation of a Node to the removal of its uninitialized taint",
            _NODE,
        )
        self.node_sync_delay = self._histogram(
            "node_controller_initial_node_sync_delay_seconds",
            "From the creation of a Node to the first look at it",
            _NODE,
        )
        self.route_syncs = self._counter("route_controller_route_sync_total", "Looks at all routes")
        self.orphans = self._gauge(
            "ccm_orphaned_load_balancers", "Load balancers of this cluster without a Service"
        )
        self.queue_depth = self._gauge("workqueue_depth", "Keys that wait for a worker", "name")
        self.queue_adds = self._counter("workqueue_adds_total", "Keys added", "name")
        self.queue_retries = self._counter("workqueue_retries_total", "Keys that failed", "name")
        self.queue_wait = self._histogram(
            "workqueue_queue_duration_seconds", "How long keys wait for a worker", _QUEUE, "name"
        )
        self.queue_work = self._histogram(
            "workqueue_work_duration_seconds", "How long a look at a key takes", _QUEUE, "name"
        )
        self.queue_unfinished = self._gauge(
            "workqueue_unfinished_work_seconds", "How long keys have been in work, summed", "name"
        )
        self.queue_longest = self._gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the oldest key has been in work",
            "name",
        )
        self.running_controllers = self._gauge(
            "running_managed_controllers", "1 while the controller runs", "manager", "name"
        )
        self.is_leader = self._gauge(
            "leader_election_master_status", "1 while this instance leads", "name"
        )
        self.lease_slow_paths = self._counter(
            "leader_election_slowpath_total",
            "Renewals that had to read the Lease first, because somebody else had written it",
            "name",
        )
        self.slis = prometheus.CollectorRegistry()
        self.health = prometheus.Gauge(
            "kubernetes_healthcheck",
            "1 if the check was well when last asked",
            ("name", "type"),
            registry=self.slis,
        )
        self.health_checks = prometheus.Counter(
            "kubernetes_healthchecks_total",
            "Answers of health checks",
            ("name", "type", "status"),
            registry=self.slis,
        )

    def render(self) -> bytes:
        """Return the text that a scrape gets."""
        return prometheus.generate_latest(self.registry)

    def render_slis(self) -> bytes:
        """Return the text that a scrape of /metrics/slis gets."""
        return prometheus.generate_latest(self.slis)

    def _counter(self, name: str, text: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> prometheus.Histogram:
        return prometheus.Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, text: str, *labels: str) -> prometheus.Gauge:
        return prometheus.Gauge(name, text, labels, registry=self.registry)
