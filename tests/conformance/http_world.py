"""Targets that tell what they were asked, certificates, and clients of HTTP mode."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import json
import socket
import ssl
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fakecloud import model
from tests.conformance.dataplane_world import IP, PORT, TARGET_IP


class _Told(http.server.BaseHTTPRequestHandler):
    """Answers every request with what it was, and takes part in a WebSocket's handshake."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("upgrade") == "websocket":
            self.send_response(101)
            self.send_header("upgrade", "websocket")
            self.send_header("connection", "upgrade")
            key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            proof = b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest())
            self.send_header("sec-websocket-accept", proof.decode())
            self.end_headers()
            while data := self.connection.recv(64):
                self.connection.sendall(data)
            self.close_connection = True
            return
        told = {
            "target": str(self.server.server_address[1]),
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class HttpTargets:
    """`count` HTTP servers; `targets` are their addresses, `names` their ports as text."""

    def __init__(self, count: int) -> None:
        self._servers = [
            http.server.ThreadingHTTPServer((TARGET_IP, 0), _Told) for _ in range(count)
        ]
        for server in self._servers:
            server.daemon_threads = True
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        ports = [server.server_address[1] for server in self._servers]
        self.targets = tuple(model.Target(ip=TARGET_IP, port=port) for port in ports)
        self.names = [str(port) for port in ports]

    def close(self) -> None:
        """End every server."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


@cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def certificate(name: str, *hosts: str, serial: int = 1) -> model.CertificateChain:
    """Return a self-signed certificate for `hosts` under the customer's `name`."""
    when = datetime(2020, 1, 1, tzinfo=UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
    made = (
        x509.CertificateBuilder(subject, subject, _key().public_key(), serial)
        .not_valid_before(when)
        .not_valid_after(when + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in hosts]), False)
        .sign(_key(), hashes.SHA256())
    )
    private = _key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + private
    return model.CertificateChain(
        name=name,
        pem=pem.decode(),
        fingerprint=made.fingerprint(hashes.SHA1()).hex().upper(),
    )


def serial_seen(host: str, port: int = PORT) -> tuple[str, int]:
    """Return common name and serial number of the certificate that a client of `host` gets."""
    with _connected(host, port) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    seen = x509.load_der_x509_certificate(der)
    name = seen.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    return str(name), seen.serial_number


def tls_version(most: ssl.TLSVersion, port: int = PORT) -> str | None:
    """Return the version that a client which speaks `most` at best gets."""
    with _connected("any.example", port, most=most) as tls:
        return tls.version()


def protocol_chosen(*offered: str, port: int = PORT) -> str | None:
    """Return what ALPN chooses among `offered`."""
    with _connected("any.example", port, alpn=offered) as tls:
        return tls.selected_alpn_protocol()


def trusting(most: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Return a client's context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if most is not None:
        context.maximum_version = most
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _connected(
    host: str, port: int, most: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()
) -> ssl.SSLSocket:
    raw = socket.create_connection((IP, port), timeout=5)
    try:
        return trusting(most, alpn).wrap_socket(raw, server_hostname=host)
    except OSError:
        raw.close()
        raise


class Answer:
    """What a request met: `status`, `headers`, and `told` by the target."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        body = response.read()
        self.told = json.loads(body) if body else {}

    @property
    def target(self) -> str:
        """Return the name of the target that answered."""
        return str(self.told.get("target"))


def get(
    path: str = "/",
    host: str = "web.example",
    port: int = PORT,
    *,
    tls: bool = False,
    **headers: str,
) -> Answer:
    """Ask through the load balancer on a connection of its own."""
    if tls:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            IP, port, timeout=5, context=trusting()
        )
    else:
        connection = http.client.HTTPConnection(IP, port, timeout=5)
    try:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"Host": host, **said})
        return Answer(connection.getresponse())
    finally:
        connection.close()
