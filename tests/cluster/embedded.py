"""The whole embedded cluster as one object with plain methods, for callers without an event loop."""

from __future__ import annotations

import asyncio
import logging
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import uvloop
import yaml

from tests.cluster import controlplane, errors, standins

Json = dict[str, Any]
T = TypeVar("T")

_log = logging.getLogger("tests.cluster")
_CALL_TIMEOUT_S = 60.0
_KUBECTL_TIMEOUT_S = 60.0
_POLL_S = 0.02
_CLOSING_TURNS = 20
# Where the resources that tests apply live in the API; namespaced unless noted.
_COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
}


class EmbeddedCluster:
    """Control plane and stand-in nodes; a context manager, usable from any thread.

    The stand-ins run in a thread with an event loop of its own.
    """

    def __init__(
        self,
        binaries: Path,
        directory: Path | None = None,
        *,
        nodes: int = 3,
        timeout_s: float = 90.0,
    ) -> None:
        """Arguments as of ControlPlane; nodes: stand-in nodes at the start."""
        self.control_plane = controlplane.ControlPlane(binaries, directory, timeout_s=timeout_s)
        self._node_count = nodes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stand_ins: standins.StandIns | None = None

    def __enter__(self) -> EmbeddedCluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Return with every component ready and every node Ready. Raises: ClusterError."""
        _raise_file_limit()
        self.control_plane.start()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(
            target=_run_loop, args=[self._loop], name="stand-ins", daemon=True
        )
        self._thread.start()
        try:
            self._call(self._start_stand_ins())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything; may be called again."""
        if self._stand_ins is not None:
            leaving, self._stand_ins = self._stand_ins, None
            self._call(leaving.__aexit__(None, None, None))
        # Before the loop: connections to the API server end when the server is gone.
        self.control_plane.stop()
        if self._loop is not None and self._thread is not None:
            self._call(_close_connections())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CALL_TIMEOUT_S)
            self._loop = self._thread = None

    @property
    def kubeconfig(self) -> Path:
        """The cluster administrator's kubeconfig."""
        return self.control_plane.kubeconfig

    @property
    def nodes(self) -> dict[str, str]:
        """The stand-in nodes: address by name."""
        return {node.name: node.address for node in tuple(self._running.nodes.values())}

    def add_node(self, labels: dict[str, str] | None = None) -> str:
        """Return the name of a new node that is Ready."""
        return self._call(self._running.add_node(labels)).name

    def remove_node(self, name: str) -> None:
        """Take a node away, with its pods and its ports."""
        self._call(self._running.remove_node(name))

    def set_node_ready(self, name: str, ready: bool) -> None:
        """Turn a node's Ready condition."""
        self._call(self._running.set_node_ready(name, ready))

    def set_ready(self, namespace: str, pod: str, ready: bool) -> None:
        """Turn a pod Ready or not Ready."""
        self._call(self._running.set_ready(namespace, pod, ready))

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
    ) -> Json:
        """Return the API server's answer. Raises: urllib.error.HTTPError for 400 and more."""
        return self.control_plane.request(method, path, body, content_type)

    def create(self, manifest: str | Json, namespace: str = "default") -> list[Json]:
        """Create the objects of a YAML text (or one object) and return them as stored.

        Faster than kubectl by a process; knows the few kinds that tests use.
        Raises: ClusterError for another kind, urllib.error.HTTPError if one is refused.
        """
        wanted = yaml.safe_load_all(manifest) if isinstance(manifest, str) else [manifest]
        made = []
        for each in filter(None, wanted):
            place = _COLLECTIONS.get(each["kind"])
            if place is None:
                raise errors.ClusterError(f"create() does not know {each['kind']}: use kubectl()")
            place = place.format(namespace=each["metadata"].get("namespace", namespace))
            made.append(self.request("POST", place, each))
        return made

    def kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None
    ) -> str:
        """Return kubectl's standard output; as administrator unless with another `kubeconfig`.

        Raises: ClusterError with kubectl's message if it fails.
        """
        done = subprocess.run(
            [
                self.control_plane.kubectl,
                f"--kubeconfig={kubeconfig or self.kubeconfig}",
                *arguments,
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_KUBECTL_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise errors.ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    @property
    def _running(self) -> standins.StandIns:
        assert self._stand_ins is not None, "not started"
        return self._stand_ins

    async def _start_stand_ins(self) -> None:
        stand_ins = standins.StandIns(
            self.control_plane.url, self.control_plane.credentials, self._node_count
        )
        self._stand_ins = await stand_ins.__aenter__()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "not started"
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(_CALL_TIMEOUT_S)


def eventually(
    read: Callable[[], T], good: Callable[[T], bool] = bool, timeout_s: float = 20.0
) -> T:
    """Return the first value of `read` that is `good`.

    An answer of 404 or a refused connection counts as not yet.
    Raises: ClusterError with the last value or error when time is up.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        last: object
        try:
            value = last = read()
            if good(value):
                return value
        except OSError as error:  # urllib.error.HTTPError is one
            last = error
        if time.monotonic() > deadline:
            raise errors.ClusterError(f"not so within {timeout_s:.0f} s; last seen: {last!r}")
        time.sleep(_POLL_S)


async def _close_connections() -> None:
    """Let TLS connections see that their peer is gone, and close, in a few turns of the loop."""
    for _ in range(_CLOSING_TURNS):
        await asyncio.sleep(0)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _raise_file_limit() -> None:
    """Allow as many open files as the hard limit: a nodePort is a socket on every node."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
