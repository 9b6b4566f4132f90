"""What one process remembers of its clients, told to the next (pure).

HAProxy's own way, a peer, hands nothing over before 2.8, and from 2.8 on only when the old
process stops softly, which would close the socket that its counters are read from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fakecloud.haproxy import config, words

Ids = Mapping[tuple[str, str], str]
"""Server number by backend and server name."""


def server_ids(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """Return the servers' numbers from `show servers state`."""
    return {(row["be_name"], row["srv_name"]): row["srv_id"] for row in rows}


def pairs(old: config.Config, new: config.Config) -> Iterator[tuple[words.Word, words.Word]]:
    """Yield the names of backends, old and new, that remember the same clients."""
    for after in new.backends:
        for before in old.backends:
            same = (before.group, before.mode) == (after.group, after.mode)
            if same and None not in (before.affinity_s, after.affinity_s):
                yield before.name, after.name


def commands(
    old: words.Word,
    new: words.Word,
    entries: Iterable[Mapping[str, str]],
    had: Ids,
    has: Ids,
) -> Iterator[words.Line]:
    """Yield what makes backend `new` of one process remember the `entries` of `old` of another.

    Clients of servers that are gone are forgotten. An entry lives its full time again.
    """
    names = {number: name for (backend, name), number in had.items() if backend == old}
    for entry in entries:
        number = has.get((new, names.get(entry.get("server_id", ""), "")))
        if number is not None:
            yield words.line(*("set", "table", new, "key", entry["key"]), "data.server_id", number)
