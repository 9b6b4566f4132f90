"""Services with UDP ports, alone and beside TCP on the same number."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.cluster import embedded
from tests.flows.kube.services import PORT, Shop, answer, ask_udp, ingress, port

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]


def ask(ip: str, number: int = PORT) -> dict[str, Any]:
    """Return which pod answers a client that was never there before."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect((ip, number))
        client.send(b"question")
        line, _, echo = client.recv(2048).partition(b"\n")
    assert echo == b"question"
    said: dict[str, Any] = json.loads(line)
    return said


def test_tcp_and_udp_of_a_service_answer_on_the_same_port(shop: Shop) -> None:
    shop.create(ports=[port(PORT), port(PORT, "dns", protocol="UDP")])
    ip = shop.ip()
    assert embedded.eventually(lambda: ask(ip))["service"] == f"{shop.namespace}/web"
    assert answer(ip)["service"] == f"{shop.namespace}/web"
    assert ingress(shop.get())[0]["ports"] == [
        {"port": PORT, "protocol": "TCP"},
        {"port": PORT, "protocol": "UDP"},
    ]


def test_udp_service_follows_its_ports_and_goes(shop: Shop) -> None:
    """As the upstream test "should be able to change the type and ports of a UDP service"."""
    shop.create(ports=[port(PORT, "dns", protocol="UDP")])
    ip = shop.ip()
    assert embedded.eventually(lambda: ask(ip))["pod"] in ("one", "two")
    shop.change(ports=[port(PORT + 1, "dns", protocol="UDP")])
    embedded.eventually(lambda: ask(ip, PORT + 1))
    assert shop.ip() == ip
    with pytest.raises(ConnectionRefusedError):
        ask(ip)
    shop.change(type="ClusterIP")
    embedded.eventually(lambda: not ingress(shop.get()))
    embedded.eventually(lambda: _refused(ip, PORT + 1))


@pytest.mark.parametrize("nodes", [("standin-1", "standin-2"), ("standin-1", "standin-1")])
def test_t_10_t_11_traffic_of_one_client_follows_the_pod(
    shop: Shop, nodes: tuple[str, str]
) -> None:
    """Always from the same port, from before there was any pod: no flow sticks to who is gone."""
    for name in ("one", "two"):
        shop.remove_pod(name)
    shop.create(ports=[port(PORT, "dns", protocol="UDP")])
    ip = shop.ip()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_free:
        any_free.bind(("", 0))
        own_port: int = any_free.getsockname()[1]

    def seen() -> str:
        said = ask_udp(ip, PORT, own_port)
        return said["pod"] if said else ""

    assert seen() == ""
    shop.pod("backend1", nodes[0])
    embedded.eventually(seen, lambda it: it == "backend1", timeout_s=40)
    shop.pod("backend2", nodes[1])
    shop.remove_pod("backend1")
    embedded.eventually(seen, lambda it: it == "backend2", timeout_s=40)


def _refused(ip: str, number: int) -> bool:
    try:
        ask(ip, number)
    except ConnectionRefusedError:
        return True
    return False
