"""Requests while things break: each on a new connection, every failure counted."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType


def get(host: str, port: int, timeout_s: float = 3.0) -> str:
    """Return the body of GET / on a new connection. Raises: OSError, http.client.HTTPException."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read(65536).decode(errors="replace")
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}")
        return body
    finally:
        connection.close()


class Traffic:
    """Some threads that ask again and again until the block ends; then `done` and `failures`."""

    def __init__(self, host: str, port: int, threads: int = 4, pause_s: float = 0.002) -> None:
        self._target = (host, port)
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.done = 0
        self.failures: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return self.failures.total()

    def wait_for(self, count: int, timeout_s: float = 30.0) -> None:
        """Return once `count` more requests are done, or after `timeout_s`."""
        goal = self.done + count
        deadline = time.monotonic() + timeout_s
        while self.done < goal and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                get(*self._target)
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.failures[f"{type(error).__name__}: {error}"] += 1
            with self._lock:
                self.done += 1
            time.sleep(self._pause_s)
