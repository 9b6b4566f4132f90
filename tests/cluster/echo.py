"""The servers on a stand-in's ports: an HTTP and UDP echo that says who answered, health answers.

They serve under load, so requests are split by hand, and one connection gives the same prepared
bytes to each of its requests: as behind kube-proxy, a connection has one endpoint all its life.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

from tests.cluster import proxying

_BACKLOG = 1024
_LARGEST_HEAD = 64 << 10
_V1_START = b"PROXY "
_V1_LONGEST = 107
_V2_START = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = 16


class Backend:
    """Who answers behind one port of one node; its endpoints change while it listens."""

    def __init__(
        self, service: str, port: str, node: str, endpoints: tuple[proxying.Endpoint, ...]
    ) -> None:
        self.endpoints = endpoints
        self._service = service
        self._port = port
        self._node = node
        self._sticky = False
        self._turn = zlib.crc32(node.encode())  # nodes begin with different endpoints

    def change(self, endpoints: tuple[proxying.Endpoint, ...], *, sticky: bool) -> None:
        """Answer for `endpoints` from now on; `sticky`: one client address, one endpoint."""
        self.endpoints = endpoints
        self._sticky = sticky

    def pick(self, client: str) -> proxying.Endpoint | None:
        """Return the endpoint of a new connection from `client`: in turn, or by its address."""
        if not self.endpoints:
            return None
        self._turn += 1
        turn = zlib.crc32(client.encode()) if self._sticky else self._turn
        return self.endpoints[turn % len(self.endpoints)]

    def line(self, endpoint: proxying.Endpoint, client: str, proxy_protocol: str = "") -> bytes:
        """Return an answer's body: one line of JSON."""
        facts = {
            "answered_by": "stand-in",
            "service": self._service,
            "port": self._port,
            "node": self._node,
            "pod": endpoint.pod,
            "client": client,
        }
        if proxy_protocol:
            facts["proxy_protocol"] = proxy_protocol
        return json.dumps(facts).encode() + b"\n"


class _HttpConnection(asyncio.Protocol):
    """Splits the bytes of one connection into requests; a subclass has the answers."""

    def __init__(self, connections: set[_HttpConnection]) -> None:
        self._connections = connections
        self._buffer = b""
        self._body_left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        answers = []
        while buffer and not self.transport.is_closing():
            if self._body_left:
                taken = min(self._body_left, len(buffer))
                self._body_left -= taken
                buffer = buffer[taken:]
                continue
            head, found, rest = buffer.partition(b"\r\n\r\n")
            if not found:
                break
            buffer = rest
            answer, last = self._answer_head(head)
            answers.append(answer)
            if last:
                self.transport.write(b"".join(answers))
                self.transport.close()
                return
        self._buffer = buffer
        if answers:
            self.transport.write(b"".join(answers))
        if len(buffer) > _LARGEST_HEAD:
            self.transport.abort()

    def _answer_head(self, head: bytes) -> tuple[bytes, bool]:
        """Return the answer to the request with `head`, and if it is the connection's last."""
        method, _, rest = head.partition(b" ")
        path, _, rest = rest.partition(b" ")
        last = False
        if method not in (b"GET", b"HEAD") or b"onnection:" in rest or rest.startswith(b"HTTP/1.0"):
            last = self._read_headers(rest)
        answer, closes = self.answer(path, last=last)
        if method == b"HEAD":
            answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        return answer, last or closes

    def _read_headers(self, text: bytes) -> bool:
        """Note the body's length; return True if the client wants no further answer here."""
        first, *lines = text.lower().split(b"\r\n")
        headers = {
            name: value.strip() for name, _, value in (each.partition(b":") for each in lines)
        }
        length = headers.get(b"content-length", b"0")
        self._body_left = int(length) if length.isdigit() else 0
        connection = headers.get(b"connection", b"")
        if b"transfer-encoding" in headers or b"close" in connection:
            return True
        return first.startswith(b"http/1.0") and b"keep-alive" not in connection

    def answer(self, path: bytes, *, last: bool) -> tuple[bytes, bool]:
        """Return the whole answer, and True if the connection must end with it."""
        raise NotImplementedError


class EchoConnection(_HttpConnection):
    """One client's connection to one endpoint of a Backend; understands the PROXY protocol."""

    def __init__(self, backend: Backend, connections: set[_HttpConnection]) -> None:
        super().__init__(connections)
        self._backend = backend
        self._started = False
        self._endpoint: proxying.Endpoint | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._client = _text(transport.get_extra_info("peername"))
        self._endpoint = self._backend.pick(self._client.rpartition(":")[0])
        if self._endpoint is None:
            self.transport.abort()
            return
        self._prepare("")

    def data_received(self, data: bytes) -> None:
        if not self._started:
            data = self._buffer + data
            self._buffer = b""
            header = proxy_header(data)
            if header is None:
                self._buffer = data
                return
            self._started = True
            version, client, data = header
            if version:
                self._client = client or self._client
                self._prepare(version)
            if not data:
                return
        super().data_received(data)

    def answer(self, path: bytes, *, last: bool) -> tuple[bytes, bool]:
        if last or self._endpoint not in self._backend.endpoints:
            return self._last_answer, True
        return self._answer, False

    @property
    def stranded(self) -> bool:
        """True if its endpoint is gone and no request is half received."""
        return self._endpoint not in self._backend.endpoints and not self._buffer

    def _prepare(self, proxy_protocol: str) -> None:
        assert self._endpoint is not None
        body = self._backend.line(self._endpoint, self._client, proxy_protocol)
        self._answer = http_answer(HTTPStatus.OK, body)
        self._last_answer = http_answer(HTTPStatus.OK, body, last=True)


class HealthConnection(_HttpConnection):
    """Answers each request by asking `health` for (status, headers, body) of its path."""

    def __init__(
        self,
        health: Callable[[str], tuple[HTTPStatus, dict[str, str], bytes]],
        connections: set[_HttpConnection],
    ) -> None:
        super().__init__(connections)
        self._health = health

    def answer(self, path: bytes, *, last: bool) -> tuple[bytes, bool]:
        status, headers, body = self._health(path.partition(b"?")[0].decode("latin-1"))
        return http_answer(status, body, headers, last=last), last


class UdpEcho(asyncio.DatagramProtocol):
    """Answers each datagram with the JSON line of a Backend and the datagram itself."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        endpoint = self._backend.pick(addr[0])
        if endpoint is not None:
            self._transport.sendto(self._backend.line(endpoint, _text(addr)) + data, addr)


class TcpListener:
    """A listening socket and its open connections."""

    def __init__(self, server: asyncio.Server, connections: set[_HttpConnection]) -> None:
        self._server = server
        self._connections = connections

    def refresh(self) -> None:
        """End the idle connections whose endpoint is gone, as a pod's end would."""
        for each in tuple(self._connections):
            if isinstance(each, EchoConnection) and each.stranded:
                each.transport.close()

    def close(self) -> None:
        """Stop to listen and cut every connection."""
        self._server.close()
        for each in tuple(self._connections):
            each.transport.abort()


class UdpListener:
    """A bound UDP socket."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def refresh(self) -> None:
        """Nothing to end: there are no connections."""

    def close(self) -> None:
        """Close the socket."""
        self._transport.abort()


Listener = TcpListener | UdpListener


async def listen_tcp(
    address: str, port: int, connection: Callable[[set[_HttpConnection]], _HttpConnection]
) -> TcpListener:
    """Listen on `address`:`port`; `connection` makes the protocol of each accepted client.

    Raises: OSError if the port is taken.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        connections: set[_HttpConnection] = set()
        server = await asyncio.get_running_loop().create_server(
            lambda: connection(connections), sock=bound, backlog=_BACKLOG
        )
    except OSError:
        bound.close()
        raise
    return TcpListener(server, connections)


async def listen_udp(address: str, port: int, backend: Backend) -> UdpListener:
    """Answer datagrams to `address`:`port`. Raises: OSError if the port is taken."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: UdpEcho(backend), local_addr=(address, port)
    )
    return UdpListener(transport)


def http_answer(
    status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None, *, last: bool = False
) -> bytes:
    """Return a whole HTTP/1.1 answer with a JSON body."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    if last:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def proxy_header(data: bytes) -> tuple[str, str, bytes] | None:
    """Split a PROXY protocol header off `data`: (version, client "ip:port", the rest).

    Version and client are "" without header, the client also where the header names none (LOCAL,
    UNKNOWN). None: more bytes are needed to tell.
    Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
    """
    if data.startswith(_V2_START):
        return _proxy_v2(data)
    if data.startswith(_V1_START):
        line, found, rest = data.partition(b"\r\n")
        if not found:
            return None if len(data) <= _V1_LONGEST else ("", "", data)
        words = line.decode("latin-1").split(" ")
        return "v1", f"{words[2]}:{words[4]}" if len(words) == 6 else "", rest
    if _V2_START.startswith(data) or _V1_START.startswith(data):
        return None
    return "", "", data


def _proxy_v2(data: bytes) -> tuple[str, str, bytes] | None:
    if len(data) < _V2_HEAD:
        return None
    length = int.from_bytes(data[14:16], "big")
    if len(data) < _V2_HEAD + length:
        return None
    fields, rest = data[_V2_HEAD : _V2_HEAD + length], data[_V2_HEAD + length :]
    size = {1: 4, 2: 16}.get(data[13] >> 4, 0)
    if data[12] & 0xF == 0 or not size:
        return "v2", "", rest
    ip = ipaddress.ip_address(fields[:size])
    port = int.from_bytes(fields[2 * size : 2 * size + 2], "big")
    return "v2", f"{ip}:{port}", rest


def _text(address: tuple[str, int] | None) -> str:
    if address is None:
        return ""  # the peer left before it could be asked for
    return f"{address[0]}:{address[1]}"
