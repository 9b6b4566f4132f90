"""A hard budget that is used up: traffic stops, address and bill stay; raised, it goes on."""

from __future__ import annotations

import socket

import pytest

from tests.flows.conftest import document, eventually

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(120)]


def answers(ip: str) -> bool:
    try:
        with socket.create_connection((ip, 8080), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(connection.recv(100))
    except OSError:
        return False


def test_traffic_stops_and_goes_on(new_cloud, targets):
    cloud = new_cloud()
    assert cloud.http.put("/v1/clock", json={"mode": "manual"}).status_code == 200
    ip = cloud.active("web", document(targets, 8080))["status"]["addresses"][0]["ip"]
    eventually(lambda: answers(ip), 20)
    where = cloud.http.post("/v1/clock:advance", json={"by": "2h"}).headers["operation-location"]
    assert cloud.http.get(where, params={"wait": "20s"}).json()["status"] == "SUCCEEDED"
    wish = {"amount": "0.01", "kind": "hard"}
    assert cloud.http.put("/v1/budgets/all", json=wish).status_code == 201
    eventually(lambda: not answers(ip), 20)
    stopped = cloud.http.get("/v1/load-balancers/web").json()["status"]
    assert stopped["addresses"][0]["ip"] == ip
    refused = cloud.http.put("/v1/load-balancers/more", json=document(targets, 8081))
    assert (refused.status_code, refused.json()["code"]) == (402, "project_suspended")
    assert cloud.http.put("/v1/budgets/all", json=wish | {"amount": "100"}).status_code == 200
    eventually(lambda: answers(ip), 20)
