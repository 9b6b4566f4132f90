"""`drop_after_commit` on every route that changes something: a repetition does it exactly once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.flows.conftest import Running, document, eventually
from tests.flows.test_certificates import brought
from tests.flows.test_faults import inject

pytestmark = pytest.mark.haproxy

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "openapi.json").read_text())
ROUTES = sorted(
    f"{method.upper()} {path}"
    for path, item in GOLDEN["paths"].items()
    for method in item
    if method in ("put", "post", "patch", "delete") and not path.startswith("/v1/chaos")
)
READING = {
    "POST /v1/load-balancers:batchGet": "reads",
    "POST /v1/operations:batchGet": "reads",
    "POST /v1/costs/preview": "reads",
    "POST /v1/admin:check": "reads",
    "POST /v1/admin:export": "reads",
    "POST /v1/snapshots/{id}:restore": "always refuses",
    "POST /v1/snapshots": "a copy of the database can't be part of its transaction",
    "POST /v1/invoices/{id}:close": "needs a month that is over; the same again by itself",
    "DELETE /v1/snapshots/{id}": "a file can't be removed in a transaction",
}
"""Routes without a transaction to lose the answer of, and why."""

LB = "/v1/load-balancers/web"
MERGE = {"content-type": "application/merge-patch+json"}
Prepared = tuple[str, dict[str, Any]]


def lb(cloud: Running) -> None:
    cloud.active("web", document([]))


def reserved(cloud: Running) -> None:
    assert cloud.http.post("/v1/addresses", json={"name": "kept"}).status_code == 201


def both(cloud: Running) -> None:
    lb(cloud)
    reserved(cloud)


def assigned(cloud: Running) -> None:
    both(cloud)
    answer = cloud.http.post("/v1/addresses/kept:assign", json={"load_balancer": "web"})
    assert answer.status_code == 202, answer.text


def instance(cloud: Running) -> None:
    assert cloud.http.put("/v1/instances/node", json={}).status_code == 201


NETWORK = {"ranges": ["10.244.0.0/16"]}
ROUTE = {"network": "pods", "destination": "10.244.1.0/24", "next_hop": "127.0.3.1"}


def network(cloud: Running) -> None:
    assert cloud.http.put("/v1/networks/pods", json=NETWORK).status_code == 201


def route(cloud: Running) -> None:
    network(cloud)
    assert cloud.http.put("/v1/routes/n1", json=ROUTE).status_code == 201


PAIR = brought("shop.example")


def certificate(cloud: Running) -> None:
    assert cloud.http.put("/v1/certificates/shop", json=PAIR).status_code == 201


BUDGET = {"amount": "5"}
HOOK = {"url": "http://127.0.0.1:9/news"}
SERVICES = {"services": [], "lease_s": 60}


def budget(cloud: Running) -> None:
    assert cloud.http.put("/v1/budgets/team", json=BUDGET).is_success


def webhook(cloud: Running) -> None:
    assert cloud.http.put("/v1/webhooks/chat", json=HOOK).is_success


def inventory(cloud: Running) -> None:
    assert cloud.http.put("/v1/clusters/6f1c/inventory", json=SERVICES).is_success


def project(cloud: Running) -> None:
    assert cloud.http.post("/v1/projects", json={"id": "once"}).status_code == 201


def token(cloud: Running) -> str:
    made = cloud.http.post("/v1/tokens", json={"description": "x", "scopes": ["viewer"]})
    return f"/v1/tokens/{made.json()['id']}"


def waiting(cloud: Running) -> str:
    inject(cloud, "provision", "stuck")
    cloud.put("web", document([]))
    eventually(lambda: cloud.http.get("/v1/chaos/log").json()["items"])
    params = {"filter": 'status="RUNNING"'}
    (operation,) = cloud.http.get("/v1/operations", params=params).json()["items"]
    return f"/v1/operations/{operation['id']}:cancel"


def nothing(_cloud: Running) -> None:
    """Prepare nothing."""


CASES: dict[str, tuple[Callable[[Running], str | None], str, dict[str, Any]]] = {
    "PUT /v1/load-balancers/{name}": (nothing, LB, {"json": document([])}),
    "POST /v1/load-balancers": (nothing, "/v1/load-balancers", {"json": document([])}),
    "PATCH /v1/load-balancers/{name}": (
        lb, LB, {"content": '{"labels": {"team": "z"}}', "headers": MERGE}),
    "DELETE /v1/load-balancers/{name}": (lb, LB, {}),
    "PUT /v1/load-balancers/{name}/targets": (
        lb, f"{LB}/targets",
        {"json": {"target_groups": [{"name": "web", "targets": [{"ip": "127.0.9.1", "port": 1}]}]}},
    ),
    "POST /v1/load-balancers/{name}:drain": (lb, f"{LB}:drain", {}),
    "POST /v1/load-balancers/{name}:failover": (lb, f"{LB}:failover", {}),
    "POST /v1/load-balancers/{name}:repair": (lb, f"{LB}:repair", {}),
    "POST /v1/operations/{id}:cancel": (waiting, "", {}),
    "POST /v1/addresses": (nothing, "/v1/addresses", {"json": {"name": "kept"}}),
    "DELETE /v1/addresses/{name}": (reserved, "/v1/addresses/kept", {}),
    "POST /v1/addresses/{name}:assign": (
        both,
        "/v1/addresses/kept:assign", {"json": {"load_balancer": "web"}}),
    "POST /v1/addresses/{name}:release": (assigned, "/v1/addresses/kept:release", {}),
    "POST /v1/instances": (nothing, "/v1/instances", {"json": {"name": "node"}}),
    "PUT /v1/instances/{name}": (nothing, "/v1/instances/node", {"json": {}}),
    "DELETE /v1/instances/{name}": (instance, "/v1/instances/node", {}),
    "PUT /v1/networks/{name}": (nothing, "/v1/networks/pods", {"json": NETWORK}),
    "DELETE /v1/networks/{name}": (network, "/v1/networks/pods", {}),
    "PUT /v1/routes/{name}": (network, "/v1/routes/n1", {"json": ROUTE}),
    "DELETE /v1/routes/{name}": (route, "/v1/routes/n1", {}),
    "POST /v1/certificates": (nothing, "/v1/certificates", {"json": {"name": "shop", **PAIR}}),
    "PUT /v1/certificates/{name}": (nothing, "/v1/certificates/shop", {"json": PAIR}),
    "DELETE /v1/certificates/{name}": (certificate, "/v1/certificates/shop", {}),
    "PUT /v1/budgets/{name}": (nothing, "/v1/budgets/team", {"json": BUDGET}),
    "DELETE /v1/budgets/{name}": (budget, "/v1/budgets/team", {}),
    "PUT /v1/webhooks/{name}": (nothing, "/v1/webhooks/chat", {"json": HOOK}),
    "DELETE /v1/webhooks/{name}": (webhook, "/v1/webhooks/chat", {}),
    "PUT /v1/clusters/{cluster_uid}/inventory": (
        nothing, "/v1/clusters/6f1c/inventory", {"json": SERVICES}),
    "DELETE /v1/clusters/{cluster_uid}/inventory": (
        inventory, "/v1/clusters/6f1c/inventory", {}),
    "POST /v1/billing:rerate": (
        lb, "/v1/billing:rerate", {"json": {"from": "2026-01-01T00:00:00Z"}}),
    "POST /v1/projects": (nothing, "/v1/projects", {"json": {"id": "once"}}),
    "DELETE /v1/projects/{id}": (project, "/v1/projects/once", {}),
    "POST /v1/tokens": (
        nothing, "/v1/tokens", {"json": {"description": "x", "scopes": ["viewer"]}}),
    "DELETE /v1/tokens/{id}": (token, "", {}),
    "PUT /v1/quotas/{project}/{metric}": (
        nothing, "/v1/quotas/default/instances", {"json": {"limit": 7}}),
    "PUT /v1/clock": (nothing, "/v1/clock", {"json": {"mode": "manual"}}),
    "POST /v1/clock:advance": (nothing, "/v1/clock:advance", {"json": {"by": "1h"}}),
    "POST /v1/admin:reset": (lb, "/v1/admin:reset", {}),
}  # fmt: skip


def test_every_route_that_changes_something_is_here():
    assert sorted([*CASES, *READING]) == ROUTES


def changes(cloud: Running) -> list[tuple[str, str]]:
    """Return method and path of every change that was done."""
    found: list[tuple[str, str]] = []
    token = ""
    while True:
        params = {"page_size": 1000} | ({"page_token": token} if token else {})
        page = cloud.http.get("/v1/audit", params=params).json()
        found += [(r["method"], r["path"]) for r in page["items"] if r["status"] < 300]
        token = page["next_page_token"]
        if not token:
            return found


@pytest.fixture
def clean(cloud) -> Any:
    yield cloud
    cloud.http.post("/v1/chaos:reset")
    cloud.http.put("/v1/clock", json={"mode": "real"})
    cloud.http.post("/v1/admin:reset")
    for path in ("/v1/projects/once",):
        cloud.http.delete(path)


@pytest.mark.parametrize("route", CASES)
def test_a_repetition_after_a_lost_answer_does_it_once(clean, route):
    cloud = clean
    prepare, path, how = CASES[route]
    path = prepare(cloud) or path
    method = route.split()[0]
    key = {"idempotency-key": f"lost {route}"}
    how = {**how, "headers": {**how.get("headers", {}), **key}}
    before = changes(cloud).count((method, path))
    inject(cloud, "api", "drop_after_commit", match={"methods": [method]}, max_hits=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        cloud.http.request(method, path, **how)
    again = cloud.http.request(method, path, **how)
    assert again.is_success, again.text
    assert again.headers["idempotency-replayed"] == "true"
    assert changes(cloud).count((method, path)) == before + 1
    third = cloud.http.request(method, path, **how)
    assert (third.status_code, third.content) == (again.status_code, again.content)
    cloud.http.post("/v1/chaos:reset")
    assert not cloud.http.post("/v1/admin:check").json()["violations"]
