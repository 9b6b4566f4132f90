"""Whatever comes in whatever order, the relay's table keeps its promises; so does its successor."""

from __future__ import annotations

import math
import socket
from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakecloud.udp import handover, wire
from fakecloud.udp.sessions import SILENCE_S, Session, Table
from fakecloud.udp.targets import NEVER

IPS = ("192.0.2.1", "2001:db8::1")
PORTS = (53, 123)
GROUPS = ("ga", "gb")
CLIENTS = [("198.51.100.1", 1), ("198.51.100.1", 2), ("198.51.100.2", 1), ("203.0.113.9", 7)]
CLIENTS6 = [("2001:db8:5::1", 1, 0, 0), ("2001:db8:6::1", 1, 0, 0)]
RANGES = ("198.51.100.0/24", "203.0.113.0/24", "2001:db8:5::/48", "2001:db8:6::/48")

targets = st.builds(
    wire.Target,
    ip=st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8:a::1"]),
    port=st.sampled_from([53, 54]),
    weight=st.integers(0, 5),
    ready=st.booleans(),
)


@st.composite
def configs(draw: st.DrawFn) -> wire.Config:
    groups = []
    for name in draw(st.lists(st.sampled_from(GROUPS), unique=True)):
        told = draw(st.lists(targets, max_size=4, unique_by=lambda one: one.name))
        balance = draw(st.sampled_from(wire.BALANCE))
        affinity_s, drain_s = draw(st.sampled_from([0, 20])), draw(st.sampled_from([0, 10, 60]))
        groups.append(wire.Group(name, balance, affinity_s, drain_s, tuple(told)))
    listeners = []
    for port in draw(st.lists(st.sampled_from(PORTS), unique=True)) if groups else ():
        group = draw(st.sampled_from(groups)).name
        ips = tuple(draw(st.lists(st.sampled_from(IPS), unique=True, min_size=1)))
        idle_s, limit = draw(st.sampled_from([5, 100])), draw(st.integers(1, 5))
        listeners.append(wire.Listener(f"u{port}", port, group, idle_s, limit, ips))
    ranges = tuple(draw(st.lists(st.sampled_from(RANGES), unique=True)))
    return wire.Config(tuple(listeners), tuple(groups), ranges, draw(st.integers(1, 6)))


@given(configs())
def test_text_says_it_all(told: wire.Config) -> None:
    text = wire.render(told)
    assert wire.render(wire.parse(text)) == text


class Sessions(RuleBasedStateMachine):
    """Clients send, targets answer, refuse and come and go, time passes."""

    @initialize(told=configs())
    def start(self, told: wire.Config) -> None:
        self.now = 1000.0
        self.open: set[Session] = set()
        self.opened = 0
        self.table = Table(self._released)
        self.table.configure(told, self.now)

    def _released(self, session: Session) -> None:
        self.open.remove(session)  # exactly once

    @rule(told=configs())
    def configure(self, told: wire.Config) -> None:
        before = {s: (s.target, s.leave_at) for s in self.open}
        self.table.configure(told, self.now)
        binds, ready = set(told.binds()), self._ready()
        for session in before.keys() - self.open:
            ours = session.client[0] in self.table._networks
            assert session.endpoint.bind not in binds or not ours
        for session in self.open:
            assert session.target is before[session][0]
            if session.settled:
                assert session.target in ready

    @rule(bind=st.sampled_from([(ip, port) for ip in IPS for port in PORTS]), n=st.integers(0, 5))
    def send(self, bind: tuple[str, int], n: int) -> None:
        endpoint = self.table.endpoints.get(bind)
        if endpoint is None:
            return
        client = CLIENTS6[n % 2] if ":" in bind[0] else CLIENTS[n % 4]
        before, held = endpoint.sessions.get(client), self._counted(endpoint.listener)
        stays = before is not None and (before.settled or self.now < before.leave_at)
        session = self.table.route(endpoint, client, self.now)
        if before is not None and before.settled:
            assert session is before
        if session is None:
            if before is None:
                assert self._counted(endpoint.listener) == held + 1  # every drop has a reason
            return
        assert session.seen_at == self.now
        if session is not before:
            self.open.add(session)
            self.opened += 1
            assert client[0] in self.table._networks
            assert session.target.ready
            assert session.target.weight or session.pin is not None
            assert session.group is endpoint.listener.group
        elif not session.settled:
            assert stays

    @rule(data=st.data())
    @precondition(lambda self: self.open)
    def answer(self, data: st.DataObject) -> None:
        self._one(data).answered_at = self.now

    @rule(data=st.data())
    @precondition(lambda self: self.open)
    def refuse(self, data: st.DataObject) -> None:
        session = self._one(data)
        self.table.refuse(session)
        assert not session.settled

    @rule(seconds=st.sampled_from([0.0, 0.5, SILENCE_S, 5.0, 31.0, 101.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.table.expire(self.now)
        assert self.table.due_at > self.now
        for session in self.open:
            assert session.due() > self.now

    @rule()
    def hand_over(self) -> None:
        """The successor knows everything the relay knew."""
        ours, theirs = socket.socketpair()
        table, given = Table(self._released), []
        files = {}
        for session in self.open:
            session.descriptor = ours.fileno()  # any file will do
            files[session.endpoint.bind, session.client] = session
        with ours, theirs:
            thread = Thread(target=handover.give, args=(ours, self.table, "epoch", []))
            thread.start()
            given.append(handover.take(theirs, table, self.now))
            thread.join(5)
        assert given[0].epoch == "epoch"
        taken = {(one.endpoint.bind, one.client): one for one in given[0].files}
        assert taken.keys() == files.keys()
        for key, old in files.items():
            self._same(old, taken[key])
        for file in given[0].files.values():
            socket.close(file)
        assert self._figures(table) == self._figures(self.table)
        assert _pins(table) == _pins(self.table)
        self.table, self.open = table, set(taken.values())

    def _same(self, old: Session, new: Session) -> None:
        for name in ("opened_at", "seen_at", "answered_at", "asked_at", "leave_at", "refused"):
            assert getattr(old, name) == getattr(new, name), name
        assert (old.settled, old.target.name, old.group.name) == (
            new.settled,
            new.target.name,
            new.group.name,
        )
        assert (old.pin is None) == (new.pin is None)
        assert old.due() == new.due()

    def _figures(self, table: Table) -> dict[str, list[int]]:
        of_targets = {
            f"{group.name} {target.name}": [target.sessions, *target.figures()]
            for group in table.groups.values()
            for target in group.targets.values()
        }
        of_listeners = {n: [one.sessions, *one.figures()] for n, one in table.listeners.items()}
        return of_targets | of_listeners

    def _counted(self, listener: object) -> int:
        return sum(getattr(listener, name) for name in ("denied", "refused", "unserved"))

    def _ready(self) -> set[object]:
        groups = self.table.groups.values()
        return {one for group in groups for one in group.targets.values() if one.ready}

    def _one(self, data: st.DataObject) -> Session:
        ordered = sorted(self.open, key=lambda one: (one.endpoint.bind, one.client))
        return ordered[data.draw(st.integers(0, len(ordered) - 1))]

    @invariant()
    def counts_agree(self) -> None:
        known = set(self.table.sessions())
        assert known == self.open
        assert self.table.count == len(known)
        for group in self.table.groups.values():
            for target in group.targets.values():
                assert target.sessions == sum(one.target is target for one in known)
                assert target.ready == (target.leave_at == NEVER)
            for pin in group.pins.values():
                assert pin.sessions == sum(one.pin is pin for one in known)
        for listener in self.table.listeners.values():
            assert listener.sessions == sum(one.listener is listener for one in known)

    @invariant()
    def everything_ends(self) -> None:
        """No session is without a moment at which it is looked at."""
        waiting = {entry[2] for entry in self.table._heap if entry[2].entry == entry[1]}
        assert self.open <= waiting
        for session in self.open:
            assert math.isfinite(session.due())


def _pins(table: Table) -> dict[tuple[str, str], tuple[str, int]]:
    return {
        (group.name, ip): (pin.target.name, pin.sessions)
        for group in table.groups.values()
        for ip, pin in group.pins.items()
    }


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
