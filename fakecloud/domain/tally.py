"""What a load balancer has carried on this host, over all of its processes.

A process counts from 0 and forgets everything when it ends, so every reading is kept here, and
the last one of a process that ends is added to what was before. The file outlives the process,
the server and the load balancer: whoever bills reads it at leisure and then forgets it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from fakecloud import files, model

log = structlog.get_logger(__name__)

MOST_PAST: Final = 2000
"""So many names are remembered that nothing runs under any more; targets come and go."""


Kind = Literal["listener", "target_group", "target"]


class Amount(msgspec.Struct, frozen=True, array_like=True):
    """What was counted of one name."""

    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    requests: int = 0
    denied: int = 0
    failed: int = 0

    def plus(self, other: Amount) -> Amount:
        """Return the sum."""
        return Amount(*(a + b for a, b in zip(_parts(self), _parts(other), strict=True)))

    def minus(self, other: Amount) -> Amount:
        """Return the difference."""
        return Amount(*(a - b for a, b in zip(_parts(self), _parts(other), strict=True)))

    def fell(self, before: Amount) -> bool:
        """Return whether a counter is lower than before: it was begun anew."""
        return any(a < b for a, b in zip(_parts(self), _parts(before), strict=True))


def together(told: Iterable[list[model.Counters] | None]) -> list[model.Counters] | None:
    """Return what several data planes say of one load balancer; None if none ever had it."""
    known = [rows for rows in told if rows is not None]
    return [row for rows in known for row in rows] if known else None


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One line of a process's statistics: what it stands for, and what counts of it.

    since: what the process had counted when it began to stand for this; now: connections.
    """

    kind: Kind
    name: str
    last: Amount = Amount()
    since: Amount = Amount()
    now: int = 0
    connect_ms: int | None = None
    response_ms: int | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `past`: by kind and name, of ended processes; `processes`: rows by number."""

    epoch: str
    gaps: int = 0
    past: dict[str, Amount] = {}
    processes: dict[str, dict[str, Row]] = {}


Names = Mapping[tuple[str, str], tuple[Kind, str]]


class Tally:
    """Totals that never fall. Not thread-safe: its load balancer takes turns."""

    def __init__(self, path: Path) -> None:
        """Go on with what the file says, if it is there."""
        self._path = path
        found = _load(path)
        self._epoch = found.epoch
        self._gaps = found.gaps
        self._past = dict(found.past)
        self._processes = {int(number): rows for number, rows in found.processes.items()}

    def keep(self, living: Iterable[int]) -> None:
        """Count as ended, unread, every process but these."""
        for number in self._processes.keys() - set(living):
            self.ended(number, complete=False)

    def begin(self, number: int) -> None:
        """Expect readings of a process that has just started."""
        self._processes[number] = {}

    def read(self, number: int, rows: Iterable[Mapping[str, str]], names: Names) -> None:
        """Take the statistics of a process, in columns as HAProxy calls them.

        names: what its lines stand for now.
        """
        before = self._processes.get(number, {})
        after: dict[str, Row] = {}
        for row in rows:
            key = f"{row['pxname']}/{row['svname']}"
            known = before.get(key)
            meant = names.get((row["pxname"], row["svname"]))
            if meant is None and known is not None:
                meant = (known.kind, known.name)
            if meant is not None:
                after[key] = self._next(known, row, *meant)
        for key in before.keys() - after.keys():  # a server that was deleted
            self._settle(before[key])
        self._processes[number] = after

    def ended(self, number: int, *, complete: bool) -> None:
        """Add what a process counted to the past. complete: it was read when it was done."""
        rows = self._processes.pop(number, None)
        if rows is None:
            return
        for row in rows.values():
            self._settle(row)
        self._gaps += not complete

    def totals(self, names: Names) -> list[model.Counters]:
        """Return the totals: of every listener there was, and of all else that `names` has."""
        shown: dict[str, tuple[Amount, Row | None, int]] = {
            key: (amount, None, 0) for key, amount in self._past.items()
        }
        for number in sorted(self._processes):
            for row in self._processes[number].values():
                amount, _, now = shown.get(_key(row), (Amount(), None, 0))
                total = amount.plus(row.last.minus(row.since))
                shown[_key(row)] = (total, row, now + row.now)
        wanted = {f"{kind} {name}" for kind, name in names.values()}
        return [
            self._counters(key, *shown[key])
            for key in shown
            if key.startswith("listener ") or key in wanted
        ]

    def save(self) -> None:
        """Write the file; on a full disk what was read stays in memory."""
        if len(self._past) > MOST_PAST:
            targets = [key for key in self._past if key.startswith("target ")]
            for key in targets[: len(self._past) - MOST_PAST]:
                del self._past[key]
        record = Record(
            epoch=self._epoch,
            gaps=self._gaps,
            past=self._past,
            processes={str(number): rows for number, rows in self._processes.items()},
        )
        try:
            files.write(self._path, msgspec.json.encode(record))
        except OSError as error:
            log.warning("counters_not_saved", file=self._path.name, reason=error.strerror)

    def _next(self, known: Row | None, row: Mapping[str, str], kind: Kind, name: str) -> Row:
        last = _amount(row)
        since = known.since if known is not None else Amount()
        if known is not None and last.fell(known.last):
            self._settle(known)
            since = Amount()
        elif known is not None and (known.kind, known.name) != (kind, name):
            # The same line of the running process under another name from now on.
            self._settle(known)
            since = known.last
        used = last.connections > 0 and kind == "target"
        return Row(
            kind=kind,
            name=name,
            last=last,
            since=since,
            now=int(row["scur"] or 0),
            connect_ms=int(row["ctime"]) if used and row["ctime"] else None,
            response_ms=int(row["rtime"] or 0) if used and row["mode"] == "http" else None,
        )

    def _settle(self, row: Row) -> None:
        key = _key(row)
        self._past[key] = self._past.get(key, Amount()).plus(row.last.minus(row.since))

    def _counters(self, key: str, amount: Amount, row: Row | None, now: int) -> model.Counters:
        kind, _, name = key.partition(" ")
        return model.Counters(
            kind=msgspec.convert(kind, Kind),
            name=name,
            connections=now,
            connections_total=amount.connections,
            bytes_in=amount.bytes_in,
            bytes_out=amount.bytes_out,
            requests_total=amount.requests,
            denied_total=amount.denied,
            failed_total=amount.failed,
            connect_ms=None if row is None else row.connect_ms,
            response_ms=None if row is None else row.response_ms,
            epoch=self._epoch,
            gaps=self._gaps,
        )


def finished(path: Path) -> list[model.Counters] | None:
    """Return the totals of a load balancer that is gone; None if there is no file of it."""
    return Tally(path).totals({}) if path.exists() else None


def _load(path: Path) -> Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Record(epoch=secrets.token_hex(6))


def _key(row: Row) -> str:
    return f"{row.kind} {row.name}"


def _parts(amount: Amount) -> tuple[int, ...]:
    return msgspec.structs.astuple(amount)


def _amount(row: Mapping[str, str]) -> Amount:
    def number(*columns: str) -> int:
        return sum(int(row.get(column) or 0) for column in columns)

    return Amount(
        connections=number("stot"),
        bytes_in=number("bin"),
        bytes_out=number("bout"),
        requests=number("req_tot"),
        denied=number("dcon", "dses", "dreq"),
        failed=number("econ"),
    )
