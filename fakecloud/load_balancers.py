"""What a customer may ask: put, find, list and delete load balancers.

Each request is one transaction: the row, its event, the operation and the addresses change
together or not at all. The provisioner does the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address

import msgspec

from fakecloud import addresses, lifecycle
from fakecloud.addresses import Pool
from fakecloud.clock import Clock
from fakecloud.errors import (
    AddressInUse,
    BeingDeleted,
    DeletionProtected,
    FieldError,
    NoCapacity,
    NotFound,
    PreconditionFailed,
    ValidationFailed,
)
from fakecloud.lifecycle import Event
from fakecloud.model import (
    Address,
    AddressRequest,
    LoadBalancer,
    OperatingState,
    Operation,
    OperationStatus,
    Spec,
    State,
)
from fakecloud.store import addresses as address_rows
from fakecloud.store import events, operations
from fakecloud.store import load_balancers as rows
from fakecloud.store import usage as usage_rows
from fakecloud.store.database import Connection, Database


class Outcome(StrEnum):
    """What a PUT did."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    RELABELED = "relabeled"
    ACCEPTED = "accepted"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The whole desired load balancer, checked."""

    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Spec


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """`If-Match` as generations (None: no header), and whether `If-None-Match: *` was said."""

    generations: frozenset[int] | None = None
    any_existing: bool = False
    absent: bool = False


class LoadBalancers:
    """The customer's desk. Every method may raise Unavailable when the database can't be used."""

    def __init__(self, database: Database, pools: list[Pool], clock: Clock) -> None:
        """Give addresses from `pools`; write to `database`."""
        self._database = database
        self._pools = {(pool.name, pool.family): pool for pool in pools}
        self._clock = clock

    def put(
        self, project: str, name: str, wish: Wish, expected: Expectation | None = None
    ) -> tuple[LoadBalancer, Outcome]:
        """Create or replace the load balancer `name`; nothing is written when it equals the wish.

        Raises: BeingDeleted, PreconditionFailed, ValidationFailed, AddressInUse, NoCapacity.
        """
        expected = expected or Expectation()
        with self._database.write() as connection:
            now = self._clock.now()
            current = rows.find(connection, project, name, for_update=True)
            _check(current, expected)
            if current is None:
                return self._create(connection, project, name, wish, now), Outcome.CREATED
            if current.state is State.DELETING:
                raise BeingDeleted(
                    f"{name} is being deleted; PUT again when it is gone",
                    operation=current.operation,
                )
            return self._replace(connection, current, wish, now)

    def find(self, project: str, name: str) -> LoadBalancer:
        """Return the load balancer of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            found = rows.find(connection, project, name)
        if found is None:
            raise NotFound(f"there is no load balancer {name!r}")
        return found

    def page(self, project: str, after: int, limit: int) -> tuple[int, list[LoadBalancer]]:
        """Return up to `limit` load balancers after the row key `after`, and the version of it."""
        with self._database.read() as connection:
            version = events.current_version(connection)
            return version, rows.page(connection, project, after=after, limit=limit)

    def delete(
        self, project: str, name: str, expected: Expectation | None = None
    ) -> tuple[LoadBalancer, Operation]:
        """Begin to delete, from any state; again while it lasts gives the same operation.

        Raises: NotFound, DeletionProtected, PreconditionFailed.
        """
        with self._database.write() as connection:
            now = self._clock.now()
            current = rows.find(connection, project, name, for_update=True)
            if current is None:
                raise NotFound(f"there is no load balancer {name!r}")
            if current.state is not State.DELETING:
                _check(current, expected or Expectation())
                if current.spec.deletion_protection:
                    raise DeletionProtected(
                        f"{name} has spec.deletion_protection; PUT it with false, then delete"
                    )
                current = self._begin_delete(connection, current, now)
            operation = operations.find(connection, project, current.operation)
            assert operation is not None, current.operation
            return current, operation

    def _create(
        self, connection: Connection, project: str, name: str, wish: Wish, now: datetime
    ) -> LoadBalancer:
        id = _new_id("lb", now)
        operation = _operation(project, "create", name, id, 1, now)
        lb = LoadBalancer(
            pk=0,
            id=id,
            project=project,
            name=name,
            labels=wish.labels,
            annotations=wish.annotations,
            spec=wish.spec,
            addresses=self._choose(connection, wish.spec, (), now),
            generation=1,
            observed_generation=0,
            resource_version=0,
            state=State.PENDING,
            operating_state=OperatingState.UNKNOWN,
            conditions=(),
            targets=(),
            last_error=None,
            operation=operation.id,
            was_active=False,
            attempts=0,
            due_at=now,
            lease_epoch=0,
            asked_at=now,
            created_at=now,
            updated_at=now,
        )
        lb = rows.create(connection, lb)
        self._give(connection, lb, (), now)
        operations.start(connection, operation)
        return lb

    def _replace(
        self, connection: Connection, current: LoadBalancer, wish: Wish, now: datetime
    ) -> tuple[LoadBalancer, Outcome]:
        same_labels = (current.labels, current.annotations) == (wish.labels, wish.annotations)
        if current.spec == wish.spec:
            if same_labels:
                return current, Outcome.UNCHANGED
            lb = msgspec.structs.replace(current, labels=wish.labels, annotations=wish.annotations)
            _split_usage(connection, current, lb, now)
            return rows.save(connection, lb, now), Outcome.RELABELED
        generation = current.generation + 1
        operation = _operation(current.project, "update", current.name, current.id, generation, now)
        changed = msgspec.structs.replace(
            current,
            labels=wish.labels,
            annotations=wish.annotations,
            spec=wish.spec,
            addresses=self._choose(connection, wish.spec, current.addresses, now),
            generation=generation,
            state=lifecycle.next_state(
                current.state, Event.SPEC_CHANGED, was_active=current.was_active
            ),
            operation=operation.id,
            attempts=0,
            due_at=now,
            asked_at=now,
        )
        lb = rows.save(connection, changed, now)
        self._give(connection, lb, current.addresses, now)
        _split_usage(connection, current, lb, now)
        operations.start(connection, operation)
        return lb, Outcome.ACCEPTED

    def _begin_delete(
        self, connection: Connection, current: LoadBalancer, now: datetime
    ) -> LoadBalancer:
        operations.end(
            connection,
            current.id,
            up_to_generation=current.generation,
            status=OperationStatus.CANCELLED,
            now=now,
        )
        operation = _operation(
            current.project, "delete", current.name, current.id, current.generation, now
        )
        deleting = msgspec.structs.replace(
            current,
            state=lifecycle.next_state(current.state, Event.DELETE_ASKED),
            operation=operation.id,
            attempts=0,
            due_at=now,
            asked_at=now,
        )
        lb = rows.save(connection, deleting, now)
        operations.start(connection, operation)
        return lb

    def _choose(
        self, connection: Connection, spec: Spec, held: tuple[Address, ...], now: datetime
    ) -> tuple[Address, ...]:
        """Return an address for each request, keeping those held that still fit.

        Those asked for by name come first, so that none of them is given to another request.
        """
        rested_since = now - timedelta(seconds=addresses.QUARANTINE_S)
        left = list(held)
        chosen: dict[int, Address] = {}

        def taken(ip: str) -> bool:
            mine = any(a.ip == ip for a in chosen.values())
            return mine or address_rows.is_taken(connection, ip, rested_since)

        for index, request in sorted(enumerate(spec.addresses), key=lambda pair: not pair[1].ip):
            kept = next((a for a in left if _fits(a, request)), None)
            if kept is not None:
                left.remove(kept)
            chosen[index] = kept or self._pick(connection, index, request, taken)
        return tuple(chosen[index] for index in range(len(chosen)))

    def _pick(
        self,
        connection: Connection,
        index: int,
        request: AddressRequest,
        taken: Callable[[str], bool],
    ) -> Address:
        pointer = f"/spec/addresses/{index}"
        pool = self._pools.get((request.pool, request.family))
        if pool is None:
            known = ", ".join(sorted(f"{name} ({family})" for name, family in self._pools))
            raise _invalid(
                f"{pointer}/pool", f"no {request.family} pool {request.pool!r}; there are: {known}"
            )
        if request.ip is None:
            last = address_rows.last_given(connection, pool.name, pool.family)
            ip = addresses.choose(pool, last, taken)
            if ip is None:
                raise NoCapacity(f"pool {pool.name!r} ({pool.network}) has no free address")
            return Address(family=pool.family, ip=ip, pool=pool.name)
        ip = str(ip_address(request.ip))
        if not addresses.gives(pool, ip):
            raise _invalid(f"{pointer}/ip", f"{ip} is not in pool {pool.name!r} ({pool.network})")
        if address_rows.owner(connection, ip) is not None:
            raise AddressInUse(f"{pointer}/ip: {ip} belongs to another load balancer")
        return Address(family=pool.family, ip=ip, pool=pool.name)

    @staticmethod
    def _give(
        connection: Connection, lb: LoadBalancer, before: tuple[Address, ...], now: datetime
    ) -> None:
        gone = [a.ip for a in before if a not in lb.addresses]
        if gone:
            address_rows.take_back(connection, lb.id, gone, now)
        for address in lb.addresses:
            if address not in before and not address_rows.give(connection, address, lb.id, now):
                raise AddressInUse(f"{address.ip} was given to another load balancer just now")


def _split_usage(
    connection: Connection, before: LoadBalancer, after: LoadBalancer, now: datetime
) -> None:
    """Begin a new interval where the bill's grouping or price changes."""
    same = (before.labels, before.spec.type) == (after.labels, after.spec.type)
    if before.was_active and not same:
        usage_rows.close(connection, after.id, now)
        usage_rows.open(connection, after, now)


def _fits(address: Address, request: AddressRequest) -> bool:
    same_pool = (address.family, address.pool) == (request.family, request.pool)
    return same_pool and (request.ip is None or str(ip_address(request.ip)) == address.ip)


def _invalid(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer}: {message}", errors=(FieldError(pointer, "invalid_reference", message),)
    )


def _check(current: LoadBalancer | None, expected: Expectation) -> None:
    if expected.absent and current is not None:
        raise PreconditionFailed(f"If-None-Match: {current.name} exists")
    if expected.any_existing and current is None:
        raise PreconditionFailed("If-Match: there is no such load balancer")
    if expected.generations is None:
        return
    if current is None or current.generation not in expected.generations:
        now = "none" if current is None else f"generation {current.generation}"
        raise PreconditionFailed(f"If-Match: there is {now}; read it again and decide anew")


def _new_id(prefix: str, now: datetime) -> str:
    """Return an id that sorts by time: prefix, 11 hex digits of milliseconds, 12 random ones."""
    return f"{prefix}_{int(now.timestamp() * 1000):011x}{secrets.token_hex(6)}"


def _operation(
    project: str, type: str, name: str, id: str, generation: int, now: datetime
) -> Operation:
    return Operation(
        id=_new_id("op", now),
        project=project,
        type=type,
        target=name,
        target_id=id,
        target_generation=generation,
        status=OperationStatus.RUNNING,
        resource_version=0,
        error=None,
        created_at=now,
        updated_at=now,
    )
