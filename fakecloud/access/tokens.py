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
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final

from fakecloud.access.quotas import Quotas
from fakecloud.clock import Clock, rfc3339
from fakecloud.domain import scopes
from fakecloud.errors import NotFound, StartError, TokenExpired, TokenRevoked
from fakecloud.ids import new_id
from fakecloud.resources import Token
from fakecloud.store import projects
from fakecloud.store import tokens as rows
from fakecloud.store.database import Database

LENGTH: Final = 64
PREFIX: Final = 8
_ALPHABET = string.ascii_letters + string.digits
_CACHE_S = 60.0
_CACHE_SHARED_S = 0.9
"""Where other servers may revoke a token: it must be of no use everywhere within a second."""
_CACHE_SIZE = 10_000


def new_secret() -> str:
    """Return a fresh token of 64 letters and digits."""
    return "fc" + "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH - 2))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Authority:
    """Makes tokens, and answers whom one belongs to, from memory where it can."""

    def __init__(self, database: Database, clock: Clock, quotas: Quotas | None = None) -> None:
        """Use `database` for what isn't remembered; count tokens in `quotas`."""
        self._database = database
        self._clock = clock
        self._quotas = quotas or Quotas()
        self._cache_s = _CACHE_S if database.is_sqlite else _CACHE_SHARED_S
        self._known: dict[str, tuple[Token, float]] = {}
        self._projects: dict[str, float] = {}
        self._changes = 0  # a look that began before a change isn't remembered
        self._used: dict[str, datetime] = {}
        self._lock = Lock()

    def remembered(self, secret: str) -> Token | None:
        """Return the token's owner if it was seen a moment ago; never touches the disk.

        Raises: TokenExpired.
        """
        known = self._known.get(_hash(secret))
        if known is None or known[1] < self._clock.monotonic():
            return None
        return self._valid(known[0])

    def find(self, secret: str) -> Token | None:
        """Return the token's owner, None if there is no such token.

        Raises: TokenExpired, TokenRevoked.
        """
        hash = _hash(secret)
        until, changes = self._clock.monotonic() + self._cache_s, self._changes
        with self._database.read() as connection:
            token = rows.find(connection, secret[:PREFIX], hash)
        if token is None:
            return None
        token = self._valid(token)
        with self._lock:
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            if changes == self._changes:
                self._known[hash] = (token, until)
        return token

    def claimed(self, secret: str) -> Token | None:
        """Return whose token this is, valid or not, or else whose begins like it; for the record."""
        with self._database.read() as connection:
            return rows.find(connection, secret[:PREFIX], _hash(secret)) or rows.like(
                connection, secret[:PREFIX]
            )

    def knows_project(self, id: str) -> bool | None:
        """Say from memory whether a project exists; None: ask `has_project`."""
        return True if self._projects.get(id, 0.0) >= self._clock.monotonic() else None

    def has_project(self, id: str) -> bool:
        """Say whether a project exists."""
        until, changes = self._clock.monotonic() + self._cache_s, self._changes
        with self._database.read() as connection:
            if projects.get(connection, id) is None:
                return False
        with self._lock:
            if len(self._projects) >= _CACHE_SIZE:
                self._projects.clear()
            if changes == self._changes:
                self._projects[id] = until
        return True

    def create(
        self,
        project: str,
        description: str,
        granted: frozenset[str],
        expires_at: datetime | None = None,
    ) -> tuple[Token, str]:
        """Make a token for a project; return it and its secret, which is seen only now.

        Raises: QuotaExceeded, NotFound when there is no such project.
        """
        secret = new_secret()
        return self.add(secret, project, description, granted, expires_at), secret

    def add(
        self,
        secret: str,
        project: str,
        description: str,
        granted: frozenset[str],
        expires_at: datetime | None = None,
    ) -> Token:
        """Let `secret` open a project, for what is `granted`. Raises: QuotaExceeded, NotFound."""
        now = self._clock.now()
        token = Token(
            id=new_id("tok", now),
            project=project,
            description=description,
            scopes=granted,
            prefix=secret[:PREFIX],
            created_at=now,
            expires_at=expires_at,
        )
        with self._database.write() as connection:
            if projects.get(connection, project) is None:
                raise NotFound(f"there is no project {project!r}")
            self._quotas.take(connection, project, "tokens")
            rows.add(connection, token, hash=_hash(secret))
        return token

    def revoke(self, project: str, id: str) -> None:
        """Let a token open nothing any more, once that is committed and `forget` was called.

        Raises: NotFound, also when it is revoked already.
        """
        with self._database.write() as connection:
            token = rows.get(connection, project, id)
            if token is None or token.revoked_at is not None:
                raise NotFound(f"there is no token {id!r}")
            rows.revoke(connection, id, self._clock.now())
            self._quotas.give_back(connection, project, "tokens")

    def forget(self) -> None:
        """Ask the database again about every token and project, after one of them changed."""
        with self._lock:
            self._changes += 1
            self._known.clear()
            self._projects.clear()

    def save_use(self) -> None:
        """Write when tokens were last used; housekeeping calls it, at most once a minute."""
        with self._lock:
            moments, self._used = self._used, {}
        moments = {id: moments[id] for id in list(moments)}  # one more may still come in
        if moments:
            with self._database.write() as connection:
                rows.used(connection, moments)

    def _valid(self, token: Token) -> Token:
        if token.revoked_at is not None:
            raise TokenRevoked(f"token {token.prefix}… was revoked; ask for a new one")
        now = self._clock.now()
        if token.expires_at is not None and token.expires_at <= now:
            raise TokenExpired(
                f"token {token.prefix}… expired at {rfc3339(token.expires_at)}; ask for a new one"
            )
        self._used[token.id] = now
        return token


def ensure_admin(authority: Authority, database: Database, path: Path) -> None:
    """At the very first start make a token and write it to `path`, mode 0600.

    A token that is there already is kept and made valid: it may be another program's secret by
    now. The file comes first: a token that nobody can read would lock everybody out.
    Raises: StartError when the file can't be written or holds something else.
    """
    with database.read() as connection:
        if rows.exists(connection):
            return
    try:
        secret = _kept(path) or _written(path)
    except OSError as error:
        raise StartError(f"{path}: can't write the token there: {error.strerror}") from None
    authority.add(secret, "default", "made at the first start", frozenset({scopes.ADMIN}))


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
