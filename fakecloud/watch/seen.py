"""The living load balancers as the event history last told them: answers without a query.

Fed by the watch hub alone, in its event loop. What doesn't fit isn't kept; whoever asks for it
asks the database.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fakecloud.domain import documents
from fakecloud.store import events, load_balancers
from fakecloud.store.database import Connection
from fakecloud.store.events import Event

MOST_BYTES: Final = 64 << 20


class Document(msgspec.Struct, frozen=True, gc=False):
    """A load balancer as the API shows it: its id, its entity tag, and the encoded document."""

    id: str
    etag: bytes
    body: bytes


class _Status(msgspec.Struct):
    generation: int


class _Head(msgspec.Struct):
    name: str
    status: _Status


_HEAD: Final = msgspec.json.Decoder(_Head)


class Seen:
    """Documents by project and name or id, of at most `most_bytes` together."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Know nothing yet."""
        self._most_bytes = most_bytes
        self._bytes = 0
        self._version = 0
        self._documents: dict[tuple[str, str], Document] = {}  # under the name and under the id
        self._names: dict[str, tuple[str, str]] = {}  # by id

    def load(self, connection: Connection) -> int:
        """Take everything from one snapshot; return its resource version."""
        self._documents, self._names, self._bytes = {}, {}, 0
        self._version = events.current_version(connection)
        for lb in load_balancers.each_living(connection):
            body = msgspec.json.encode(documents.load_balancer(lb))
            document = Document(id=lb.id, etag=documents.etag(lb).encode(), body=body)
            self._keep(lb.project, lb.name, document)
        return self._version

    def apply(self, event: Event) -> None:
        """Take one change; what is older than the snapshot is known already."""
        if event.kind != "load_balancer" or event.resource_version <= self._version:
            return
        self._drop(event.object_id, event.project)
        if event.type != "DELETED":
            body = event.object.encode()
            head = _HEAD.decode(body)
            etag = f'"{head.status.generation}.{event.resource_version}"'.encode()
            document = Document(id=event.object_id, etag=etag, body=body)
            self._keep(event.project, head.name, document)

    def find(self, project: str, name: str) -> Document | None:
        """Return the load balancer of that name or id, None if it isn't known here."""
        return self._documents.get((project, name))

    def _keep(self, project: str, name: str, document: Document) -> None:
        if self._bytes + len(document.body) > self._most_bytes:
            return
        self._bytes += len(document.body)
        self._documents[project, name] = self._documents[project, document.id] = document
        self._names[document.id] = (project, name)

    def _drop(self, id: str, project: str) -> None:
        old = self._documents.pop((project, id), None)
        if old is not None:
            self._bytes -= len(old.body)
            del self._documents[self._names.pop(id)]
