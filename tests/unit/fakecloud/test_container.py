"""The container's first process, run for real below this test as a subreaper."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fakecloud import clock, container

# A server that leaves a long-lived process of its own session behind, as it does with HAProxy.
SERVER = """
echo $$ >> {0}/servers
[ -e {0}/balancer ] || {{ setsid sleep 600 & echo $! > {0}/new; mv {0}/new {0}/balancer; }}
exec sleep 600
"""


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    timer = clock.SystemClock()
    deadline, never = timer.monotonic() + seconds, threading.Event()
    while not condition():
        assert timer.monotonic() < deadline, "condition not met in time"
        timer.wait(never, 0.01)


class Run:
    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "fakecloud.container", "sh", "-c", script.format(folder)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def servers(self) -> list[int]:
        file = self.folder / "servers"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def balancer(self) -> int:
        eventually((self.folder / "balancer").exists)
        return int((self.folder / "balancer").read_text())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=15)


@pytest.fixture
def run(tmp_path) -> Iterator[Callable[[str], Run]]:
    started: list[Run] = []

    def start(script: str = SERVER) -> Run:
        started.append(Run(tmp_path, script))
        return started[-1]

    yield start
    for each in started:
        each.close()


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_killed_server_is_restarted_and_what_it_started_lives_on(run):
    supervised = run()
    balancer = supervised.balancer()
    os.kill(supervised.servers()[0], signal.SIGKILL)
    eventually(lambda: len(supervised.servers()) == 2)
    assert alive(balancer)
    assert not alive(supervised.servers()[0])


def test_stop_ends_the_server_and_what_it_started(run):
    supervised = run()
    balancer = supervised.balancer()
    eventually(lambda: supervised.servers() and alive(supervised.servers()[0]))
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.process.wait(timeout=10) == 0
    assert not alive(balancer)
    assert not alive(supervised.servers()[0])


def test_orphan_that_ends_is_reaped(run):
    supervised = run()
    balancer = supervised.balancer()
    os.kill(supervised.servers()[0], signal.SIGKILL)  # now the balancer is an orphan
    eventually(lambda: len(supervised.servers()) == 2)
    os.kill(balancer, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{balancer}").exists())


def test_restarts_become_rarer(run, tmp_path):
    supervised = run("echo x >> {0}/starts; exit 1")
    lines = [supervised.process.stderr.readline() for _ in range(4)]
    assert [line.rsplit("restart in ")[1].strip() for line in lines] == [
        "0.1 s",
        "0.2 s",
        "0.4 s",
        "0.8 s",
    ]


def test_wrong_configuration_is_not_retried(run):
    supervised = run("exit 2")
    assert supervised.process.wait(timeout=10) == 2


def test_wrong_configuration_is_retried_while_load_balancers_serve(run):
    supervised = run("""
        echo $$ >> {0}/servers
        [ -e {0}/balancer ] || {{ setsid sleep 600 & echo $! > {0}/new; mv {0}/new {0}/balancer; }}
        exit 2""")
    balancer = supervised.balancer()
    eventually(lambda: len(supervised.servers()) == 2)
    assert alive(balancer)


@pytest.fixture
def unblocked_signals() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("unblocked_signals")
def test_missing_command_is_named(capfd):
    assert container.Init(["no-such-command"], clock.SystemClock()).run() == 2
    assert "no-such-command: No such file" in capfd.readouterr().err


class Readiness(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def health_of(server: HTTPServer, monkeypatch) -> int:
    with server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("FAKECLOUD_LISTEN", f"0.0.0.0:{server.server_port}")
        code = container.main(["--health"])
        thread.join()
    return code


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_is_the_servers_own_readiness(monkeypatch, status, code):
    monkeypatch.setattr(Readiness, "status", status)
    assert health_of(HTTPServer(("127.0.0.1", 0), Readiness), monkeypatch) == code


def test_health_over_tls_asks_with_any_certificate(monkeypatch, tmp_path):
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = HTTPServer(("127.0.0.1", 0), Readiness)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("FAKECLOUD_TLS_CERT", str(certificate))
    assert health_of(server, monkeypatch) == 0


def self_signed(folder: Path) -> Path:
    """Return a file with a key and a certificate of a name that nobody asks for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cloud.example")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    file = folder / "both.pem"
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(pem)
    )
    return file


def test_server_that_does_not_answer_is_not_healthy(monkeypatch):
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    monkeypatch.setenv("FAKECLOUD_LISTEN", f"0.0.0.0:{port}")
    assert container.main(["--health"]) == 1
