"""Requests through an address: the first that is answered, and those lost while pods are replaced."""

from __future__ import annotations

import http.client
import threading
import time

from tests.e2e.commands import Failure, Kubectl

CLIENTS = 4
REQUEST_S = 5
PAUSE_S = 0.005
SETTLE_S = 2


def first_answer(address: str, seconds: float) -> float:
    """Return when an HTTP request to `address` was answered with 200. Raises: Failure."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _ask(address, 1):
            return time.monotonic()
        time.sleep(PAUSE_S)
    raise Failure(f"{address} does not answer after {seconds:.0f} s")


def failed_while_rolling(kubectl: Kubectl, namespace: str, name: str, address: str) -> int:
    """Return how many of many requests, each a connection, failed while all pods were replaced."""
    stop = threading.Event()
    failed = [0] * CLIENTS
    answered = [0] * CLIENTS

    def ask(index: int) -> None:
        while not stop.is_set():
            if _ask(address, REQUEST_S):
                answered[index] += 1
            else:
                failed[index] += 1
            time.sleep(PAUSE_S)

    clients = [threading.Thread(target=ask, args=(index,)) for index in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        kubectl("-n", namespace, "rollout", "restart", f"deployment/{name}")
        kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=240s",
                timeout_s=260)  # fmt: skip
        time.sleep(SETTLE_S)
    finally:
        stop.set()
        for client in clients:
            client.join()
    print(f"  rolling: {sum(answered)} answered, {sum(failed)} failed", flush=True)
    return sum(failed)


def _ask(address: str, seconds: float) -> bool:
    connection = http.client.HTTPConnection(address, 80, timeout=seconds)
    try:
        connection.request("GET", "/hostname")
        answer = connection.getresponse()
        return answer.status == 200 and bool(answer.read())
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
