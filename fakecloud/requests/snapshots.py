"""Copies of the whole database, made while it serves.

Only an embedded (SQLite) database is copied here; PostgreSQL has pg_dump for that. Restoring
replaces the file, which a running server can't do under itself: the cloud says how it's done.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fakecloud.clock import Clock
from fakecloud.errors import NotFound, NotYetOffered
from fakecloud.ids import new_id
from fakecloud.store.database import Database

_ID: Final = re.compile(r"snap_[0-9a-f]{23}")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A copy: where it is, how large, and when it was made (wall time)."""

    id: str
    file: Path
    bytes: int
    created_at: datetime


class Snapshots:
    """Makes and lists copies in one directory."""

    def __init__(self, database: Database, directory: Path, clock: Clock) -> None:
        """Keep copies of `database` in `directory`."""
        self._database = database
        self._directory = directory
        self._clock = clock

    def create(self) -> Snapshot:
        """Copy the database as it is now. Raises: NotYetOffered on PostgreSQL, Unavailable."""
        if not self._database.is_sqlite:
            raise NotYetOffered(
                "snapshots are made of an embedded database only; for this one use "
                "`pg_dump --format=custom` and `pg_restore`"
            )
        id = new_id("snap", self._clock.wall())
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database.copy_to(self._file(id))
        return self.find(id)

    def all(self) -> list[Snapshot]:
        """Return every snapshot, newest first."""
        found = [path.stem for path in self._directory.glob("snap_*.db")]
        return [self.find(id) for id in sorted(found, reverse=True) if _ID.fullmatch(id)]

    def find(self, id: str) -> Snapshot:
        """Return one snapshot. Raises: NotFound."""
        file = self._file(id)
        if not _ID.fullmatch(id) or not file.exists():
            raise NotFound(f"there is no snapshot {id!r}")
        seen = file.stat()
        made = datetime.fromtimestamp(seen.st_mtime, UTC)
        return Snapshot(id=id, file=file, bytes=seen.st_size, created_at=made)

    def delete(self, id: str) -> None:
        """Remove one snapshot. Raises: NotFound."""
        self.find(id).file.unlink(missing_ok=True)

    def restore(self, id: str) -> None:
        """Say what must be done. Raises: NotFound, NotYetOffered always."""
        file = self.find(id).file
        raise NotYetOffered(
            f"a running server can't replace its own database: stop it, copy {file} over "
            f"{self._database.url.database}, remove its -wal and -shm files, and start it again"
        )

    def _file(self, id: str) -> Path:
        return self._directory / f"{id}.db"
