"""What an operator may ask of a load balancer that stays as it is: again, elsewhere, or no more.

Each is one transaction, and an operation that ends when the provisioner is through.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fakecloud.clock import Clock
from fakecloud.domain import lifecycle
from fakecloud.domain.lifecycle import Event
from fakecloud.errors import BeingDeleted, NotCancellable, NotFound
from fakecloud.model import ErrorNote, LoadBalancer, Operation, OperationStatus, State
from fakecloud.provisioning import placement
from fakecloud.provisioning.placement import Placement
from fakecloud.store import leases, operations
from fakecloud.store import load_balancers as rows
from fakecloud.store.database import Connection, Database

_CANCELLABLE: Final = frozenset({State.PENDING, State.PROVISIONING, State.UPDATING})


class Actions:
    """Repair, failover and cancel. Every method may raise Unavailable."""

    def __init__(
        self, database: Database, clock: Clock, placement: Placement | None = None
    ) -> None:
        """Work on the rows of `database`; let `placement` choose hosts, or who comes first."""
        self._placement = placement
        self._database = database
        self._clock = clock

    def repair(self, project: str, name: str) -> LoadBalancer:
        """Put it into effect again, at once and with all attempts (T9). Raises: NotFound,
        BeingDeleted.
        """
        return self._again(project, name, "repair", stay=True)

    def failover(self, project: str, name: str) -> LoadBalancer:
        """Let another host run it, if there is one (T15). Raises: NotFound, BeingDeleted."""
        return self._again(project, name, "system.failover", stay=False)

    def _again(self, project: str, name: str, type: str, *, stay: bool) -> LoadBalancer:
        with self._database.write() as connection:
            now, wall = self._clock.now(), self._clock.wall()
            lb = rows.find(connection, project, name, for_update=True)
            if lb is None:
                raise NotFound(f"there is no load balancer {name!r}")
            if lb.state is State.DELETING:
                raise BeingDeleted(f"{lb.name} is being deleted", operation=lb.operation)
            served = lb.was_active and lb.state is not State.ERROR
            event = Event.HOST_LOST if served else Event.SPEC_CHANGED
            operation = operations.new(project, type, lb.name, lb.id, lb.generation, now)
            again = msgspec.structs.replace(
                lb,
                state=lifecycle.next_state(lb.state, event, was_active=lb.was_active),
                operation=operation.id,
                attempts=0,
                due_at=wall,
                asked_at=wall,
                host=lb.host if stay else self._elsewhere(lb),
            )
            saved = rows.save(connection, again, now)
            operations.start(connection, operation)
            return saved

    def _elsewhere(self, lb: LoadBalancer) -> str | None:
        if self._placement is None:
            return None
        return self._placement.choose(placement.pools_of(lb.addresses), besides=lb.host)

    def cancel(self, project: str, id: str) -> Operation:
        """Stop trying: the operation ends as CANCELLED, the load balancer waits in ERROR.

        It stays as it is until it is changed or repaired; what served before still serves.
        Raises: NotFound, NotCancellable.
        """
        with self._database.write() as connection:
            operation = operations.find(connection, project, id)
            if operation is None:
                raise NotFound(f"there is no operation {id!r}")
            lb = self._stoppable(connection, operation)
            now = self._clock.now()
            note = ErrorNote(
                code="cancelled",
                message="its operation was cancelled; PUT it again or :repair it to go on",
                at=now,
            )
            state = lifecycle.next_state(lb.state, Event.GAVE_UP)
            stopped = msgspec.structs.replace(
                lb, state=state, due_at=None, last_error=note, ready_at=None
            )
            rows.save(connection, stopped, now)
            cancelled = operations.End(
                up_to_generation=lb.generation, status=OperationStatus.CANCELLED, error=note
            )
            operations.end(connection, {lb.id: cancelled}, now)
            ended = operations.find(connection, project, id)
            assert ended is not None, id
            return ended

    def _stoppable(self, connection: Connection, operation: Operation) -> LoadBalancer:
        """Return the load balancer whose work can be stopped. Raises: NotCancellable."""
        id = operation.id
        if operation.status is not OperationStatus.RUNNING:
            raise NotCancellable(f"{id} has ended: {operation.status.value}")
        if operation.type == "delete":
            raise NotCancellable(f"{id} deletes {operation.target}, which can't be stopped")
        lb = rows.by_id(connection, operation.target_id)
        if lb is None or lb.state not in _CANCELLABLE:
            raise NotCancellable(f"{id} is not work on a load balancer that can be stopped now")
        if leases.leased(connection, lb.pk, self._clock.wall()):
            raise NotCancellable(f"a worker is busy with {id} right now; ask again")
        return lb
