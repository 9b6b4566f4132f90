"""UDP over the API: asked for, answered, counted, shown and gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from tests.flows.conftest import document, eventually

pytestmark = pytest.mark.haproxy


@pytest.fixture
def resolver() -> Iterator[dict[str, object]]:
    """A target that answers every datagram with itself, until an empty one comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            while True:
                words, peer = server.recvfrom(2048)
                if not words:
                    return
                server.sendto(words, peer)

        thread = Thread(target=answer)
        thread.start()
        yield {"ip": "127.0.0.1", "port": server.getsockname()[1]}
        server.sendto(b"", server.getsockname())
        thread.join(5)


def echo(ip: str, port: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((ip, port))
        client.send(b"hello")
        return client.recv(100)


def test_udp_from_put_to_delete(cloud, resolver):
    wish = document([resolver], 5353)
    wish["spec"]["listeners"][0] |= {"name": "dns", "protocol": "udp"}
    wish["spec"]["target_groups"][0]["health_check"] = {"protocol": "none"}
    found = cloud.active("dns", wish)
    ip = found["status"]["addresses"][0]["ip"]
    assert echo(ip, 5353) == b"hello"
    stats = cloud.http.get("/v1/load-balancers/dns/stats").json()
    listener = next(one for one in stats["counters"] if one["kind"] == "listener")
    assert (listener["name"], listener["connections_total"]) == ("dns", 1)
    assert (listener["bytes_in"], listener["bytes_out"]) == (5, 5)
    shown = cloud.http.get("/v1/load-balancers/dns/config").text
    assert f"bind u5353 {ip}" in shown
    assert cloud.http.delete("/v1/load-balancers/dns").status_code == 202
    eventually(lambda: cloud.http.get("/v1/load-balancers/dns").status_code == 404)
    with pytest.raises(ConnectionRefusedError):
        echo(ip, 5353)


@pytest.mark.parametrize(
    ("listener", "group", "pointer"),
    [
        ({"accept_proxy_protocol": True}, {}, "/spec/listeners/0/accept_proxy_protocol"),
        ({}, {"send_proxy_protocol": "v2"}, "/spec/target_groups/0/send_proxy_protocol"),
    ],
    ids=["accepted", "sent"],
)
def test_proxy_protocol_has_no_meaning_over_udp(cloud, resolver, listener, group, pointer):
    wish = document([resolver], 5353)
    wish["spec"]["listeners"][0] |= {"protocol": "udp", **listener}
    wish["spec"]["target_groups"][0] |= group
    answer = cloud.put("dns", wish)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
