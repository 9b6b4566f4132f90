"""Webhooks: news signed, sent, and sent again for a while.

Signed as Standard Webhooks say (standardwebhooks.com): `webhook-id`, `webhook-timestamp` and
`webhook-signature`, an HMAC-SHA256 of both and the body. An id is the same at every attempt, so a
receiver can drop repetitions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from datetime import timedelta
from typing import Any, Final, Protocol

import msgspec
import structlog

from fakecloud.clock import Clock, rfc3339
from fakecloud.domain.sealing import Seal
from fakecloud.errors import DataPlaneError, NotFound, QuotaExceeded
from fakecloud.ids import new_id
from fakecloud.store import webhooks as rows
from fakecloud.store.database import Connection, Database
from fakecloud.store.webhooks import Delivery, Webhook

MOST: Final = 100
LEASE: Final = timedelta(seconds=60)
PAUSES_S: Final = (5, 30, 300, 1800, 7200)
PREFIX: Final = "whsec_"

log = structlog.get_logger()


class Post(Protocol):
    """The door to other people's servers."""

    def send(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """Return the status of the answer to a POST. Raises: Undelivered."""


class Undelivered(Exception):
    """No answer came; the message says why."""


class Webhooks:
    """Where news go. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock, seal: Seal, post: Post) -> None:
        """Keep secrets sealed; send by `post`."""
        self._database = database
        self._clock = clock
        self._seal = seal
        self._post = post

    def put(
        self, project: str, name: str, url: str, *, enabled: bool, secret: str | None
    ) -> tuple[Webhook, str | None, bool]:
        """Create or replace a webhook; return it, its secret if that is new, and if it is.

        secret: None keeps the one that there is, or makes one. Raises: QuotaExceeded.
        """
        with self._database.write() as connection:
            before = rows.find(connection, project, name)
            if before is None and rows.count(connection, project) >= MOST:
                raise QuotaExceeded(
                    f"project {project!r} has {MOST} webhooks; delete some",
                    metric="webhooks",
                    limit=MOST,
                    in_use=MOST,
                )
            shown = secret
            if secret is None and before is None:
                shown = PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()
            context = f"webhook/{project}/{name}"
            made = Webhook(
                project=project,
                name=name,
                url=url,
                secret=before.secret
                if before and shown is None
                else self._seal.close(str(shown), context),
                enabled=enabled,
                created_at=before.created_at if before else self._clock.now(),
            )
            rows.put(connection, made)
        return made, shown, before is None

    def all(self, project: str) -> list[Webhook]:
        """Return every webhook of a project."""
        with self._database.read() as connection:
            return rows.of_project(connection, project)

    def find(self, project: str, name: str) -> tuple[Webhook, list[Delivery]]:
        """Return a webhook and its latest deliveries. Raises: NotFound."""
        with self._database.read() as connection:
            found = rows.find(connection, project, name)
            if found is None:
                raise NotFound(f"there is no webhook {name!r}")
            return found, rows.recent(connection, project, name, 20)

    def delete(self, project: str, name: str) -> None:
        """Forget a webhook and what it hasn't been told. Raises: NotFound."""
        with self._database.write() as connection:
            if not rows.remove(connection, project, name):
                raise NotFound(f"there is no webhook {name!r}")

    def tell(self, connection: Connection, project: str, type: str, data: dict[str, Any]) -> None:
        """Let every webhook of a project have news, in the transaction of what they are about."""
        wall = self._clock.wall()
        body = msgspec.json.encode(
            {"type": type, "timestamp": rfc3339(self._clock.now()), "data": data}, order="sorted"
        )
        rows.enqueue(
            connection,
            [
                Delivery(
                    id=new_id("msg", wall),
                    project=project,
                    webhook=one.name,
                    type=type,
                    body=body.decode(),
                    status="PENDING",
                    attempts=0,
                    due_at=wall,
                    created_at=wall,
                )
                for one in rows.of_project(connection, project)
                if one.enabled
            ],
        )

    def step(self) -> bool:
        """Make one attempt that is due; False if none is."""
        with self._database.write() as connection:
            found = rows.claim(connection, self._clock.wall(), LEASE)
            if found is None:
                return False
            to = rows.find(connection, found.project, found.webhook)
        status, answer = ("FAILED", "the webhook is gone") if to is None else self._try(to, found)
        due = self._clock.wall()
        if status == "PENDING":
            due += timedelta(seconds=PAUSES_S[found.attempts - 1])
        with self._database.write() as connection:
            rows.settle(connection, found, status, due, answer)
        log.info("webhook_attempt", id=found.id, webhook=found.webhook, status=status)
        return True

    def _try(self, to: Webhook, of: Delivery) -> tuple[str, str]:
        try:
            secret = self._seal.open(to.secret, f"webhook/{to.project}/{to.name}")
        except DataPlaneError as error:
            return "FAILED", error.message
        body = of.body.encode()
        stamp = str(int(self._clock.wall().timestamp()))
        headers = {
            "content-type": "application/json",
            "webhook-id": of.id,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(secret, of.id, stamp, body),
        }
        try:
            status = self._post.send(to.url, headers, body)
        except Undelivered as error:
            answer = str(error)[:200]
        else:
            if 200 <= status < 300:
                return "DELIVERED", f"HTTP {status}"
            answer = f"HTTP {status}"
        return ("FAILED" if of.attempts > len(PAUSES_S) else "PENDING"), answer


def signature(secret: str, id: str, timestamp: str, body: bytes) -> str:
    """Return the `webhook-signature` of a message."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
