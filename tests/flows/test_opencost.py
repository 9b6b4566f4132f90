"""Costs where OpenCost and Prometheus look for them: the same as the report says."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from tests.flows.conftest import Running, document

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(120)]
MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.fixture
def shop(new_cloud, targets) -> Running:
    """A cloud with two Services and a load balancer of nobody, 100 hours later."""
    cloud = new_cloud()
    assert cloud.http.put("/v1/clock", json={"mode": "manual"}).status_code == 200
    for service in ("web", "api"):
        labels = {
            "cluster": "kind", "namespace": "shop", "service": service, "service-uid": f"u-{service}",
        }  # fmt: skip
        cloud.active(service, document(targets, 8080) | {"labels": labels})
    cloud.active("other", document(targets, 8080))
    where = cloud.http.post("/v1/clock:advance", json={"by": "100h"}).headers["operation-location"]
    assert cloud.http.get(where, params={"wait": "20s"}).json()["status"] == "SUCCEEDED"
    return cloud


def data(cloud: Running, path: str, **asked: str):
    answer = cloud.http.get(path, params={"window": "5d"} | asked)
    assert answer.status_code == 200, answer.text
    assert answer.json()["code"] == 200
    return answer.json()["data"]


def test_every_shape_adds_up_to_the_report(shop):
    start = "2020-01-01T00:00:00Z"
    total = shop.http.get("/v1/cost-report", params={"from": start}).json()["total"]
    (sets,) = data(shop, "/allocation")
    assert sorted(sets) == [
        "__unallocated__/__unallocated__/__unallocated__", "kind/shop/api", "kind/shop/web",
    ]  # fmt: skip
    assert sum(Decimal(one["x_totalCost_exact"]) for one in sets.values()) == Decimal(total)
    (by_namespace,) = data(shop, "/allocation", aggregate="namespace")
    both = by_namespace["shop"]
    assert both["properties"] == {
        "cluster": "kind",
        "namespace": "shop",
        "services": ["api", "web"],
    }
    parts = both["loadBalancers"].values()
    assert len(parts) == 2, "several load balancers of a namespace are several"
    exact = sum(Decimal(one["x_cost_exact"]) for one in parts)
    assert exact == Decimal(both["x_loadBalancerCost_exact"])
    assert both["loadBalancerCost"] == float(exact)
    assert {round(one["hours"]) for one in parts} == {100}
    assert all(one["ip"] for one in parts)
    assets = data(shop, "/assets").values()
    assert sum(Decimal(one["x_cost_exact"]) for one in assets) == Decimal(total)
    prices = data(shop, "/customCost/total")
    assert prices["x_totalCost_exact"] == total
    days = data(shop, "/customCost/timeseries")["timeseries"]
    assert len(days) == 6
    assert sum(Decimal(one["x_totalCost_exact"]) for one in days) == Decimal(total)


def test_a_window_or_group_that_there_isnt_is_refused(shop):
    for asked in ({"window": "long"}, {"window": "2d", "aggregate": "pod"}, {"window": "9999w"}):
        answer = shop.http.get("/allocation", params=asked)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), asked
    assert (
        shop.http.get("/assets", params={"window": "1d"}, headers={"authorization": ""}).status_code
        == 401
    )


def test_prometheus_reads_the_hourly_rate_of_a_service(shop):
    text = shop.http.get("/metrics").text
    found = re.findall(r"^kubecost_load_balancer_cost\{(.*)\} (\S+)$", text, re.MULTILINE)
    rates = {re.search(r'service_name="(.*?)"', labels)[1]: float(rate) for labels, rate in found}
    report = shop.http.get("/v1/cost-report", params={"group_by": "service"}).json()
    expected = {
        one["key"]["service"] or "other": float(one["monthly_run_rate"]) / 730
        for one in report["groups"]
    }
    assert rates == pytest.approx(expected)
    owed = re.findall(r"^fakecloud_cost_total\{.*\} (\S+)$", text, re.MULTILINE)
    whole = shop.http.get("/v1/cost-report", params={"from": "2020-01-01T00:00:00Z"}).json()
    assert sum(map(float, owed)) == pytest.approx(float(whole["total"]))


def test_every_series_of_the_dashboard_is_there(shop):
    dashboard = json.loads((MANIFESTS / "components" / "dashboards" / "costs.json").read_text())
    text = shop.http.get("/metrics").text
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:fakecloud|kubecost)_\w+", target["expr"])
    }
    assert len(shown) >= 5
    assert [
        name for name in sorted(shown) if not re.search(rf"^(# TYPE )?{name}[ {{]", text, re.M)
    ] == []
