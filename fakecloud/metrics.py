"""Prometheus metrics of the cloud, named once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fakecloud.model import Counters

Carried = tuple[str, str, float, Iterable[Counters]]
"""Project, load balancer, seconds since the counters were read, the counters."""


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

    def show_traffic(self, source: Callable[[], list[Carried]], most: int) -> Metrics:
        """Show a series per listener of the first `most` load balancers, and how many are cut."""
        self.registry.register(_Traffic(source, most))
        return self

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Traffic(Collector):
    """What load balancers carry. Names are users' text, so their number is limited."""

    def __init__(self, source: Callable[[], list[Carried]], most: int) -> None:
        self._source = source
        self._most = most

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are known without asking the source."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the moment."""
        everything = self._source()
        shown, prefix = everything[: self._most], "fakecloud_load_balancer_"
        of = ["project", "load_balancer"]
        carried = CounterMetricFamily(
            f"{prefix}bytes", "Carried", labels=[*of, "listener", "direction"]
        )
        connections = CounterMetricFamily(
            f"{prefix}connections", "Accepted connections", labels=[*of, "listener"]
        )
        requests = CounterMetricFamily(
            f"{prefix}requests", "HTTP requests", labels=[*of, "listener"]
        )
        active = GaugeMetricFamily(
            f"{prefix}active_connections", "Open connections", labels=[*of, "listener"]
        )
        share = GaugeMetricFamily(
            f"{prefix}busiest_target_share", "Connections of the busiest target", labels=of
        )
        connect = GaugeMetricFamily(
            f"{prefix}slowest_target_connect_seconds", "Average, of the slowest", labels=of
        )
        age = GaugeMetricFamily(
            f"{prefix}unmetered_seconds", "What a crash would lose now", labels=of
        )
        for project, name, age_s, counters in shown:
            key = [project, name]
            targets = [one for one in counters if one.kind == "target"]
            for one in counters:
                if one.kind == "listener":
                    carried.add_metric([*key, one.name, "in"], one.bytes_in)
                    carried.add_metric([*key, one.name, "out"], one.bytes_out)
                    connections.add_metric([*key, one.name], one.connections_total)
                    requests.add_metric([*key, one.name], one.requests_total)
                    active.add_metric([*key, one.name], one.connections)
            given = [one.connections_total for one in targets]
            if sum(given):
                share.add_metric(key, max(given) / sum(given))
            times = [one.connect_ms for one in targets if one.connect_ms is not None]
            if times:
                connect.add_metric(key, max(times) / 1000)
            age.add_metric(key, age_s)
        yield from (carried, connections, requests, active, share, connect, age)
        yield GaugeMetricFamily(
            "fakecloud_metrics_load_balancers_omitted",
            "Load balancers beyond the limit, without series of their own",
            value=len(everything) - len(shown),
        )
