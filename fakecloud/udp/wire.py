"""What a relay is told and tells, as text: one thing a line, words divided by blanks.

Nothing that a user wrote is in it: listeners and groups have generated names, addresses and
networks are parsed and written anew, the rest are numbers and words from tables.
"""

from __future__ import annotations

from collections.abc import Iterator

VERSION = "fakecloud-udp 1"
BALANCE = ("round_robin", "least_connections", "source_hash")
TRAFFIC = (
    "sessions_total",
    "datagrams_in",
    "datagrams_out",
    "bytes_in",
    "bytes_out",
    "denied",
    "refused",
    "unserved",
    "failed",
)
"""What is counted, of a listener and of a target, in the order of a line of counters.

denied: the client is not in the source ranges. refused: too many sessions. unserved: no target.
failed: the operating system or the target's host refused a datagram.
"""


class Target:
    """Where sessions go. `ready` False: it gets no new ones."""

    __slots__ = ("ip", "port", "ready", "weight")

    def __init__(self, ip: str, port: int, weight: int, ready: bool) -> None:
        self.ip = ip
        self.port = port
        self.weight = weight
        self.ready = ready

    @property
    def name(self) -> str:
        """Return what the target is known by in its group."""
        return f"{self.ip}@{self.port}"


class Group:
    """Targets that share a way to be chosen. `affinity_s` 0: a client may go anywhere."""

    __slots__ = ("affinity_s", "balance", "drain_s", "name", "targets")

    def __init__(
        self, name: str, balance: str, affinity_s: int, drain_s: int, targets: tuple[Target, ...]
    ) -> None:
        self.name = name
        self.balance = balance
        self.affinity_s = affinity_s
        self.drain_s = drain_s
        self.targets = targets


class Listener:
    """A port on the addresses `ips`, with at most `limit` sessions."""

    __slots__ = ("group", "idle_s", "ips", "limit", "name", "port")

    def __init__(
        self, name: str, port: int, group: str, idle_s: int, limit: int, ips: tuple[str, ...]
    ) -> None:
        self.name = name
        self.port = port
        self.group = group
        self.idle_s = idle_s
        self.limit = limit
        self.ips = ips


class Config:
    """All that a relay does. `ranges`: networks whose clients are served; `limit`: sessions."""

    __slots__ = ("groups", "limit", "listeners", "ranges")

    def __init__(
        self,
        listeners: tuple[Listener, ...] = (),
        groups: tuple[Group, ...] = (),
        ranges: tuple[str, ...] = (),
        limit: int = 0,
    ) -> None:
        self.listeners = listeners
        self.groups = groups
        self.ranges = ranges
        self.limit = limit

    def binds(self) -> list[tuple[str, int]]:
        """Return every address and port that takes datagrams."""
        return [(ip, listener.port) for listener in self.listeners for ip in listener.ips]


def render(config: Config) -> str:
    """Return `config` as text. Equal configurations give equal text."""
    return "".join(f"{line}\n" for line in _lines(config))


def parse(text: str) -> Config:
    """Return the configuration that `render` wrote. Raises: ValueError."""
    head, *lines = [line for line in text.splitlines() if line] or [""]
    if head != VERSION:
        raise ValueError(f"not the language {VERSION!r}: {head!r}")
    reader = _Reader()
    for line in lines:
        kind, *words = line.split()
        try:
            getattr(reader, f"on_{kind}")(*words)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(f"no such line: {line!r}") from None
    listeners, groups = tuple(reader.listeners.values()), tuple(reader.groups.values())
    return Config(listeners, groups, tuple(reader.ranges), reader.limit)


class _Reader:
    """Understands lines: one method for each kind. Raises: KeyError, TypeError, ValueError."""

    def __init__(self) -> None:
        self.limit = 0
        self.ranges: list[str] = []
        self.listeners: dict[str, Listener] = {}
        self.groups: dict[str, Group] = {}

    def on_limit(self, sessions: str) -> None:
        self.limit = int(sessions)

    def on_allow(self, network: str) -> None:
        self.ranges.append(network)

    def on_group(self, name: str, *words: str) -> None:
        balance, affinity, drain = _values(words, "balance", "affinity", "drain")
        if balance not in BALANCE:
            raise ValueError
        self.groups[name] = Group(name, balance, int(affinity), int(drain), ())

    def on_target(self, group: str, ip: str, port: str, *words: str) -> None:
        weight, state = _values(words, "weight", "state")
        target = Target(ip, int(port), int(weight), {"ready": True, "leaving": False}[state])
        self.groups[group].targets = (*self.groups[group].targets, target)

    def on_listener(self, name: str, port: str, *words: str) -> None:
        group, idle, limit = _values(words, "group", "idle", "limit")
        self.groups[group]
        self.listeners[name] = Listener(name, int(port), group, int(idle), int(limit), ())

    def on_bind(self, name: str, ip: str) -> None:
        listener = self.listeners[name]
        listener.ips = (*listener.ips, ip)


def _values(words: tuple[str, ...], *names: str) -> list[str]:
    """Return the values of `name value name value …`. Raises: ValueError."""
    if words[::2] != names or len(words) != 2 * len(names):
        raise ValueError
    return list(words[1::2])


def _lines(config: Config) -> Iterator[str]:
    yield VERSION
    yield f"limit {config.limit}"
    for network in config.ranges:
        yield f"allow {network}"
    for group in config.groups:
        yield (
            f"group {group.name} balance {group.balance}"
            f" affinity {group.affinity_s} drain {group.drain_s}"
        )
        for target in group.targets:
            state = "ready" if target.ready else "leaving"
            yield f"target {group.name} {target.ip} {target.port} weight {target.weight} state {state}"
    for one in config.listeners:
        yield (
            f"listener {one.name} {one.port} group {one.group} idle {one.idle_s} limit {one.limit}"
        )
        for ip in one.ips:
            yield f"bind {one.name} {ip}"
