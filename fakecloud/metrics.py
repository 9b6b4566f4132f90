"""Prometheus metrics of the cloud, named once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fakecloud.model import Counters

Carried = tuple[str, str, float, Iterable[Counters]]
"""Project, load balancer, seconds since the counters were read, the counters."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a SKU of a load balancer has come to and costs in an hour, for display only.

    there: it goes on costing.
    """

    project: str
    load_balancer: str
    labels: Mapping[str, str]
    ip: str
    sku: str
    currency: str
    total: float
    hourly: float
    there: bool


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

    def show_costs(self, source: Callable[[], list[Cost]], most: int) -> Metrics:
        """Show the same of the costs of the first `most` Services, the rest of a project in one."""
        self.registry.register(_Costs(source, most))
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


class _Costs(Collector):
    """What is owed, by OpenCost's name for load balancers and by our own."""

    def __init__(self, source: Callable[[], list[Cost]], most: int) -> None:
        self._source = source
        self._most = most

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are known without asking the source."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the moment."""
        found = self._source()
        shown = set(list(dict.fromkeys(map(_whose, found)))[: self._most])
        totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
        rates: defaultdict[tuple[str, ...], float] = defaultdict(float)
        balancers: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for one in found:
            whose = _whose(one)
            is_shown = whose in shown
            project, cluster, namespace, service, uid = (
                whose if is_shown else (one.project, "", "", "", "")
            )
            key: tuple[str, ...] = (
                one.currency, project, cluster, namespace, service, one.sku,
            )  # fmt: skip
            totals[key] += one.total
            if one.there:
                rates[key] += one.hourly
                if is_shown and service:
                    balancers[one.ip, namespace, service, uid] += one.hourly
        of = ["currency", "project", "cluster", "namespace", "service", "sku"]
        total = CounterMetricFamily(
            "fakecloud_cost", "What was owed so far, for display; corrections lower it", labels=of
        )
        rate = GaugeMetricFamily("fakecloud_hourly_rate", "Costs of the next hour", labels=of)
        same = GaugeMetricFamily(
            "kubecost_load_balancer_cost",
            "Costs of the next hour, by the name that OpenCost has for them",
            labels=["ingress_ip", "namespace", "service_name", "uid"],
        )
        for family, values in ((total, totals), (rate, rates), (same, balancers)):
            for labels, value in values.items():
                family.add_metric(labels, value)
        yield from (total, rate, same)


def _whose(cost: Cost) -> tuple[str, str, str, str, str]:
    """Return the project, cluster, namespace, Service and its UID."""
    label = cost.labels.get
    return (
        cost.project,
        label("cluster", ""),
        label("namespace", ""),
        label("service", cost.load_balancer),
        label("service-uid", ""),
    )
