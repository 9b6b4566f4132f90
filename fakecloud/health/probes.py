"""One target's probe, and the connection that asks it."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from fakecloud import model
from fakecloud.domain import checks
from fakecloud.domain.checks import ProbeResult

_RESPONSE_LIMIT = 64 * 1024
# A kept connection stays with the pod or process that first took it (conntrack, SO_REUSEPORT);
# its age is limited so that a probe soon meets what a new client would meet.
_CONNECTION_AGE_S = 30.0


class Asks(Protocol):
    """What a connection tells of itself."""

    def finish(self, probe: Probe, *, ok: bool, reason: str, weight: int | None = None) -> None:
        """End the turn of `probe` with an answer."""

    def dial(self, probe: Probe) -> None:
        """Open a new connection for the turn that is under way."""

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection that is closed."""


class Probe:
    """One watched key and the state of its asking."""

    __slots__ = (
        "busy", "connection", "contrary", "dial", "gone", "key", "request", "result", "started",
        "turn",
    )  # fmt: skip

    def __init__(self, key: model.ProbeKey, result: ProbeResult) -> None:
        self.key = key
        self.result = result
        self.request = checks.request(key)
        self.contrary = 0
        self.turn = 0  # grows with every start and end, so that old heap entries are recognised
        self.started = 0.0
        self.busy = False
        self.gone = False
        self.connection: Connection | None = None
        self.dial: asyncio.Task[None] | None = None


class Connection(asyncio.Protocol):
    """A connection of one probe; with an HTTP check it serves turn after turn."""

    def __init__(self, prober: Asks, probe: Probe) -> None:
        """Serve `probe` and tell `prober`."""
        self._prober = prober
        self._probe = probe
        self._turn = probe.turn
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._unread = 0  # bytes of the last body still to come
        self._asked = 0
        self._born = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: ask, or be the answer."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        probe = self._probe
        if probe.turn != self._turn:  # too late: the turn ended while the connection opened
            self.close()
            return
        probe.dial = None
        if probe.key.check.protocol == "http":
            probe.connection = self
            self._born = probe.started
            self.ask()
        else:
            self.close()
            self._prober.finish(probe, ok=True, reason="tcp_connected")

    def usable(self, now: float) -> bool:
        """Return whether the next request may go out on this connection."""
        return self._unread == 0 and now - self._born < _CONNECTION_AGE_S

    def ask(self) -> None:
        """Send the request; the answer goes to `Asks.finish`."""
        assert self._transport is not None
        self._asked += 1
        self._received = b""
        self._transport.write(self._probe.request)

    def close(self) -> None:
        """Hang up; nothing more is reported."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._probe.connection is self:
            self._probe.connection = None
        self._prober.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        if self._transport is None:
            return
        if not self._probe.busy:
            self._unread -= len(data)
            if self._unread < 0:  # the peer speaks without being asked
                self.close()
            return
        self._received += data
        try:
            head = checks.parse_head(self._received)
        except checks.BadResponse:
            head = None
            bad = True
        else:
            bad = head is None and len(self._received) > _RESPONSE_LIMIT
        if head is not None:
            self._answer(head)
        elif bad:
            self.close()
            self._prober.finish(self._probe, ok=False, reason="bad_response")

    def _answer(self, head: checks.Head) -> None:
        if head.body is None or head.size + head.body > _RESPONSE_LIMIT:
            self.close()
        else:
            self._unread = head.size + head.body - len(self._received)
            if self._unread < 0:
                self.close()
        self._received = b""
        ok = head.status == self._probe.key.check.expected_status
        reason = f"http_{head.status}"
        self._prober.finish(self._probe, ok=ok, reason=reason, weight=head.weight)

    def connection_lost(self, exc: Exception | None) -> None:
        """Judge an end that nobody asked for."""
        if self._transport is None:
            return
        self.close()
        if not self._probe.busy:
            return
        if self._asked > 1 and not self._received:
            self._prober.dial(self._probe)  # closed while idle: the target deserves a new try
        else:
            reason = "connection_closed" if exc is None else "connection_reset"
            self._prober.finish(self._probe, ok=False, reason=reason)
