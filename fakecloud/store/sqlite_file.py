"""The file of an SQLite database, which nobody may take away or replace under the server.

Open connections would go on with the file that has lost its name, and what they write would be
gone with them; new ones would make an empty one, and their log would not belong to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from fakecloud.errors import StartError, Unavailable


class SqliteFile:
    """One file, recognised by its inode."""

    def __init__(self, path: Path) -> None:
        """Look at `path`, made if there is none. Raises: StartError."""
        self._path = path
        try:
            path.touch(mode=0o600)
            self._known = self._identity()
        except OSError as error:
            raise StartError(f"{path}: can't be opened: {error.strerror}") from None

    def check(self) -> None:
        """Raise Unavailable unless the path still leads to the same file."""
        try:
            same = self._identity() == self._known
        except OSError:
            same = False
        if not same:
            raise Unavailable(
                f"the database can't be used now: {self._path} was removed or replaced; put it "
                "back, or restart the server to go on with what is there"
            )

    def check_writable(self) -> None:
        """Raise Unavailable unless it is the same file, and a new connection could write to it.

        SQLite would open it for reading only, and stay so when it can be written again.
        """
        self.check()
        if not os.access(self._path, os.W_OK):
            raise Unavailable(
                f"the database can't be used now: {self._path} is read-only; make it writable"
            )

    def _identity(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_dev, found.st_ino
