"""One container per load balancer: the door to a container engine, by its HTTP API.

A container is an empty place, with an address of its own on a given network and nothing but a
program that sleeps; every HAProxy is started inside it. So updates swap processes as they do on
the host, no connection is lost, and no port but the load balancer's is open. The directory of
the load balancer is mounted at its own path: engine and server share one machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from threading import Event
from typing import Any, Final

import httpx2

from fakecloud.clock import Clock
from fakecloud.errors import AddressElsewhere, Permanent, StartError, Transient
from fakecloud.haproxy.launcher import EndedAtOnce, runtime_name
from fakecloud.supervision import processes

SOCKET: Final = Path("/var/run/docker.sock")
LABEL: Final = "fakecloud.dev/load-balancer"
STATE_LABEL: Final = "fakecloud.dev/state"
TIMEOUT_S: Final = 30.0
START_S: Final = 5.0
_PATH: Final = "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# What HAProxy says goes to its log, wherever the engine would have put it.
_SHELL: Final = ("/bin/sh", "-c", 'log="$1"; shift; exec "$@" >>"$log" 2>&1', "sh")


class Engine:
    """Requests to a container engine. Thread-safe. Raises: Transient, Permanent."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request else
        self._http = httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(socket)),
            base_url="http://engine",
            timeout=TIMEOUT_S,
        )

    def ask(self, method: str, path: str, *, absent_ok: bool = False, **more: Any) -> Any:
        """Return the answer's document; None for an empty one, or for 404 if that is in order."""
        try:
            answer = self._http.request(method, path, **more)
        except httpx2.HTTPError as error:
            raise Transient(
                "engine_unavailable",
                f"the container engine does not answer on {self._socket}: {error}",
            ) from error
        if answer.is_success or answer.status_code == 304:
            return answer.json() if answer.content else None
        if answer.status_code == 404 and absent_ok:
            return None
        raise Transient("engine_refused", _message(answer))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class Containers:
    """Starts HAProxy in one container per load balancer; see `haproxy.launcher.Launcher`."""

    own_network = True

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        *,
        networks: Collection[tuple[IPv4Network | IPv6Network, str]],
        image: str,
        state: Path,
        runtime: Path,
        user: tuple[int, int] | None,
    ) -> None:
        """Use containers of `image`, for load balancers whose files are in `state`.

        networks: which addresses are on which of the engine's networks. runtime: their sockets.
        user: whom HAProxy becomes when this server is root; None: it runs as this server's user.
        Raises: StartError without the engine, a network or the image.
        """
        self._engine = engine
        self._clock = clock
        self._networks = list(networks)
        self._image = image
        self._state = state
        self._runtime = runtime
        self._user = user
        try:
            engine.ask("GET", f"/images/{image}/json")
            for _, name in self._networks:
                engine.ask("GET", f"/networks/{name}")
        except Transient as error:
            raise StartError(f"a docker pool can't be used: {error.message}") from error

    def identity(self) -> str:
        """Return nothing: a container keeps the program of its image."""
        return ""

    def missing(self) -> str | None:
        """Return None: the engine says itself what is missing."""
        return None

    def spawn(
        self, lb_id: str, directory: Path, config_file: str, ips: Collection[str], *more: str
    ) -> processes.Process:
        """Start HAProxy in the load balancer's container, which is made if it is not there."""
        container = self._container(lb_id, directory, ips)
        log = str((directory / config_file).with_suffix(".log"))
        arguments = ["haproxy", "-db", "-C", str(directory), "-f", config_file, *more]
        wish = {
            "Cmd": [*_SHELL, log, *arguments],
            "Env": [f"{processes.MARKER}={lb_id}", _PATH],
        }
        made = self._engine.ask("POST", f"/containers/{container}/exec", json=wish)["Id"]
        self._engine.ask("POST", f"/exec/{made}/start", json={"Detach": True})
        return self._process(made)

    def discard(self, lb_id: str) -> None:
        """Remove the load balancer's container."""
        for container in self._listed(lb_id):
            self._remove(container["Id"])

    def sweep(self, root: Path, known: Collection[str]) -> frozenset[str]:
        """Remove the containers of load balancers that are not `known`."""
        gone = {one["Labels"][LABEL] for one in self._listed()} - set(known)
        for lb_id in gone:
            self.discard(lb_id)
        return frozenset(gone)

    def _container(self, lb_id: str, directory: Path, ips: Collection[str]) -> str:
        """Return the id of a running container with exactly these addresses."""
        wanted, network = _by_family(ips), self._network(ips)
        for found in self._listed(lb_id):
            has = found["NetworkSettings"]["Networks"].get(network, {})
            asked = has.get("IPAMConfig") or {}
            if found["State"] == "running" and asked == wanted:
                return str(found["Id"])
            self._remove(found["Id"])
        made = self._engine.ask(
            "POST", "/containers/create", json=self._wish(lb_id, directory, wanted, network)
        )["Id"]
        try:
            self._engine.ask("POST", f"/containers/{made}/start")
        except Transient as error:
            self._remove(made)
            if "ddress already in use" in error.message:
                raise AddressElsewhere(next(iter(ips))) from error
            raise
        return str(made)

    def _wish(
        self, lb_id: str, directory: Path, addresses: dict[str, str], network: str
    ) -> dict[str, Any]:
        """Return what the engine is asked for: no rights, nothing to write but its own files."""
        root = os.geteuid() == 0
        # Root opens the files and sockets and gives up being root, as on the host.
        uid, gid = (0, 0) if root else (os.geteuid(), os.getegid())
        rights = ["SETUID", "SETGID"] if root and self._user else []
        mounts = [directory, self._runtime / runtime_name(lb_id)]
        return {
            "Image": self._image,
            "User": f"{uid}:{gid}",
            "Entrypoint": ["sleep"],
            "Cmd": ["infinity"],
            "Labels": {LABEL: lb_id, STATE_LABEL: str(self._state)},
            "HostConfig": {
                "NetworkMode": network,
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "CapAdd": rights,
                "SecurityOpt": ["no-new-privileges:true"],
                "LogConfig": {"Type": "none"},
                "PidsLimit": 64,
                "Mounts": [
                    {"Type": "bind", "Source": str(path), "Target": str(path)} for path in mounts
                ],
            },
            "NetworkingConfig": {
                "EndpointsConfig": {network: {"IPAMConfig": addresses}},
            },
        }

    def _network(self, ips: Collection[str]) -> str:
        """Return the network that has these addresses. Raises: Permanent."""
        names = {name for ip in ips for net, name in self._networks if ip_address(ip) in net}
        if len(names) != 1:
            raise Permanent(
                "unsupported", "the addresses of a load balancer are on one docker network"
            )
        return names.pop()

    def _process(self, execution: str) -> processes.Process:
        """Return the process of an execution that was just begun."""
        deadline, never = self._clock.monotonic() + START_S, Event()
        while self._clock.monotonic() < deadline:
            told = self._engine.ask("GET", f"/exec/{execution}/json")
            if told["ExitCode"] is not None and not told["Running"]:
                raise EndedAtOnce
            if told["Pid"]:
                try:
                    return processes.attach(told["Pid"])
                except ProcessLookupError:
                    raise EndedAtOnce from None
            self._clock.wait(never, 0.005)
        raise Transient("start_timeout", "the container engine started nothing")

    def _listed(self, lb_id: str | None = None) -> list[Any]:
        """Return our containers, also those that ended; of one load balancer or of all."""
        which = f'"{LABEL}={lb_id}"' if lb_id else f'"{LABEL}"'
        filters = f'{{"label": [{which}, "{STATE_LABEL}={self._state}"]}}'
        found = self._engine.ask("GET", "/containers/json", params={"all": "1", "filters": filters})
        return list(found)

    def _remove(self, container: str) -> None:
        path = f"/containers/{container}"
        self._engine.ask("DELETE", path, absent_ok=True, params={"force": "1", "v": "1"})


def _by_family(ips: Collection[str]) -> dict[str, str]:
    """Return the addresses as the engine takes them: one of each family."""
    found: dict[str, str] = {}
    for ip in ips:
        family = f"IPv{ip_address(ip).version}Address"
        if family in found:
            raise Permanent(
                "unsupported", "a load balancer of a docker pool has one address of each family"
            )
        found[family] = ip
    return found


def _message(answer: httpx2.Response) -> str:
    try:
        return f"the container engine says: {answer.json()['message']}"
    except (ValueError, KeyError, TypeError):
        return f"the container engine answered {answer.status_code}"
