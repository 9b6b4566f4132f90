"""What customers wish of load balancers, and what of it is refused whatever the state of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from fakecloud.access import suspension
from fakecloud.billing import budgets, quantities
from fakecloud.billing.budgets import Budget
from fakecloud.clock import rfc3339
from fakecloud.domain import chaos_labels, rules
from fakecloud.errors import (
    BudgetExceeded,
    FieldError,
    NotYetOffered,
    PreconditionFailed,
    ValidationFailed,
)
from fakecloud.model import LoadBalancer, Spec
from fakecloud.store import certificates
from fakecloud.store.database import Connection


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The whole desired load balancer, checked."""

    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Spec


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for the load balancer of a name, whether there is one or not."""

    project: str
    name: str
    wish: Wish


class Outcome(StrEnum):
    """What a PUT did."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    RELABELED = "relabeled"
    ACCEPTED = "accepted"


class Done(msgspec.Struct, frozen=True):
    """What a PUT left, what it did, and its events: from, to in the count of the transaction's."""

    lb: LoadBalancer
    outcome: Outcome
    events: tuple[int, int]


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """`If-Match` as generations (None: no header), and whether `If-None-Match: *` was said."""

    generations: frozenset[int] | None = None
    any_existing: bool = False
    absent: bool = False


def outcome_of(wish: Wish, current: LoadBalancer | None) -> Outcome:
    """Return what a PUT of `wish` is about to do."""
    if current is None:
        return Outcome.CREATED
    if current.spec != wish.spec:
        return Outcome.ACCEPTED
    same = (current.labels, current.annotations) == (wish.labels, wish.annotations)
    return Outcome.UNCHANGED if same else Outcome.RELABELED


def refuse_beyond_budgets(exceeded: Iterable[Budget], wanted: Sequence[Mapping[str, str]]) -> None:
    """Raises: BudgetExceeded when a budget that is used up covers one of these labels."""
    for budget in exceeded:
        if any(budgets.covers(labels, budget.labels) for labels in wanted):
            until = rfc3339(quantities.moment(budget.exceeded_until_us))
            raise BudgetExceeded(
                f"{suspension.said(budget)} until {until}; raise it, or delete load balancers",
                budget=budget.name,
            )


def refuse_unknown_faults(wish: Wish) -> None:
    """Raises: ValidationFailed when labels or annotations ask for a fault that there is not."""
    wrong = chaos_labels.mistakes(wish.labels, wish.annotations)
    if wrong:
        raise ValidationFailed("; ".join(one.message for one in wrong[:3]), errors=wrong)


def refuse_transparent(spec: Spec) -> None:
    """Raises: NotYetOffered when targets shall see the client's own address."""
    wrong = tuple(rules.opaque(spec))
    if wrong:
        raise NotYetOffered(f"{wrong[0].pointer}: {wrong[0].message}", errors=wrong)


def refuse_unknown_certificates(connection: Connection, project: str, spec: Spec) -> None:
    """Raises: ValidationFailed when a listener names a certificate that the project hasn't."""
    wanted = rules.certificates_of(spec)
    missing = wanted - certificates.expiries(connection, project, wanted).keys()
    wrong = tuple(
        FieldError(
            f"/spec/listeners/{index}/tls/certificates/{number}",
            "invalid_reference",
            f"there is no certificate {name!r}",
        )
        for index, one in enumerate(spec.listeners)
        for number, name in enumerate(one.tls.certificates if one.tls else ())
        if name in missing
    )
    if wrong:
        said = "; ".join(f"{one.pointer}: {one.message}" for one in wrong[:3])
        raise ValidationFailed(said, errors=wrong)


def refuse_unexpected(current: LoadBalancer | None, expected: Expectation) -> None:
    """Raises: PreconditionFailed when another load balancer is there than the caller has seen."""
    if expected.absent and current is not None:
        raise PreconditionFailed(f"If-None-Match: {current.name} exists")
    if expected.any_existing and current is None:
        raise PreconditionFailed("If-Match: there is no such load balancer")
    if expected.generations is None:
        return
    if current is None or current.generation not in expected.generations:
        now = "none" if current is None else f"generation {current.generation}"
        raise PreconditionFailed(f"If-Match: there is {now}; read it again and decide anew")
