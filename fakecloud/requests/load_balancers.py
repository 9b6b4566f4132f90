"""What a customer may ask: put, find, list and delete load balancers.

Each request is one transaction: the row, its event, the operation and the addresses change
together or not at all. The provisioner does the rest.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

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
from fakecloud.requests.wishes import Done, Expectation, Outcome, Put, Wish
from fakecloud.store import billing_events, budgets, events, operations
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database

_PLACED: Final = frozenset({Outcome.CREATED, Outcome.ACCEPTED})
_CHANGED: Final = frozenset({Outcome.RELABELED, Outcome.ACCEPTED})
_Draft = tuple[LoadBalancer, Operation | None]
"""A load balancer as it is to be saved, and the operation that this begins."""


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
            if current is not None and _is_going(current):
                raise BeingDeleted(
                    f"{name} is being deleted; PUT again when it is gone",
                    operation=current.operation,
                )
            wanted = Put(project=project, name=name, wish=wish)
            (done,) = self._put(connection, [(wanted, current)], now)
            return done.lb, done.outcome

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

    def put_all(self, wanted: Sequence[Put]) -> list[Done | None]:
        """Put load balancers of different names at once: each statement is for all of them.

        None for one that is being deleted. Raises: what `put` raises for any of the others; none
        is put then.
        """
        for one in wanted:
            self._refuse(one.wish)
        with self._database.write() as connection:
            there: dict[tuple[str, str], LoadBalancer] = {}
            for project in {one.project for one in wanted}:
                names = [one.name for one in wanted if one.project == project]
                if taken := rows.taken(connection, project, names):
                    found = rows.by_names(connection, project, taken, for_update=True)
                    there |= {(project, lb.name): lb for lb in found}
            pairs = [(one, there.get((one.project, one.name))) for one in wanted]
            able = [(one, current) for one, current in pairs if not _is_going(current)]
            for one, _ in able:
                self._refuse_unfit(connection, one.project, one.wish)
            done = iter(self._put(connection, able, self._clock.now()) if able else ())
            return [None if _is_going(current) else next(done) for _, current in pairs]

    def find(self, project: str, name: str) -> LoadBalancer:
        """Return the load balancer of that name or id. Raises: NotFound."""
        with self._database.read() as connection:
            found = rows.find(connection, project, name)
        if found is None:
            raise NotFound(f"there is no load balancer {name!r}")
        return found

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

    def _put(
        self,
        connection: Connection,
        wanted: Sequence[tuple[Put, LoadBalancer | None]],
        now: datetime,
    ) -> list[Done]:
        """Put load balancers, each with what is there; of that nothing is being deleted."""
        outcomes = [wishes.outcome_of(one.wish, current) for one, current in wanted]
        self._refuse_unpaid(connection, wanted, outcomes, now)
        placed = [n for n, outcome in enumerate(outcomes) if outcome in _PLACED]
        asked = [(one.project, one.wish.spec, _addresses(has)) for one, has in wanted]
        addresses = self._allocator.choose(connection, [asked[n] for n in placed], now)
        at = dict(zip(placed, addresses, strict=True))
        drafts: list[_Draft] = []
        for n, (one, current) in enumerate(wanted):
            if current is None:
                drafts.append(self._new(one, at[n], now))
            elif n in at:
                drafts.append(self._replaced(current, one.wish, at[n]))
            else:
                drafts.append(self._relabeled(current, one.wish))
        new = [n for n, outcome in enumerate(outcomes) if outcome is Outcome.CREATED]
        changed = [n for n, outcome in enumerate(outcomes) if outcome in _CHANGED]
        first = events.count(connection)
        saved = dict(zip(new, rows.create(connection, [drafts[n] for n in new]), strict=True))
        after = rows.change_all(connection, [drafts[n] for n in changed], now)
        saved |= zip(changed, after, strict=True)
        pairs = [(wanted[n][1], lb) for n, lb in saved.items()]
        billing_events.record(connection, pairs, now, self._clock.wall())
        allocation.give(connection, [(saved[n], _addresses(wanted[n][1])) for n in placed], now)
        # In the order in which they were recorded: its own event, and that of its operation.
        spans = {}
        for n in saved:
            spans[n] = (first, first + 1 + (drafts[n][1] is not None))
            first = spans[n][1]
        return [
            Done(saved.get(n, lb), outcomes[n], spans.get(n, (first, first)))
            for n, (lb, _) in enumerate(drafts)
        ]

    def _refuse_unpaid(
        self,
        connection: Connection,
        wanted: Sequence[tuple[Put, LoadBalancer | None]],
        outcomes: Sequence[Outcome],
        now: datetime,
    ) -> None:
        """Count new ones. Raises: QuotaExceeded, BudgetExceeded, ProjectSuspended."""
        new = [one for one, current in wanted if current is None]
        for project, count in Counter(one.project for one in new).items():
            self._quotas.take(connection, project, "load_balancers", count)
        pairs = zip(wanted, outcomes, strict=True)
        for project in {one.project for (one, _), did in pairs if did is not Outcome.UNCHANGED}:
            exceeded = budgets.exceeded(connection, project, seconds_us(now))
            suspension.refuse_by(project, exceeded)
            of = [one.wish.labels for one in new if one.project == project]
            wishes.refuse_beyond_budgets(exceeded, of)

    def _new(self, wanted: Put, addresses: tuple[Address, ...], now: datetime) -> _Draft:
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

    def _replaced(
        self, current: LoadBalancer, wish: Wish, addresses: tuple[Address, ...]
    ) -> _Draft:
        generation = current.generation + 1
        kind: profiles.Kind = "update" if current.was_active else "create"
        delay = self._delay(kind, wish, current.id, generation)
        operation = self._operation(
            current.project, "update", current.name, current.id, generation, delay
        )
        wall = self._clock.wall()
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
            due_at=wall,
            ready_at=operation.ready_at,
            asked_at=wall,
        )
        return changed, operation

    def _host(self, addresses: tuple[Address, ...], now: str | None) -> str | None:
        """Return who runs what has these addresses: who does so `now`, as long as it can."""
        if self._placement is None:
            return now
        return self._placement.choose(placement.pools_of(addresses), keep=now)

    def _relabeled(self, before: LoadBalancer, wish: Wish) -> _Draft:
        """Let the cloud act at once when labels ask for another state, or for fewer faults."""
        after = msgspec.structs.replace(before, labels=wish.labels, annotations=wish.annotations)
        was = chaos_labels.parse(before.labels, before.annotations)
        asked = chaos_labels.parse(after.labels, after.annotations)
        if asked == was or after.state not in (State.ACTIVE, State.ERROR):
            return after, None
        now, wall = self._clock.now(), self._clock.wall()
        if after.state is State.ERROR:
            return msgspec.structs.replace(after, due_at=wall), None
        again = outcomes.lost(after, wall)
        if again is None or was.lasting == asked.lasting:
            return after, None
        operation = operations.new(
            after.project, "system.fault", after.name, after.id, after.generation, now
        )
        return msgspec.structs.replace(again, operation=operation.id), operation

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
        (lb,) = rows.change_all(connection, [(deleting, operation)], now)
        billing_events.record(connection, [(current, lb)], now, self._clock.wall())
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


def _is_going(current: LoadBalancer | None) -> bool:
    return current is not None and current.state is State.DELETING


def _addresses(current: LoadBalancer | None) -> tuple[Address, ...]:
    return () if current is None else current.addresses
