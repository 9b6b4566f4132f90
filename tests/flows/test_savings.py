"""Advice that is followed: the next bill falls by exactly what was predicted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.flows.conftest import Running, document

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(120)]

SERVICES = ("web", "cart", "search", "api")


def wish(targets: list[dict[str, Any]], service: str) -> dict[str, Any]:
    labels = {"cluster": "kind", "namespace": "shop", "service": service}
    made = document(targets, 8080) | {"labels": labels}
    made["spec"]["listeners"][0]["name"] = "web"
    made["spec"]["listeners"][0]["protocol"] = "http"
    return made


def now(cloud: Running) -> str:
    found: str = cloud.http.get("/v1/clock").json()["now"]
    return found


def a_month_later(cloud: Running) -> Decimal:
    """Let 730 hours pass; return what they cost."""
    begun = now(cloud)
    answer = cloud.http.post("/v1/clock:advance", json={"by": "730h"})
    where = answer.headers["operation-location"]
    done = cloud.http.get(where, params={"wait": "20s"}).json()
    assert done["status"] == "SUCCEEDED", done
    asked = {"from": begun, "to": now(cloud)}
    answer = cloud.http.get("/v1/cost-report", params=asked)
    assert answer.status_code == 200, answer.text
    return Decimal(answer.json()["total"])


def test_the_next_bill_falls_by_what_was_predicted(new_cloud, targets):
    """Nothing is asked of the load balancers, so that only their time is billed."""
    cloud = new_cloud()
    assert cloud.http.put("/v1/clock", json={"mode": "manual"}).status_code == 200
    for service in SERVICES:
        cloud.active(service, wish(targets, service))
    before = a_month_later(cloud)
    (advice,) = cloud.http.get("/v1/costs/recommendations").json()["items"]
    assert sorted(advice["services"]) == sorted(f"shop/{service}" for service in SERVICES)
    assert Decimal(advice["current_monthly"]) == before
    for service in SERVICES:
        cloud.remove(service)
    cloud.active("shared", wish(targets, "gateway"))
    after = a_month_later(cloud)
    assert after == Decimal(advice["proposed_monthly"])
    assert before - after == Decimal(advice["saves_monthly"]) > 0
    assert cloud.http.get("/v1/billing/verify").json()["verified"]
