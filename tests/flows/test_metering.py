"""Traffic of a known size through real HAProxy, to the byte in the store, whatever happens."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import socket
from decimal import Decimal
from pathlib import Path
from threading import Thread

import pytest

from fakecloud.haproxy import state
from fakecloud.store import traffic
from fakecloud.store.database import Database
from tests.flows.conftest import Running, document, eventually
from tests.flows.test_commands import run  # noqa: F401 - a fixture

pytestmark = pytest.mark.haproxy


@pytest.fixture
def echo(network):
    """A target that sends back what it gets."""
    server = socket.create_server((f"{network}.0.3", 0), backlog=64)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    Thread(target=accept, daemon=True).start()
    ip, port = server.getsockname()
    yield {"ip": ip, "port": port}
    server.shutdown(socket.SHUT_RDWR)
    server.close()


class Client:
    """A connection through a load balancer."""

    def __init__(self, ip: str) -> None:
        self.socket = socket.create_connection((ip, 8080), timeout=5)

    def talk(self, size: int) -> int:
        """Send `size` bytes, read them back and return the size."""
        self.socket.sendall(b"x" * size)
        left = size
        while left:
            left -= len(self.socket.recv(left) or pytest.fail("cut"))
        return size

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def listener(cloud: Running) -> dict[str, int]:
    (one,) = (c for c in cloud.http.get("/v1/load-balancers/web/stats").json()["counters"]
              if c["kind"] == "listener")  # fmt: skip
    return one


def kill(cloud: Running, lb_id: str) -> None:
    record = state.load(cloud.directory / "lb" / lb_id)
    pid = next(p.pid for p in record.processes if p.number == record.active)
    os.kill(pid, signal.SIGKILL)
    before = (None, record.active)
    eventually(lambda: state.load(cloud.directory / "lb" / lb_id).active not in before)


def test_every_byte_is_in_the_store(new_cloud, echo):
    """Swaps with connections that outlive them, a crash, a restart of the server, a deletion."""
    cloud, carried = new_cloud(), 0
    made = cloud.active("web", document([echo]))
    ip, lb_id = made["status"]["addresses"][0]["ip"], made["status"]["id"]
    with Client(ip) as first:
        carried += first.talk(100_000)
        for idle in (100, 200):  # each takes another process
            wish = document([echo])
            wish["spec"]["listeners"][0]["idle_timeout_s"] = idle
            cloud.active("web", wish)
            carried += first.talk(1_000)
            with Client(ip) as more:
                carried += more.talk(10_000)
    eventually(lambda: listener(cloud)["bytes_in"] == carried)
    kill(cloud, lb_id)
    with Client(ip) as second:
        carried += second.talk(5_000)
        cloud.stop()
        carried += second.talk(70_000)
        cloud.start()
        carried += second.talk(300)
    eventually(lambda: listener(cloud)["bytes_in"] == carried)
    seen = listener(cloud)
    assert (seen["bytes_out"], seen["gaps"]) == (carried, 1)
    with Client(ip) as last:
        carried += last.talk(12_345)
        cloud.remove("web")
    cloud.stop()  # stores what is left
    assert stored(cloud.directory, lb_id) == (carried, carried)
    assert not list((cloud.directory / "meters").rglob("*.json"))
    cloud.start()


def test_traffic_is_on_the_bill_to_the_byte(new_cloud, echo):
    """A line's unit is a millionth of a GB, so 3,141,000 bytes each way are exact."""
    cloud = new_cloud()
    made = cloud.active("web", document([echo]))
    with Client(made["status"]["addresses"][0]["ip"]) as client:
        for size in (3_000_000, 141_000):
            client.talk(size)
    cloud.stop()  # stores what is left
    cloud.start()
    rows = list(
        csv.DictReader(
            cloud.http.get("/v1/billing/export", params={"format": "focus"}).text.splitlines()
        )
    )
    egress = [row for row in rows if row["SkuId"].startswith("egress")]
    assert {row["ResourceId"] for row in egress} == {made["status"]["id"]}
    assert sum(Decimal(row["PricingQuantity"]) for row in egress) == Decimal("0.003141")
    assert {row["PricingUnit"] for row in egress} == {"GB"}
    found = cloud.http.get("/v1/cost-report", params={"group_by": "sku"}).json()
    amounts = {group["key"]["sku"]: Decimal(group["amount"]) for group in found["groups"]}
    for sku in {row["SkuId"] for row in egress}:
        assert amounts[sku] == sum(
            Decimal(row["BilledCost"]) for row in rows if row["SkuId"] == sku
        )


def stored(directory: Path, lb_id: str) -> tuple[int, int]:
    database = Database(f"sqlite:///{directory}/fakecloud.db")
    try:
        with database.read() as connection:
            parts = [part for _, part in traffic.hours(connection, lb_id)]
    finally:
        database.close()
    return sum(part.bytes_in for part in parts), sum(part.bytes_out for part in parts)


def test_stats_are_shown_for_people_and_programs(run, cloud, targets, echo):  # noqa: F811
    made = cloud.active("web", document([echo]))
    with Client(made["status"]["addresses"][0]["ip"]) as client:
        client.talk(3072)
    eventually(lambda: listener(cloud)["bytes_in"] == 3072)
    lines = run("lb", "stats", "web").stdout.splitlines()
    assert lines[0].split()[:3] == ["KIND", "NAME", "HEALTH"]
    assert "3.0 KiB" in lines[1]
    target = next(line for line in lines if line.startswith("target "))
    assert "100.0%" in target
    csv = run("lb", "stats", "web", "-o", "csv").stdout
    assert "listener,web,,0,1,3072,3072,0,0,,,," in csv
    assert '"bytes_in": 3072' in run("lb", "stats", "web", "-o", "json").stdout


def test_metrics_tell_of_each_load_balancer(new_cloud, echo):
    cloud = new_cloud()
    cloud.active("web", document([echo]))
    cloud.stop()
    cloud.start()  # its meters are read at once
    text = eventually(lambda: _metrics(cloud))
    assert 'listener="web",load_balancer="web",project="default"} 0.0' in text
    assert "fakecloud_metrics_load_balancers_omitted 0.0" in text


def _metrics(cloud: Running) -> str:
    text = cloud.http.get("/metrics").text
    return text if "fakecloud_load_balancer_connections_total{" in text else ""
