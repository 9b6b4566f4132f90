"""Ports of the machine around the container: a published range, one for each listener.

Where nobody can reach a container's addresses (an engine inside a virtual machine), and for whoever
wants `localhost`. A listener keeps its port as long as the cloud remembers it; ports of load
balancers that are gone are given again last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Final

import structlog

from fakecloud.errors import StartError
from fakecloud.model import HostPort, LoadBalancer, State, transport
from fakecloud.store import host_ports as rows
from fakecloud.store.database import Connection

MOST: Final = 1000

log = structlog.get_logger()


def parse(text: str) -> range:
    """Return the range FIRST-LAST. Raises: StartError."""
    match = re.fullmatch(r"(\d{4,5})-(\d{4,5})", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1024 <= first <= last <= 65535 or last - first >= MOST:
        raise StartError(
            f"--host-ports {text!r} is not FIRST-LAST, at most {MOST} ports from 1024 to 65535"
        )
    return range(first, last + 1)


def fit(lb: LoadBalancer, published: Sequence[int]) -> bool:
    """Say whether a load balancer has what there is to have; otherwise it is to be worked on."""
    return bool(lb.host_ports) == bool(published) and all(
        one.port in published for one in lb.host_ports
    )


def assign(
    connection: Connection, lb: LoadBalancer, published: Sequence[int], now: datetime
) -> tuple[HostPort, ...]:
    """Return the host port of each listener, as long as there are any. Part of a transaction."""
    if not published or lb.state is State.DELETING:
        return ()
    mine = rows.of(connection, lb.project, lb.name)
    found, new = [], []
    known: dict[str, dict[int, bool]] = {}
    for listener in lb.spec.listeners:
        kind = transport(listener.protocol)
        given = mine.get((kind, listener.port))
        if given is None or given not in published:
            taken = known.setdefault(kind, rows.known(connection, kind))
            given = _free(published, taken)
            if given is None:
                log.warning("host_ports_exhausted", lb_id=lb.id, listener=listener.name)
                continue
            taken[given] = True
            new.append((kind, listener.port, given))
        found.append(HostPort(listener=listener.name, transport=kind, port=given))
    rows.give(connection, lb.project, lb.name, new, now)
    return tuple(found)


def _free(published: Sequence[int], taken: dict[int, bool]) -> int | None:
    """Return a port that nobody ever had, or that has been nobody's for longest."""
    unused = (port for port in published if port not in taken)
    left = (port for port, is_used in taken.items() if not is_used and port in published)
    return next(chain(unused, left), None)
