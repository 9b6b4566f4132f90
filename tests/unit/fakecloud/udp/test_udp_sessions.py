"""The table of sessions: who talks to whom, for how long. Without a socket or a clock."""

from __future__ import annotations

import pytest

from fakecloud.udp import sessions, targets, wire
from fakecloud.udp.networks import Networks
from fakecloud.udp.sessions import ONCE_S, SILENCE_S, SPARE_ONCE_S, Endpoint, Session, Table

BIND = ("192.0.2.1", 53)
CLIENT = ("198.51.100.7", 4000)


def config(
    *names: str,
    down: str = "",
    weights: dict[str, int] | None = None,
    balance: str = "round_robin",
    affinity_s: int = 0,
    drain_s: int = 300,
    idle_s: int = 120,
    limit: int = 100,
    ranges: tuple[str, ...] = ("0.0.0.0/0", "::/0"),
    group: str = "g",
) -> wire.Config:
    """Return one listener whose targets are called by letters."""
    told = tuple(
        wire.Target(f"10.0.0.{ord(name)}", 53, (weights or {}).get(name, 1), name not in down)
        for name in names
    )
    return wire.Config(
        listeners=(wire.Listener("u53", 53, group, idle_s, limit, (BIND[0],)),),
        groups=(wire.Group(group, balance, affinity_s, drain_s, told),),
        ranges=ranges,
        limit=limit,
    )


class Lab:
    """A table, its only endpoint, and what it released."""

    def __init__(self, told: wire.Config) -> None:
        self.released: list[Session] = []
        self.table = Table(self.released.append)
        self.table.configure(told, 0.0)

    @property
    def endpoint(self) -> Endpoint:
        return self.table.endpoints[BIND]

    def send(self, now: float, client: tuple[str, int] = CLIENT) -> str | None:
        """Let a client send; return the letter of its target."""
        session = self.session(now, client)
        return None if session is None else letter(session)

    def session(self, now: float, client: tuple[str, int] = CLIENT) -> Session | None:
        return self.table.route(self.endpoint, client, now)

    def clients(self, count: int, now: float = 0.0, start: int = 1000) -> list[str | None]:
        """Let as many clients come, each from an address of its own."""
        return [
            self.send(now, (f"203.0.{n // 250}.{n % 250}", 9)) for n in range(start, start + count)
        ]


def letter(session: Session) -> str:
    return chr(int(session.target.address[0].rpartition(".")[2]))


def test_clients_go_round() -> None:
    assert Lab(config("a", "b", "c")).clients(6) == ["a", "b", "c", "a", "b", "c"]


def test_weights_are_shares_and_are_mixed_well() -> None:
    met = Lab(config("a", "b", weights={"a": 3})).clients(40)
    assert (met.count("a"), met.count("b")) == (30, 10)
    assert "bb" not in "".join(str(one) for one in met)
    assert Lab(config("a", "b", weights={"a": 0})).clients(3) == ["b", "b", "b"]


def test_newcomer_gets_its_share_and_no_flood() -> None:
    lab = Lab(config("a", "b", limit=1000))
    lab.clients(100)
    lab.table.configure(config("a", "b", "c", limit=1000), 1.0)
    assert lab.clients(9, 1.0, 2000).count("c") == 3


def test_least_connections_evens_out() -> None:
    lab = Lab(config("a", "b", balance="least_connections"))
    kept = [lab.session(0.0, ("203.0.113.1", port)) for port in range(10)]
    for session in kept:
        if session is not None and letter(session) == "a":
            lab.table.close(session)
    assert lab.clients(5) == ["a"] * 5


def test_source_hash_moves_only_whom_it_must() -> None:
    limit = 5000
    before = Lab(config("a", "b", "c", balance="source_hash", limit=limit)).clients(900)
    fewer = Lab(config("a", "b", balance="source_hash", limit=limit)).clients(900)
    moved = [old for old, new in zip(before, fewer, strict=True) if old != new]
    assert set(moved) == {"c"}
    assert 220 < len(moved) < 380
    heavy = Lab(config("a", "b", balance="source_hash", weights={"a": 3}, limit=limit)).clients(900)
    assert 600 < heavy.count("a") < 750


def test_session_ends_when_idle_and_lives_while_used() -> None:
    lab = Lab(config("a", idle_s=120))
    lab.send(0.0)
    lab.send(100.0)
    lab.table.expire(120.0)
    assert lab.table.count == 1
    assert lab.table.due_at == 220.0
    lab.table.expire(220.0)
    assert (lab.table.count, len(lab.released), lab.endpoint.sessions) == (0, 1, {})


def test_client_that_sent_once_is_forgotten_sooner() -> None:
    lab = Lab(config("a", idle_s=350))
    lab.send(0.0)
    lab.table.expire(ONCE_S)
    assert lab.table.count == 0
    short = Lab(config("a", idle_s=5))
    short.send(0.0)
    assert short.table.due_at == 5.0


def test_limit_refuses_counts_and_harms_nobody() -> None:
    lab = Lab(config("a", limit=3))
    for port in range(3):
        lab.send(0.0, ("203.0.113.1", port))
        lab.send(1.0, ("203.0.113.1", port))
    assert lab.send(100.0) is None
    assert (lab.table.count, lab.endpoint.listener.refused) == (3, 1)
    assert lab.send(100.0, ("203.0.113.1", 2)) == "a"


def test_who_sent_once_gives_way_when_there_are_too_many() -> None:
    lab = Lab(config("a", limit=3))
    lab.send(0.0, ("203.0.113.1", 1))
    lab.send(1.0, ("203.0.113.1", 1))  # a conversation
    lab.send(0.5, ("203.0.113.1", 2))
    lab.send(0.6, ("203.0.113.1", 3))
    assert lab.send(0.6 + SPARE_ONCE_S - 0.2) is None
    assert lab.send(0.6 + SPARE_ONCE_S) == "a"
    assert lab.table.count == 3
    assert ("203.0.113.1", 1) in lab.endpoint.sessions
    assert ("203.0.113.1", 2) not in lab.endpoint.sessions


def test_flood_of_clients_is_bounded_in_memory() -> None:
    lab = Lab(config("a", limit=50))
    for turn in range(20_000):
        lab.send(turn * 0.001, (f"203.0.{turn // 250 % 250}.{turn % 250}", turn))
    assert lab.table.count == 50
    heap = len(lab.table._heap)
    assert heap <= 2 * 50 + sessions.SPARE_ENTRIES + 1
    assert lab.endpoint.listener.refused > 10_000


def test_source_ranges_of_both_families() -> None:
    networks = Networks(("10.0.0.0/8", "192.0.2.4/32", "2001:db8::/32"))
    assert [ip in networks for ip in ("10.255.0.1", "192.0.2.4", "2001:db8:1::9")] == [True] * 3
    assert [ip in networks for ip in ("11.0.0.1", "192.0.2.5", "2001:db9::1")] == [False] * 3
    assert "192.0.2.4" in Networks(("0.0.0.0/0",))
    assert "::1" not in Networks(("0.0.0.0/0",))


def test_denied_client_is_counted_and_gets_nothing() -> None:
    lab = Lab(config("a", ranges=("192.0.2.0/24",)))
    assert lab.send(0.0) is None
    assert (lab.endpoint.listener.denied, lab.table.count) == (1, 0)


def test_unreadable_ranges_change_nothing() -> None:
    lab = Lab(config("a"))
    lab.send(0.0)
    with pytest.raises(OSError, match="illegal IP address"):
        lab.table.configure(config("a", ranges=("nonsense/8",)), 1.0)
    assert lab.send(1.0) == "a"


def test_datagram_from_our_own_port_does_not_go_round_for_ever() -> None:
    lab = Lab(config("a"))
    assert lab.send(0.0, BIND) is None
    assert lab.endpoint.listener.denied == 1


def test_affinity_keeps_a_client_for_its_time() -> None:
    lab = Lab(config("a", "b", affinity_s=60, idle_s=10))
    assert {lab.send(0.0, ("203.0.113.9", port)) for port in range(5)} == {"a"}
    lab.table.expire(10.0)
    assert lab.table.count == 0
    assert lab.send(59.0, ("203.0.113.9", 77)) == "a"
    lab.table.expire(69.0)
    assert lab.send(59.0 + 60.0, ("203.0.113.9", 78)) == "b"


def test_affinity_lasts_as_long_as_a_session_does() -> None:
    lab = Lab(config("a", "b", affinity_s=1, idle_s=100))
    lab.send(0.0)
    lab.send(50.0)
    assert lab.send(60.0, (CLIENT[0], 1)) == "a"


def test_affinity_of_very_many_clients_is_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MOST_PINS", 5)
    lab = Lab(config("a", "b", affinity_s=60))
    lab.clients(20)
    assert len(lab.table.groups["g"].pins) == 5
    assert len({lab.send(0.0, ("203.0.113.77", port)) for port in range(6)}) == 1


def test_failing_target_gets_no_new_session() -> None:
    lab = Lab(config("a", "b"))
    lab.table.configure(config("a", "b", down="a"), 1.0)
    assert lab.clients(4) == ["b"] * 4


def test_nobody_serves() -> None:
    lab = Lab(config("a", down="a"))
    assert lab.send(0.0) is None
    assert lab.endpoint.listener.unserved == 1


@pytest.mark.parametrize("gone", [False, True], ids=["failing", "removed"])
def test_leaving_target_keeps_who_it_answers(gone: bool) -> None:
    lab = Lab(config("a", "b", drain_s=300))
    session = lab.session(0.0)
    lab.table.configure(config("b", drain_s=300) if gone else config("a", "b", down="a"), 1.0)
    for turn in range(1, 290):
        assert lab.session(float(turn)) is session
        assert session is not None
        session.answered_at = turn + 0.5


@pytest.mark.parametrize("gone", [False, True], ids=["failing", "removed"])
def test_silence_of_a_leaving_target_moves_the_client(gone: bool) -> None:
    lab = Lab(config("a", "b"))
    assert lab.send(0.0) == "a"
    lab.table.configure(config("b") if gone else config("a", "b", down="a"), 50.0)
    assert lab.send(60.0) == "a"  # long idle is no silence
    assert lab.send(60.0 + SILENCE_S - 0.1) == "a"
    assert lab.send(60.0 + SILENCE_S) == "b"
    assert len(lab.released) == 1


def test_silence_changes_nothing_while_nobody_else_could_serve() -> None:
    lab = Lab(config("a", drain_s=300))
    lab.send(0.0)
    lab.table.configure(config("a", down="a"), 1.0)
    assert [lab.send(float(t)) for t in range(2, 9)] == ["a"] * 7


def test_drain_timeout_ends_sessions() -> None:
    lab = Lab(config("a", "b", drain_s=20))
    lab.send(0.0)
    lab.table.configure(config("a", "b", down="a", drain_s=20), 5.0)
    lab.send(6.0)
    assert lab.table.due_at == 25.0
    lab.table.expire(25.0)
    assert lab.table.count == 0
    assert lab.send(26.0) == "b"


def test_target_that_recovers_keeps_its_sessions() -> None:
    lab = Lab(config("a", "b", drain_s=20))
    session = lab.session(0.0)
    lab.table.configure(config("a", "b", down="a", drain_s=20), 5.0)
    lab.table.configure(config("a", "b", drain_s=20), 10.0)
    assert lab.session(60.0) is session


def test_removed_target_is_forgotten_with_its_last_session() -> None:
    lab = Lab(config("a", "b", drain_s=20))
    lab.send(0.0)
    lab.table.configure(config("b", drain_s=20), 1.0)
    assert len(lab.table.groups["g"].targets) == 2
    lab.table.expire(21.0)
    lab.table.configure(config("b", drain_s=20), 22.0)
    assert len(lab.table.groups["g"].targets) == 1


def test_other_group_of_the_listener_takes_over_within_the_drain_timeout() -> None:
    lab = Lab(config("a", drain_s=20))
    lab.send(0.0)
    lab.table.configure(config("b", group="other"), 5.0)
    assert lab.send(6.0) == "a"
    assert lab.send(26.0) == "b"
    lab.table.configure(config("b", group="other"), 27.0)
    assert set(lab.table.groups) == {"other"}


def test_refused_client_goes_elsewhere_also_by_hash() -> None:
    lab = Lab(config("a", "b", balance="source_hash", affinity_s=60))
    session = lab.session(0.0)
    assert session is not None
    first = letter(session)
    lab.table.refuse(session)
    assert lab.send(0.1) not in (first, None)
    assert session in lab.released


def test_refused_by_the_only_target_is_tried_again() -> None:
    lab = Lab(config("a"))
    session = lab.session(0.0)
    assert session is not None
    lab.table.refuse(session)
    again = lab.session(0.1)
    assert again is not None
    assert again is not session
    assert letter(again) == "a"


def test_port_that_goes_ends_its_sessions_and_keeps_its_totals() -> None:
    lab = Lab(config("a"))
    lab.send(0.0)
    lab.endpoint.listener.bytes_in = 7
    lab.table.configure(wire.Config(), 1.0)
    assert (lab.table.count, lab.table.endpoints, len(lab.released)) == (0, {}, 1)
    lab.table.configure(config("a"), 2.0)
    assert lab.endpoint.listener.bytes_in == 7
