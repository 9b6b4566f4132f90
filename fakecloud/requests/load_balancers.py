"""What a customer may ask: put, find, list and delete load balancers.

Each request is one transaction: the row, its event, the operation and the addresses change
together or not at all. The provisioner does the rest.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from fakecloud.access import suspension
from fakecloud.access.quotas import Quotas
from fakecloud.billing.events import seconds_us
from fakecloud.clock import Clock
from fakecloud.domain import catalogue, chaos_labels, lifecycle, outcomes, profiles
from fakecloud.domain.addresses import Pool
from fakecloud.domain.lifecycle import Event
from fakecloud.errors import (
    BeingDeleted,
    DeletionProtected,
    FieldError,
    NameInUse,
    NotFound,
    ValidationFailed,
)
from fakecloud.ids import new_id
from fakecloud.model import (
    Address,
    LoadBalancer,
    OperatingState,
    Operation,
    OperationStatus,
    State,
)
from fakecloud.network import allocation
from fakecloud.network.allocation import Allocator
from fakecloud.provisioning import placement
from fakecloud.provisioning.placement import Placement
from fakecloud.requests import wishes
from fakecloud.requests.wishes import Expectation, New, Wish
from fakecloud.store import billing_events, budgets, events, operations
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database


class Outcome(StrEnum):
    """What a PUT did."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    RELABELED = "relabeled"
    ACCEPTED = "accepted"


class LoadBalancers:
    """The customer's desk. Every method may raise Unavailable when the database can't be used."""

    def __init__(
        self,
        database: Database,
        pools: list[Pool],
        clock: Clock,
        *,
        profile: str = "dev",
        rate: Callable[[], int] = lambda: 1,
        quotas: Quotas | None = None,
        placement: Placement | None = None,
        transparent: bool = False,
    ) -> None:
        """Give addresses from `pools`; write to `database`.

        profile: how long the simulated cloud takes; rate: how fast business time runs, which
        shortens that; quotas: where load balancers are counted; placement: who chooses hosts,
        None: whichever claims it first; transparent: load balancers may connect from their
        clients' addresses. Raises: UnknownProfile.
        """
        self._profile = profiles.find(profile)
        self._quotas = quotas or Quotas()
        self._placement = placement
        self._transparent = transparent
        self._rate = rate
        self._database = database
        self._allocator = Allocator(pools)
        self._clock = clock

    def put(
        self, project: str, name: str, wish: Wish, expected: Expectation | None = None
    ) -> tuple[LoadBalancer, Outcome]:
        """Create or replace the load balancer `name`; nothing is written when it equals the wish.

        Raises: BeingDeleted, PreconditionFailed, ValidationFailed, NotYetOffered, AddressInUse,
        NoCapacity, QuotaExceeded, BudgetExceeded, ProjectSuspended.
        """
        expected = expected or Expectation()
        self._refuse(wish)
        with self._database.write() as connection:
            now = self._clock.now()
            current = rows.find(connection, project, name, for_update=True)
            wishes.refuse_unexpected(current, expected)
            self._refuse_unfit(connection, project, wish)
            if current is None:
                new = New(project=project, name=name, wish=wish)
                return self._create(connection, [new], now)[0], Outcome.CREATED
            if current.state is State.DELETING:
                raise BeingDeleted(
                    f"{name} is being deleted; PUT again when it is gone",
                    operation=current.operation,
                )
            return self._replace(connection, current, wish, now)

    def change(
        self,
        project: str,
        name: str,
        edit: Callable[[LoadBalancer], Wish],
        expected: Expectation | None = None,
    ) -> tuple[LoadBalancer, Outcome]:
        """Replace an existing load balancer by what `edit` makes of it, in one transaction.

        Raises: NotFound, what `put` raises and what `edit` raises.
        """
        with self._database.write() as connection:
            current = rows.find(connection, project, name, for_update=True)
            if current is None:
                raise NotFound(f"there is no load balancer {name!r}")
            return self.put(project, current.name, edit(current), expected)

    def create(self, project: str, name: str | None, wish: Wish) -> tuple[LoadBalancer, Outcome]:
        """Create a load balancer, named by the cloud if `name` is None; again is no change.

        Raises: NameInUse when the name has another document, and what `put` raises.
        """
        name = name or f"lb-{secrets.token_hex(6)}"
        with self._database.write() as connection:
            current = rows.find(connection, project, name, for_update=True)
            if current is not None and current.state is not State.DELETING:
                mine = (current.labels, current.annotations, current.spec)
                if mine != (wish.labels, wish.annotations, wish.spec):
                    raise NameInUse(f"{name} exists with another document; PUT replaces it")
            return self.put(project, name, wish)

    def create_all(self, wanted: Sequence[New]) -> list[LoadBalancer | None]:
        """Create load balancers of different names at once: each statement is for all of them.

        None where there is one of that name. Raises: what `put` raises for any; none is made then.
        """
        for one in wanted:
            self._refuse(one.wish)
        with self._database.write() as connection:
            there: set[tuple[str, str]] = set()
            for project in {one.project for one in wanted}:
                names = [one.name for one in wanted if one.project == project]
                there |= {(project, name) for name in rows.taken(connection, project, names)}
            new = [one for one in wanted if (one.project, one.name) not in there]
            for one in new:
                self._refuse_unfit(connection, one.project, one.wish)
            made = iter(self._create(connection, new, self._clock.now()) if new else ())
            return [None if (w.project, w.name) in there else next(made) for w in wanted]

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
                wishes.refuse_unexpected(current, expected or Expectation())
                if current.spec.deletion_protection:
                    raise DeletionProtected(
                        f"{name} has spec.deletion_protection; PUT it with false, then delete"
                    )
                current = self._begin_delete(connection, current, now)
            operation = operations.find(connection, project, current.operation)
            assert operation is not None, current.operation
            return current, operation

    def _refuse(self, wish: Wish) -> None:
        """Raises: ValidationFailed, NotYetOffered."""
        wishes.refuse_unknown_faults(wish)
        if not self._transparent:
            wishes.refuse_transparent(wish.spec)

    def _refuse_unfit(self, connection: Connection, project: str, wish: Wish) -> None:
        """Raises: ValidationFailed when the type is too small, or a certificate isn't there."""
        if self._profile.name != "dev":
            catalogue.check(wish.spec)
        wishes.refuse_unknown_certificates(connection, project, wish.spec)

    def _create(
        self, connection: Connection, wanted: Sequence[New], now: datetime
    ) -> list[LoadBalancer]:
        for project, count in Counter(one.project for one in wanted).items():
            self._quotas.take(connection, project, "load_balancers", count)
            of = [one.wish.labels for one in wanted if one.project == project]
            exceeded = budgets.exceeded(connection, project, seconds_us(now))
            suspension.refuse_by(project, exceeded)
            wishes.refuse_beyond_budgets(exceeded, of)
        specs = [(one.project, one.wish.spec) for one in wanted]
        chosen = self._allocator.choose(connection, specs, now)
        made = [self._new(one, has, now) for one, has in zip(wanted, chosen, strict=True)]
        balancers = rows.create(connection, made)
        billing_events.record(connection, ((None, lb) for lb in balancers), now, self._clock.wall())
        allocation.give(connection, balancers, now)
        return balancers

    def _new(
        self, wanted: New, addresses: tuple[Address, ...], now: datetime
    ) -> tuple[LoadBalancer, Operation]:
        project, name, wish = wanted.project, wanted.name, wanted.wish
        id = new_id("lb", now)
        delay = self._delay("create", wish, id, 1)
        operation = self._operation(project, "create", name, id, 1, delay)
        wall = self._clock.wall()
        lb = LoadBalancer(
            pk=0,
            id=id,
            project=project,
            name=name,
            labels=wish.labels,
            annotations=wish.annotations,
            spec=wish.spec,
            addresses=addresses,
            host=self._host(addresses, None),
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
            due_at=wall,
            ready_at=operation.ready_at,
            lease_epoch=0,
            asked_at=wall,
            created_at=now,
            updated_at=now,
        )
        return lb, operation

    def _replace(
        self, connection: Connection, current: LoadBalancer, wish: Wish, now: datetime
    ) -> tuple[LoadBalancer, Outcome]:
        same_labels = (current.labels, current.annotations) == (wish.labels, wish.annotations)
        if current.spec == wish.spec and same_labels:
            return current, Outcome.UNCHANGED
        suspension.refuse(connection, current.project, seconds_us(now))
        if current.spec == wish.spec:
            lb = msgspec.structs.replace(current, labels=wish.labels, annotations=wish.annotations)
            lb = self._with_other_faults(connection, current, lb)
            saved = rows.save(connection, lb, now)
            billing_events.record(connection, [(current, saved)], now, self._clock.wall())
            return saved, Outcome.RELABELED
        generation = current.generation + 1
        kind: profiles.Kind = "update" if current.was_active else "create"
        delay = self._delay(kind, wish, current.id, generation)
        operation = self._operation(
            current.project, "update", current.name, current.id, generation, delay
        )
        specs = [(current.project, wish.spec)]
        (addresses,) = self._allocator.choose(connection, specs, now, current.addresses)
        changed = msgspec.structs.replace(
            current,
            labels=wish.labels,
            annotations=wish.annotations,
            spec=wish.spec,
            addresses=addresses,
            host=self._host(addresses, current.host),
            generation=generation,
            state=lifecycle.next_state(
                current.state, Event.SPEC_CHANGED, was_active=current.was_active
            ),
            operation=operation.id,
            attempts=0,
            due_at=self._clock.wall(),
            ready_at=operation.ready_at,
            asked_at=self._clock.wall(),
        )
        lb = rows.save(connection, changed, now)
        billing_events.record(connection, [(current, lb)], now, self._clock.wall())
        allocation.give(connection, [lb], now, current.addresses)
        operations.start(connection, operation)
        return lb, Outcome.ACCEPTED

    def _host(self, addresses: tuple[Address, ...], now: str | None) -> str | None:
        """Return who runs what has these addresses: who does so `now`, as long as it can."""
        if self._placement is None:
            return now
        return self._placement.choose(placement.pools_of(addresses), keep=now)

    def _with_other_faults(
        self, connection: Connection, before: LoadBalancer, after: LoadBalancer
    ) -> LoadBalancer:
        """Let the cloud act at once when labels ask for another state, or for fewer faults."""
        was = chaos_labels.parse(before.labels, before.annotations)
        asked = chaos_labels.parse(after.labels, after.annotations)
        if asked == was or after.state not in (State.ACTIVE, State.ERROR):
            return after
        now, wall = self._clock.now(), self._clock.wall()
        if after.state is State.ERROR:
            return msgspec.structs.replace(after, due_at=wall)
        again = outcomes.lost(after, wall)
        if again is None or was.lasting == asked.lasting:
            return after
        operation = operations.new(
            after.project, "system.fault", after.name, after.id, after.generation, now
        )
        operations.start(connection, operation)
        return msgspec.structs.replace(again, operation=operation.id)

    def _begin_delete(
        self, connection: Connection, current: LoadBalancer, now: datetime
    ) -> LoadBalancer:
        cancelled = operations.End(
            up_to_generation=current.generation, status=OperationStatus.CANCELLED
        )
        operations.end(connection, {current.id: cancelled}, now)
        delay = self._delay("delete", current, current.id, current.generation)
        operation = self._operation(
            current.project, "delete", current.name, current.id, current.generation, delay
        )
        deleting = msgspec.structs.replace(
            current,
            state=lifecycle.next_state(current.state, Event.DELETE_ASKED),
            operation=operation.id,
            attempts=0,
            due_at=self._clock.wall(),
            ready_at=operation.ready_at,
            asked_at=self._clock.wall(),
        )
        lb = rows.save(connection, deleting, now)
        billing_events.record(connection, [(current, lb)], now, self._clock.wall())
        operations.start(connection, operation)
        return lb

    def _delay(
        self, kind: profiles.Kind, of: Wish | LoadBalancer, id: str, generation: int
    ) -> float:
        try:
            profile = profiles.chosen(self._profile, of.labels, of.annotations)
        except profiles.UnknownProfile as error:
            where = "annotations" if profiles.KEY in of.annotations else "labels"
            raise _invalid(f"/{where}/{profiles.KEY.replace('/', '~1')}", str(error)) from None
        return profiles.delay_s(profile, kind, id, generation)

    def _operation(
        self, project: str, type: str, name: str, id: str, generation: int, delay_s: float
    ) -> Operation:
        """Return a new operation that ends `delay_s` of business time from now at the earliest."""
        now = self._clock.now()
        if not delay_s:
            return operations.new(project, type, name, id, generation, now)
        eta = now + timedelta(seconds=delay_s)
        ready_at = self._clock.wall() + timedelta(seconds=delay_s / self._rate())
        return operations.new(project, type, name, id, generation, now, eta=eta, ready_at=ready_at)


def _invalid(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer}: {message}", errors=(FieldError(pointer, "invalid_reference", message),)
    )
