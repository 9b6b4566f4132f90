"""The echo behind a nodePort speaks enough HTTP and PROXY protocol for clients and benches."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator

import pytest

from tests.cluster import echo, processes, proxying

ONE = proxying.Endpoint("10.64.1.2", "standin-1", "one")
TWO = proxying.Endpoint("10.64.2.2", "standin-2", "two")
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def backend() -> echo.Backend:
    return echo.Backend("shop/web", "http", "standin-1", (ONE,))


@pytest.fixture
async def listener(backend: echo.Backend) -> AsyncIterator[tuple[echo.TcpListener, int]]:
    [port] = processes.free_ports(1)
    listening = await echo.listen_tcp(
        "127.0.0.1", port, functools.partial(echo.EchoConnection, backend)
    )
    yield listening, port
    listening.close()
    await asyncio.sleep(0)


@pytest.fixture
async def client(listener: tuple[echo.TcpListener, int]) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener[1])
    yield reader, writer
    writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.partition("Content-Length: ")[2].partition("\r\n")[0])
    return head, json.loads(await reader.readexactly(length))


async def test_one_connection_keeps_its_endpoint_and_stays_open(
    client: Streams, backend: echo.Backend
) -> None:
    """Also for requests that arrive together, or in pieces."""
    backend.change((ONE, TWO), sticky=False)
    reader, writer = client
    writer.write(REQUEST + REQUEST + REQUEST[:10])
    answers = [await read_answer(reader) for _ in range(2)]
    writer.write(REQUEST[10:])
    answers.append(await read_answer(reader))
    assert {"one"} == {body["pod"] for _, body in answers}
    assert all("Connection: close" not in head for head, _ in answers)


async def test_body_of_a_request_is_read_and_left(client: Streams) -> None:
    reader, writer = client
    writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nGET /" + REQUEST)
    for _ in range(2):
        assert (await read_answer(reader))[1]["pod"] == "one"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: web\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_last_request_ends_the_connection(client: Streams, request_: bytes) -> None:
    reader, writer = client
    writer.write(request_)
    head, _ = await read_answer(reader)
    assert "Connection: close" in head
    assert await reader.read() == b""


async def test_head_gets_no_body(client: Streams) -> None:
    reader, writer = client
    writer.write(b"HEAD / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"\r\n\r\n")


async def test_removed_endpoint_answers_once_more_then_closes(
    client: Streams, backend: echo.Backend
) -> None:
    reader, writer = client
    writer.write(REQUEST)
    await read_answer(reader)
    backend.change((TWO,), sticky=False)
    writer.write(REQUEST)
    head, body = await read_answer(reader)
    assert "Connection: close" in head
    assert body["pod"] == "one"


async def test_idle_connection_to_a_removed_endpoint_is_closed(
    client: Streams, listener: tuple[echo.TcpListener, int], backend: echo.Backend
) -> None:
    reader, writer = client
    writer.write(REQUEST)
    await read_answer(reader)
    backend.change((TWO,), sticky=False)
    listener[0].refresh()
    assert await reader.read() == b""


async def test_proxy_protocol_tells_the_client(client: Streams) -> None:
    reader, writer = client
    writer.write(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n" + REQUEST)
    _, body = await read_answer(reader)
    assert (body["client"], body["proxy_protocol"]) == ("203.0.113.7:4711", "v1")


V2 = b"\r\n\r\n\x00\r\nQUIT\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"GET /", ("", "", b"GET /"), id="none"),
        pytest.param(b"PRO", None, id="v1-begins"),
        pytest.param(b"PROXY TCP4 1.2.3.4", None, id="v1-incomplete"),
        pytest.param(b"PROXY UNKNOWN\r\nx", ("v1", "", b"x"), id="v1-unknown"),
        pytest.param(b"PROXY " + b"x" * 200, ("", "", b"PROXY " + b"x" * 200), id="v1-endless"),
        pytest.param(V2[:5], None, id="v2-begins"),
        pytest.param(V2 + b"\x21\x11\x00\x0c" + bytes(11), None, id="v2-incomplete"),
        pytest.param(V2 + b"\x20\x00\x00\x00x", ("v2", "", b"x"), id="v2-local"),
        pytest.param(
            V2 + b"\x21\x11\x00\x0c" + bytes([1, 2, 3, 4, 127, 0, 0, 1, 0x12, 0x67, 0, 80]) + b"x",
            ("v2", "1.2.3.4:4711", b"x"),
            id="v2-tcp4",
        ),
    ],
)
def test_proxy_header_is_split_off(data: bytes, expected: tuple[str, str, bytes] | None) -> None:
    assert echo.proxy_header(data) == expected


def test_connections_take_turns_unless_sticky(backend: echo.Backend) -> None:
    backend.change((ONE, TWO), sticky=False)
    assert {ONE, TWO} == {backend.pick("127.0.0.1") for _ in range(2)}
    backend.change((ONE, TWO), sticky=True)
    assert len({backend.pick("127.0.0.1") for _ in range(4)}) == 1


def test_terminating_endpoint_serves_only_where_none_is_ready() -> None:
    """Traffic as of KEP-1669; the health check counts Ready endpoints alone."""
    conditions = {"ready": False, "serving": True, "terminating": True}
    slice_ = {
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.64.1.2"], "nodeName": "standin-1", "conditions": conditions},
            {"addresses": ["10.64.2.2"], "nodeName": "standin-2", "conditions": {"ready": True}},
        ],
    }
    spec = {
        "healthCheckNodePort": 30001,
        "ports": [{"name": "http", "port": 80, "nodePort": 30000}],
    }
    metadata = {"namespace": "shop", "name": "web"}
    local, everywhere = (
        proxying.proxied(
            {"metadata": metadata, "spec": {**spec, "externalTrafficPolicy": policy}}, [slice_]
        )
        for policy in ("Local", "Cluster")
    )

    assert [each.address for each in local.endpoints_on(local.ports[0], "standin-1")] == [
        "10.64.1.2"
    ]
    assert (local.ready_on("standin-1"), local.ready_on("standin-2")) == (0, 1)
    assert [each.address for each in everywhere.endpoints_on(everywhere.ports[0], "standin-1")] == [
        "10.64.2.2"
    ]
