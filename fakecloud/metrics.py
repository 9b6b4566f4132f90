"""Prometheus metrics of the cloud, named once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Every metric, on a registry of its own so that tests don't share them."""

    def __init__(self) -> None:
        """Register all of them."""
        self.registry = CollectorRegistry()
        self.load_balancers = Gauge(
            "fakecloud_load_balancers", "Living load balancers", ["state"], registry=self.registry
        )
        self.watches = Gauge("fakecloud_watches", "Open watches", registry=self.registry)
        self.steps = Counter(
            "fakecloud_provisioner_steps", "Turns of the provisioner", registry=self.registry
        )
        self.step_seconds = Histogram(
            "fakecloud_provisioner_step_seconds", "Time of a turn", registry=self.registry
        )
        self.loop_failures = Counter(
            "fakecloud_loop_failures",
            "Turns that failed unexpectedly",
            ["loop"],
            registry=self.registry,
        )
        self.faults = Counter(
            "fakecloud_faults_injected",
            "Faults injected",
            ["layer", "action"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
