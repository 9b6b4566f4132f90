"""Services of one namespace, created, watched and deleted without a process for each."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.commands import Failure, Kubectl

REQUEST_S = 30


class Api:
    """The API server by the certificates of a kubeconfig; safe from several threads."""

    def __init__(self, kubectl: Kubectl, folder: Path, namespace: str) -> None:
        """Keep certificates in `folder`."""
        config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        files = {}
        for name, text in (
            ("ca", cluster["certificate-authority-data"]),
            ("crt", user["client-certificate-data"]),
            ("key", user["client-key-data"]),
        ):
            files[name] = folder / f"client.{name}"
            files[name].touch(mode=0o600)
            files[name].write_bytes(base64.b64decode(text))
        self._tls = ssl.create_default_context(cafile=str(files["ca"]))
        self._tls.load_cert_chain(str(files["crt"]), str(files["key"]))
        self._host = urlsplit(cluster["server"]).netloc
        self._path = f"/api/v1/namespaces/{namespace}/services"
        self._local = threading.local()
        self._seen: dict[str, tuple[str, float]] = {}
        self._gone: dict[str, float] = {}
        self._changed = threading.Condition()
        self._ended = False

    def __enter__(self) -> Api:
        """Begin to watch."""
        version = self._ask("GET", self._path)["metadata"]["resourceVersion"]
        self._stream = http.client.HTTPSConnection(self._host, context=self._tls)
        self._stream.request("GET", f"{self._path}?watch=1&resourceVersion={version}")
        self._socket = self._stream.sock
        self._answer = self._stream.getresponse()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self._ended = True
        # A close() would wait for the watcher, and the watcher for the next event.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._watcher.join(REQUEST_S)
        self._stream.close()

    def create(self, service: dict[str, Any]) -> float:
        """Create a Service; return when that was asked for, on the monotonic clock."""
        began = time.monotonic()
        self._ask("POST", self._path, service)
        return began

    def delete(self, name: str) -> None:
        """Ask for the deletion of a Service."""
        self._ask("DELETE", f"{self._path}/{name}")

    def address_of(self, name: str, seconds: float) -> tuple[str, float]:
        """Return the first address and when it was seen. Raises: Failure."""
        with self._changed:
            if not self._changed.wait_for(lambda: name in self._seen, seconds):
                raise Failure(f"{name} has no address after {seconds:.0f} s")
            return self._seen[name]

    def gone(self, names: list[str], seconds: float) -> float:
        """Return when the last of `names` was seen to be gone, and forget them. Raises: Failure."""
        with self._changed:
            if not self._changed.wait_for(lambda: all(n in self._gone for n in names), seconds):
                left = [name for name in names if name not in self._gone]
                raise Failure(f"still there after {seconds:.0f} s: {', '.join(left[:5])}")
            for name in names:
                self._seen.pop(name, None)
            return max(self._gone.pop(name) for name in names)

    def _watch(self) -> None:
        try:
            for line in self._answer:
                event, now = json.loads(line), time.monotonic()
                name = event["object"].get("metadata", {}).get("name", "")
                ingress = event["object"].get("status", {}).get("loadBalancer", {}).get("ingress")
                with self._changed:
                    if event["type"] == "DELETED":
                        self._gone[name] = now
                    elif ingress and name not in self._seen:
                        self._seen[name] = (ingress[0].get("ip", ""), now)
                    self._changed.notify_all()
        except (OSError, ValueError, http.client.HTTPException):
            if not self._ended:  # otherwise it ends because the connection was closed
                raise

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection(
                self._host, context=self._tls, timeout=REQUEST_S
            )
        connection: http.client.HTTPSConnection = self._local.connection
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        if answer.status >= 300:
            raise Failure(f"{method} {path}: {told.get('message', answer.status)}")
        return told
