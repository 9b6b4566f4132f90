"""Who may call: making tokens, and finding out whom one belongs to.

A token has 64 letters and digits (some 370 bits), so that a plain hash protects it at rest. The
first one is written to a file that only its owner can read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import string
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from fakecloud.clock import Clock
from fakecloud.errors import StartError
from fakecloud.model import Token
from fakecloud.store import tokens
from fakecloud.store.database import Database

LENGTH: Final = 64
_ALPHABET = string.ascii_letters + string.digits
_CACHE_S = 60.0
_CACHE_SIZE = 10_000


def new_secret() -> str:
    """Return a fresh token of 64 letters and digits."""
    return "fc" + "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH - 2))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Authority:
    """Answers whom a token belongs to, from memory where it can."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Use `database` for what isn't remembered."""
        self._database = database
        self._clock = clock
        self._known: dict[str, tuple[Token, float]] = {}
        self._lock = Lock()

    def remembered(self, secret: str) -> Token | None:
        """Return the token's owner if it was seen in the last minute; never touches the disk."""
        known = self._known.get(_hash(secret))
        if known is None or known[1] < self._clock.monotonic():
            return None
        return known[0]

    def find(self, secret: str) -> Token | None:
        """Return the token's owner, None if there is no such token."""
        hash = _hash(secret)
        with self._database.read() as connection:
            token = tokens.find(connection, hash)
        if token is not None:
            with self._lock:
                if len(self._known) >= _CACHE_SIZE:
                    self._known.clear()
                self._known[hash] = (token, self._clock.monotonic() + _CACHE_S)
        return token

    def create(self, project: str, description: str) -> str:
        """Make a token for a project and return it: the only time that it is seen."""
        secret = new_secret()
        self.add(secret, project, description)
        return secret

    def add(self, secret: str, project: str, description: str) -> None:
        """Let `secret` open a project."""
        token = Token(id="tok_" + secrets.token_hex(8), project=project, description=description)
        with self._database.write() as connection:
            tokens.add(
                connection,
                token,
                hash=_hash(secret),
                prefix=secret[:8],
                now=self._clock.now(),
            )


def ensure_admin(authority: Authority, database: Database, path: Path) -> None:
    """At the very first start make a token and write it to `path`, mode 0600.

    A token that is there already is kept and made valid: it may be another program's secret by
    now. The file comes first: a token that nobody can read would lock everybody out.
    Raises: StartError when the file can't be written or holds something else.
    """
    with database.read() as connection:
        if tokens.exists(connection):
            return
    try:
        secret = _kept(path) or _written(path)
    except OSError as error:
        raise StartError(f"{path}: can't write the token there: {error.strerror}") from None
    authority.add(secret, "default", "made at the first start")


def _kept(path: Path) -> str | None:
    """Return the token in the file, None if there is none. Raises: StartError, OSError."""
    try:
        found = path.read_bytes().strip().decode(errors="replace")
    except FileNotFoundError:
        return None
    if found and not (len(found) == LENGTH and found.isascii() and found.isalnum()):
        raise StartError(f"{path} holds something that is not a token; move it away")
    if found:
        with suppress(OSError):  # a mounted secret may be read-only
            path.chmod(0o600)
    return found or None


def _written(path: Path) -> str:
    secret = new_secret()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret
