"""The sessions of a relay: who talks to whom, for how long, and how much. Pure.

A session is one client address and port at one of our addresses and ports, and a target. The
relay gives every session a socket of its own towards the target, so an answer needs no search.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from fakecloud.udp import wire
from fakecloud.udp.networks import Networks
from fakecloud.udp.targets import NEVER, Group, Pin, Target, Traffic

ONCE_S = 30.0
"""A client that sent only once is forgotten this soon, as by Linux (nf_conntrack_udp_timeout)."""
SPARE_ONCE_S = 2.0
"""When there are too many sessions, one that was used once gives way after this long."""
SILENCE_S = 2.0
"""A leaving target keeps a client while it answers; after this long without, the client moves."""
PINS_S = 60.0
LOOKS = 4
BATCH = 512
SPARE_ENTRIES = 1024
MOST_GONE = 256

Address = tuple[str, int] | tuple[str, int, int, int]


class Listener(Traffic):
    """A port with its group."""

    __slots__ = ("group", "idle_s", "limit", "name")

    def __init__(self, name: str, group: Group) -> None:
        super().__init__()
        self.name = name
        self.group = group
        self.idle_s = self.limit = 0


class Endpoint:
    """One address and port of a listener."""

    __slots__ = ("bind", "listener", "reply", "sessions")

    def __init__(self, bind: tuple[str, int], listener: Listener) -> None:
        self.bind = bind
        self.listener = listener
        self.sessions: dict[Address, Session] = {}
        self.reply: Callable[[memoryview, Address], int] = _mute


class Session:
    """One conversation. The relay fills in `descriptor`, `send`, `receive`, `hang_up`.

    settled: the target keeps it; otherwise every datagram asks `Table.route` anew. refused: the
    target's host said that nobody listens. asked_at: when a leaving target was first asked what
    it hasn't answered yet.
    """

    __slots__ = (
        *("answered_at", "asked_at", "client", "closed", "descriptor", "endpoint", "entry"),
        *("group", "hang_up", "leave_at", "listener", "opened_at", "pin", "receive", "refused"),
        *("seen_at", "send", "settled", "target"),
    )

    def __init__(
        self, client: Address, endpoint: Endpoint, group: Group, target: Target, now: float
    ) -> None:
        self.client = client
        self.endpoint = endpoint
        self.listener = endpoint.listener
        self.group = group
        self.target = target
        self.pin: Pin | None = None
        self.opened_at = self.seen_at = now
        self.asked_at = self.answered_at = 0.0
        self.leave_at = NEVER
        self.entry = 0
        self.settled = True
        self.refused = self.closed = False
        self.descriptor = -1
        self.send: Callable[[memoryview], int] = _mute
        self.receive: Callable[[bytearray], int] = _mute
        self.hang_up: Callable[[], object] = _mute

    def due(self) -> float:
        """Return when the session ends if nothing happens any more."""
        idle_s = float(self.listener.idle_s)
        if self.seen_at == self.opened_at:
            idle_s = min(idle_s, ONCE_S)
        return min(self.seen_at + idle_s, self.leave_at)


class Table:
    """All sessions of a relay. Times are monotonic seconds. `due_at`: call `expire` then."""

    def __init__(self, release: Callable[[Session], None]) -> None:
        """Tell `release` every session that has ended."""
        self.listeners: dict[str, Listener] = {}
        self.groups: dict[str, Group] = {}
        self.endpoints: dict[tuple[str, int], Endpoint] = {}
        self.config = wire.Config()
        self.count = 0
        self.due_at = NEVER
        self._release = release
        self._networks = Networks(())
        self._heap: list[tuple[float, int, Session]] = []
        self._entries = 0
        self._pins_at = NEVER

    def sessions(self) -> Iterator[Session]:
        """Yield every session; none may be opened or closed meanwhile."""
        for endpoint in self.endpoints.values():
            yield from endpoint.sessions.values()

    def listener(self, name: str, group: Group) -> Listener:
        """Return the listener of that name, made if absent."""
        if name not in self.listeners:
            self.listeners[name] = Listener(name, group)
        return self.listeners[name]

    def configure(self, config: wire.Config, now: float) -> None:
        """Become what `config` says; sessions go on wherever they may.

        Raises: OSError, ValueError when a network can't be read; nothing has changed then.
        """
        ranges_differ = config.ranges != self.config.ranges
        self._networks = Networks(config.ranges)
        self.config = config
        self._configure_groups(config, now)
        self._configure_listeners(config)
        for session in list(self.sessions()):
            if ranges_differ and session.client[0] not in self._networks:
                self.close(session)
            else:
                self._settle(session, now)
        self._drop_endpoints(config)
        self._forget()
        if any(group.affinity_s for group in self.groups.values()):
            self._pins_at = min(self._pins_at, now + PINS_S)
            self.due_at = min(self.due_at, self._pins_at)

    def route(self, endpoint: Endpoint, client: Address, now: float) -> Session | None:
        """Return the session that a client's datagram belongs to; None: drop the datagram."""
        session, avoid = endpoint.sessions.get(client), None
        if session is None:
            if client[0] not in self._networks or client[:2] in self.endpoints:
                # A datagram from one of our own ports would go round for ever.
                endpoint.listener.denied += 1
                return None
        elif session.settled or self._stays(session, now):
            session.seen_at = now
            return session
        else:
            avoid = session.target
            self.close(session)
        return self._open(endpoint, client, avoid, now)

    def refuse(self, session: Session) -> None:
        """Note that nobody listens at the target: the client's next datagram goes elsewhere."""
        session.settled, session.refused = False, True
        session.listener.failed += 1
        session.target.failed += 1
        session.group.unpin(session.client[0], session.target)

    def close(self, session: Session) -> None:
        """End a session."""
        if session.closed:
            return
        session.closed = True
        del session.endpoint.sessions[session.client]
        self.count -= 1
        session.listener.sessions -= 1
        session.target.sessions -= 1
        if session.pin is not None:
            session.pin.sessions -= 1
            session.pin.seen_at = max(session.pin.seen_at, session.seen_at)
        self._release(session)

    def expire(self, now: float) -> None:
        """End what is over, so much that a turn stays short; `due_at` says when to go on."""
        for _ in range(BATCH):
            if not self._heap or self._heap[0][0] > now:
                break
            _, entry, session = heapq.heappop(self._heap)
            if session.closed or session.entry != entry:
                continue
            if session.due() <= now:
                self.close(session)
            else:
                self._schedule(session)
        if now >= self._pins_at:
            for group in self.groups.values():
                group.forget_pins(now)
            self._pins_at = now + PINS_S
        self.due_at = min(self._heap[0][0] if self._heap else NEVER, self._pins_at)

    def adopt(self, session: Session, pinned: bool) -> None:
        """Take over a session of another relay, with its times, as it is."""
        if pinned:
            ip, target = session.client[0], session.target
            session.pin = session.group.restored_pin(ip, target, session.seen_at)
        self._enter(session)
        self._settle(session, session.seen_at)

    def _stays(self, session: Session, now: float) -> bool:
        """Return whether a session of a leaving target may go on with it."""
        if session.refused or now >= session.leave_at:
            return False
        if session.answered_at >= session.asked_at:
            session.asked_at = now
        silent = now - session.asked_at >= SILENCE_S
        return not silent or not session.listener.group.others(session.target)

    def _open(
        self, endpoint: Endpoint, client: Address, avoid: Target | None, now: float
    ) -> Session | None:
        listener = endpoint.listener
        if self._is_full(listener) and not self._make_room(listener, now):
            listener.refused += 1
            return None
        target = listener.group.choose(client[0], avoid, now)
        if target is None:
            listener.unserved += 1
            return None
        session = Session(client, endpoint, listener.group, target, now)
        session.pin = listener.group.pin(client[0], target, now)
        listener.sessions_total += 1
        target.sessions_total += 1
        self._enter(session)
        return session

    def _enter(self, session: Session) -> None:
        session.endpoint.sessions[session.client] = session
        self.count += 1
        session.listener.sessions += 1
        session.target.sessions += 1
        self._schedule(session)

    def _is_full(self, listener: Listener) -> bool:
        return self.count >= self.config.limit or listener.sessions >= listener.limit

    def _make_room(self, listener: Listener, now: float) -> bool:
        """End one of the oldest sessions if it was used once and some time ago."""
        looks = LOOKS
        while self._heap and looks:
            entry = self._heap[0]
            session = entry[2]
            if session.closed or session.entry != entry[1]:
                heapq.heappop(self._heap)
                continue
            looks -= 1
            useful = session.listener is listener or listener.sessions < listener.limit
            once = session.seen_at == session.opened_at
            if useful and once and now - session.seen_at >= SPARE_ONCE_S:
                self.close(session)
                return True
            heapq.heappop(self._heap)
            self._schedule(session)
        return False

    def _schedule(self, session: Session) -> None:
        if len(self._heap) > 2 * self.count + SPARE_ENTRIES:
            self._heap = [e for e in self._heap if not e[2].closed and e[2].entry == e[1]]
            heapq.heapify(self._heap)
        self._entries += 1
        session.entry = self._entries
        due = session.due()
        heapq.heappush(self._heap, (due, session.entry, session))
        self.due_at = min(self.due_at, due)

    def _settle(self, session: Session, now: float) -> None:
        """Note whether the session's target still takes what its listener gets."""
        leave_at = session.target.leave_at
        if session.group is not session.listener.group:  # the listener was given another one
            leave_at = min(leave_at, session.leave_at, now + session.group.drain_s)
        session.settled = leave_at == NEVER and not session.refused
        if leave_at != session.leave_at:
            session.leave_at = leave_at
            self._schedule(session)

    def _configure_groups(self, config: wire.Config, now: float) -> None:
        told = {group.name: group for group in config.groups}
        for name in told.keys() - self.groups.keys():
            self.groups[name] = Group(name)
        for name, group in self.groups.items():
            group.configure(told.get(name), now)

    def _configure_listeners(self, config: wire.Config) -> None:
        for told in config.listeners:
            group = self.groups[told.group]
            listener = self.listener(told.name, group)
            listener.group, listener.idle_s, listener.limit = group, told.idle_s, told.limit
            for ip in told.ips:
                bind = ip, told.port
                if bind not in self.endpoints:
                    self.endpoints[bind] = Endpoint(bind, listener)

    def _drop_endpoints(self, config: wire.Config) -> None:
        binds = set(config.binds())
        for endpoint in [one for bind, one in self.endpoints.items() if bind not in binds]:
            for session in list(endpoint.sessions.values()):
                self.close(session)
            del self.endpoints[endpoint.bind]
        # What the others have counted is still to be read, and goes on if they return.
        told = {listener.name for listener in config.listeners}
        gone = [name for name in self.listeners if name not in told]
        for name in gone[: max(0, len(gone) - MOST_GONE)]:
            del self.listeners[name]

    def _forget(self) -> None:
        """Forget groups and targets that nobody is told of and no session uses."""
        told = {group.name: group for group in self.config.groups}
        for name, group in list(self.groups.items()):
            group.forget({t.name for t in told[name].targets} if name in told else set())
            if name not in told and not group.targets:
                del self.groups[name]


def _mute(*_: object) -> int:
    return 0
