"""The one way to change something: idempotency key, change and audit record in one transaction.

A handler takes a `Change` and passes what it does to `run`:

    def delete(name: Name, cloud: CloudParts, caller: Caller, change: Change) -> Response:
        return change.run(lambda: replies.operation(cloud.desk.delete(caller.project, name), 202))

An `async def` handler awaits `change.soon(act)`, which shares its commit with other requests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Annotated, Final

import msgspec
import structlog
from fastapi import Depends, Header, Request
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api.context import Caller, Cloud, CloudParts
from fakecloud.api.writer import Change as Wanted
from fakecloud.requests.wishes import Done, Put
from fakecloud.resources import Token
from fakecloud.store import audit, database, events, fences, idempotency
from fakecloud.store.database import Connection

log = structlog.get_logger()

KEEP_KEYS: Final = timedelta(hours=48)
_METHODS: Final = frozenset({"PUT", "POST", "PATCH", "DELETE"})
_NOT_KEPT: Final = frozenset({"content-length"})
FENCE: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._/-]{0,127}):(0|[1-9][0-9]{0,17})$")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')


class Mutation:
    """One request that changes something."""

    def __init__(
        self, cloud: Cloud, caller: Token, request: Request, body: bytes, key: str | None
    ) -> None:
        """Run it for `caller`, once per `key`. Raises: FenceInvalid."""
        self._cloud = cloud
        self._caller = caller
        self._request = request
        self._body = body
        self._key = key
        fence = request.headers.get("fakecloud-fence")
        self._fence = None if fence is None else parse_fence(fence)
        self._changed = True

    def unchanged(self) -> None:
        """Say, while it runs, that there was nothing to do: no audit record is written."""
        self._changed = False

    def run(
        self, act: Callable[[], Response], *, kept: Callable[[Response], bytes] | None = None
    ) -> Response:
        """Return what `act` answers, or what it answered to the same request before.

        `act` runs in the transaction; whatever it writes through `Database.write` commits with
        the key and the audit record, or not at all. Its answer is 2xx, or it raises a Problem.
        `kept` makes the body that a repetition gets, if that differs: secrets are seen once.
        Raises: what `act` raises, IdempotencyKeyReused, IdempotencyInProgress.
        """
        try:
            return self._run(act, kept)
        except errors.Unavailable as error:
            raise self._in_the_way(error) from error

    async def soon(
        self,
        act: Callable[[], Response],
        put: Put | None = None,
        answer: Callable[[Done], Response] | None = None,
    ) -> Response:
        """Do as `run` does, in a thread, with one commit for all requests that wait.

        put: the load balancer that `act` puts; that may be done without it, and is answered by
        `answer` then. Raises: as `run`.
        """

        def done(connection: Connection, what: Done, diff: str | None) -> Response:
            assert answer is not None
            self._check_fence(connection)
            self._changed = True
            response = answer(what)
            if self._changed:
                self._record(connection, response, diff)
            return response

        change = Wanted(partial(self._run, act, None), put, None if put is None else done)
        try:
            return await self._cloud.writer.make(change)
        except errors.Unavailable as error:
            raise self._in_the_way(error) from error

    def _in_the_way(self, error: errors.Unavailable) -> errors.Problem:
        """Return what to say when nothing could be written."""
        if self._key is not None and database.is_lock_timeout(error):
            return errors.IdempotencyInProgress(
                "an earlier request, perhaps with this key, is still under way"
            )
        return errors.Unavailable(error.detail)

    def _run(
        self, act: Callable[[], Response], kept: Callable[[Response], bytes] | None
    ) -> Response:
        with self._cloud.database.write() as connection:
            answered = self._answered(connection)
            if answered is not None:
                return answered
            self._check_fence(connection)
            before = events.count(connection)
            self._changed = True
            response = act()
            diff = events.digest(connection, before)
            assert 200 <= response.status_code < 300, response.status_code
            if self._key is not None:
                self._keep(connection, response, kept)
            if self._changed:
                self._record(connection, response, diff)
        return response

    def _check_fence(self, connection: Connection) -> None:
        """Raises: StaleFence if a later writer of that name was here."""
        if self._fence is None:
            return
        name, number = self._fence
        wall = self._cloud.clock.wall()
        seen = fences.raise_to(connection, self._caller.project, name, number, wall)
        if seen > number:
            raise errors.StaleFence(
                f"Fakecloud-Fence: {name} is at {seen}, this request is of {number}; "
                "whoever sent it must stop writing"
            )

    def _record(self, connection: Connection, response: Response, diff: str | None) -> None:
        entry = _entry(self._cloud, self._caller, self._request, response.status_code)
        audit.append(connection, msgspec.structs.replace(entry, diff_sha256=diff))

    def run_outside(self, act: Callable[[], Response]) -> Response:
        """Return what `act` answers; the audit record follows it in a transaction of its own.

        For what no transaction of the database can hold, such as a copy of it. Keys aren't kept.
        """
        with self._cloud.database.write() as connection:
            self._check_fence(connection)
        response = act()
        with self._cloud.database.write() as connection:
            status = response.status_code
            audit.append(connection, _entry(self._cloud, self._caller, self._request, status))
        return response

    def _answered(self, connection: Connection) -> Response | None:
        if self._key is None:
            return None
        since = self._cloud.clock.wall() - idempotency.KEEP
        answer = idempotency.find(connection, self._caller.project, self._key, since)
        if answer is None:
            return None
        if answer.fingerprint != self._fingerprint():
            raise errors.IdempotencyKeyReused(
                "Idempotency-Key: another request was sent with this key; make a new one"
            )
        headers = answer.headers | {"idempotency-replayed": "true"}
        return Response(answer.body.encode(), answer.status, headers)

    def _keep(
        self,
        connection: Connection,
        response: Response,
        kept: Callable[[Response], bytes] | None,
    ) -> None:
        assert self._key is not None
        body = bytes(response.body) if kept is None else kept(response)
        answer = idempotency.Answer(
            fingerprint=self._fingerprint(),
            status=response.status_code,
            headers={k: v for k, v in response.headers.items() if k not in _NOT_KEPT},
            body=body.decode(),
        )
        wall = self._cloud.clock.wall()
        idempotency.keep(connection, self._caller.project, self._key, answer, wall)

    def _fingerprint(self) -> str:
        """Return what makes this request itself: equal for two of the same meaning."""
        try:
            body = msgspec.json.encode(msgspec.json.decode(self._body), order="sorted")
        except msgspec.MsgspecError:
            body = self._body
        request = self._request
        parts = (request.method, request.url.path, request.headers.get("if-match", ""))
        return hashlib.sha256(msgspec.json.encode(parts) + body).hexdigest()


async def _mutation(
    request: Request,
    cloud: CloudParts,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(
            description='at most 255 printable characters, "quoted" or bare; kept for 48 h',
            json_schema_extra={"pattern": "^[!#-~]([ -~]{0,253}[!-~])?$"},
        ),
    ] = None,
    _fence: Annotated[
        str | None,
        Header(
            alias="Fakecloud-Fence",
            description="NAME:NUMBER of who writes, e.g. a lease and its transitions; 409 if a "
            "higher number was seen",
            json_schema_extra={"pattern": FENCE.pattern},
        ),
    ] = None,
) -> Mutation:
    key = None if idempotency_key is None else _parse_key(idempotency_key)
    return Mutation(cloud, caller, request, await request.body(), key)


Change = Annotated[Mutation, Depends(_mutation)]


def is_one(request: Request) -> bool:
    """Say whether a request means to change something in the API."""
    return request.method in _METHODS and request.scope["path"].startswith("/v1/")


def is_refusal(status: int) -> bool:
    """Say whether a status is the caller's doing. 429 isn't recorded: it would be no limit."""
    return (400 <= status < 500 and status != 429) or status == 507


def record_refusal(cloud: Cloud, request: Request, status: int) -> None:
    """Write the audit record of a refused change, if it is known whose it was."""
    try:
        caller = getattr(request.state, "caller", None) or _owner(cloud, request)
        if caller is not None:
            with cloud.database.write() as connection:
                audit.append(connection, _entry(cloud, caller, request, status))
    except errors.Unavailable as error:
        log.warning("refusal_not_recorded", request_id=request.state.request_id, reason=str(error))


def _owner(cloud: Cloud, request: Request) -> Token | None:
    """Return whose token it is, or claims to be, of a request refused before anybody asked."""
    secret = request.headers.get("authorization", "").partition(" ")[2].strip()
    return cloud.authority.claimed(secret) if secret else None


def _entry(cloud: Cloud, caller: Token, request: Request, status: int) -> audit.Entry:
    state = request.state
    return audit.Entry(
        at=cloud.clock.now(),
        project=caller.project,
        token_id=caller.id,
        client=request.client.host if request.client else "",
        method=request.method,
        path=request.scope["path"][:1000],
        status=status,
        code=getattr(state, "problem", None) if status >= 400 else None,
        request_id=state.request_id,
        body_sha256=state.body_digest.hexdigest(),
        fault_id=getattr(state, "fault", None),
    )


def parse_fence(text: str) -> tuple[str, int]:
    """Return name and number of a fence. Raises: FenceInvalid."""
    found = FENCE.fullmatch(text)
    if found is None:
        raise errors.FenceInvalid(
            "Fakecloud-Fence is not NAME:NUMBER, such as cluster/lease:7 (at most 128 characters)"
        )
    return found[1], int(found[2])


def _parse_key(text: str) -> str:
    """Return the key of a structured-field string, or of one without quotes."""
    text = text.strip()
    key = text
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if not 0 < len(key) <= 255 or not (key.isascii() and key.isprintable()):
        raise errors.IdempotencyKeyInvalid(
            "Idempotency-Key is not 1 to 255 printable characters, bare or as a quoted string"
        )
    return key
