"""Services with UDP ports, alone and beside TCP on the same number."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.cluster import embedded
from tests.flows.kube.services import PORT, Shop, answer, ingress, port

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


def _refused(ip: str, number: int) -> bool:
    try:
        ask(ip, number)
    except ConnectionRefusedError:
        return True
    return False
