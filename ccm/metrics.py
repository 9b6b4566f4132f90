"""Prometheus objects, named once. Names without ccm_ are those of upstream controller managers."""

from __future__ import annotations

import prometheus_client as prometheus

_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_NODE = (1, 4, 16, 64, 256, 1024)


class Metrics:
    """One set of metrics in a registry of its own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.syncs = self._counter(
            "service_controller_loadbalancer_sync_total", "Writes of load balancers to the cloud"
        )
        self.reconciles = self._counter(
            "ccm_reconciles_total", "Looks at a Service or Node, by outcome", "kind", "outcome"
        )
        self.cloud_requests = self._counter(
            "ccm_cloud_requests_total", "Requests to the cloud", "verb", "code"
        )
        self.events_dropped = self._counter(
            "ccm_events_dropped_total", "Kubernetes events not sent: full queue or refused"
        )
        self.informer_errors = self._counter(
            "ccm_informer_errors_total", "Failed lists and watches", "resource"
        )
        self.time_to_address = prometheus.Histogram(
            "ccm_time_to_address_seconds",
            "From the first sight of a Service to its address in status",
            registry=self.registry,
            buckets=_FAST,
        )
        self.node_taint_delay = self._delay(
            "node_controller_cloud_provider_taint_removal_delay_seconds",
            "From the creation of a Node to the removal of its uninitialized taint",
        )
        self.node_sync_delay = self._delay(
            "node_controller_initial_node_sync_delay_seconds",
            "From the creation of a Node to the first look at it",
        )
        self.orphans = self._gauge(
            "ccm_orphaned_load_balancers", "Load balancers of this cluster without a Service"
        )
        self.queue_depth = self._gauge("workqueue_depth", "Keys that wait for a worker", "name")
        self.queue_adds = self._counter("workqueue_adds_total", "Keys added", "name")
        self.queue_retries = self._counter("workqueue_retries_total", "Keys that failed", "name")
        self.running_controllers = self._gauge(
            "running_managed_controllers", "1 while the controller runs", "manager", "name"
        )
        self.is_leader = self._gauge(
            "leader_election_master_status", "1 while this instance leads", "name"
        )

    def render(self) -> bytes:
        """Return the text that a scrape gets."""
        return prometheus.generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(name, text, labels, registry=self.registry)

    def _delay(self, name: str, text: str) -> prometheus.Histogram:
        return prometheus.Histogram(name, text, registry=self.registry, buckets=_NODE)

    def _gauge(self, name: str, text: str, *labels: str) -> prometheus.Gauge:
        return prometheus.Gauge(name, text, labels, registry=self.registry)
