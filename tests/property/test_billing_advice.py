"""What is said of the future is what then happens: comparisons, previews, forecasts, advice."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from fakecloud.billing import consolidation, preview, prices, projection, quantities
from fakecloud.billing.events import BillingEvent
from fakecloud.billing.quantities import MICRO
from fakecloud.billing.usage import Attribution, Span
from tests.property.histories import (
    START_US,
    any_book,
    histories,
    seconds,
    used,
)
from tests.property.invariants import invariant, replaced
from tests.unit.fakecloud.billing.test_preview import candidate

NAMES = [f"shop/s{number}" for number in range(8)]


def manifest(name: str, ports: list[int]) -> dict[str, Any]:
    namespace, _, service = name.partition("/")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service, "namespace": namespace},
        "spec": {"type": "LoadBalancer", "ports": [{"port": port} for port in ports]},
    }


def standing(name: str, ports: list[int]) -> tuple[str, Span]:
    span = Span(
        start_us=0, end_us=1, attribution=name, type="lb-s", ports=len(ports), protocols=1, ipv4=1
    )
    return f"lb_{name}", span


PEOPLE = {
    name: Attribution(
        id=name,
        account="default",
        name=name,
        labels=dict(zip(("namespace", "service"), name.split("/"), strict=True)),
    )
    for name in NAMES
}
services = st.dictionaries(
    st.sampled_from(NAMES),
    st.lists(st.integers(1, 65_535), min_size=1, max_size=4, unique=True),
    max_size=8,
)


def month(of: list[tuple[str, Span]], book: prices.PriceBook) -> int:
    return sum(line.billed_pico for line in projection.bill(projection.month_of(of), book))


@invariant(
    16,
    services,
    services,
    any_book,
    st.booleans(),
    bugs={
        "each is rated as if it were alone": replaced(
            preview,
            "_costs",
            lambda costs: (
                lambda of, book: {
                    name: pico for one in of for name, pico in costs([one], book).items()
                }
            ),
        ),
        "ports of what is asked for are forgotten": replaced(
            preview,
            "_span",
            lambda span: lambda one, type: msgspec.structs.replace(span(one, type), ports=1),
        ),
        "addresses of what is asked for are forgotten": replaced(
            preview,
            "_span",
            lambda span: lambda one, type: msgspec.structs.replace(span(one, type), ipv4=0),
        ),
    },
)
def test_invariant_16_a_preview_is_what_then_is_billed(
    there: dict[str, list[int]],
    wanted: dict[str, list[int]],
    book: prices.PriceBook,
    whole: bool,
) -> None:
    """Catches: each is rated as if it were alone; ports of what is asked for are forgotten;
    addresses of what is asked for are forgotten."""
    now = [standing(name, ports) for name, ports in there.items()]

    def items(asked: dict[str, list[int]]) -> list[preview.Item]:
        planned = preview.planned([manifest(name, ports) for name, ports in asked.items()])
        return preview.items(now, PEOPLE, planned, book, whole=whole)

    same = items(there)
    assert all(one.before_pico == one.after_pico for one in same), "what is there changes nothing"
    found = items(wanted)
    after = wanted if whole else there | wanted
    assert sum(one.before_pico for one in found) == month(now, book)
    applied = [standing(name, ports) for name, ports in after.items()]
    assert sum(one.after_pico for one in found) == month(applied, book)


@invariant(
    17,
    histories(),
    seconds,
    any_book,
    bugs={
        "what goes on is taken to end now": replaced(
            projection, "prolonged", lambda _: lambda usages, now: list(usages)
        ),
        "what has ended goes on": replaced(
            projection,
            "prolonged",
            lambda prolonged: (
                lambda usages, now: prolonged(
                    [
                        msgspec.structs.replace(
                            one,
                            spans=(
                                *one.spans[:-1],
                                msgspec.structs.replace(one.spans[-1], end_us=now),
                            ),
                        )
                        if one.spans and one.spans[-1].start_us < now
                        else one
                        for one in usages
                    ],
                    now,
                )
            ),
        ),
    },
)
def test_invariant_17_the_fixed_part_is_what_the_month_then_costs(
    history: list[BillingEvent], at_s: int, book: prices.PriceBook
) -> None:
    """Catches: what goes on is taken to end now; what has ended goes on."""
    now = START_US + (at_s + 1) * MICRO
    past = [event for event in history if event.at_us < now]
    first, after = quantities.month_of(now)
    if not past:
        return
    foretold = list(projection.prolonged([used(past, now)], now))
    then = [used(past, after)]
    assert sum(line.billed_pico for line in projection.bill(foretold, book, first)) == sum(
        line.billed_pico for line in projection.bill(then, book, first)
    )


@invariant(
    19,
    services,
    any_book,
    bugs={
        "what saves nothing is advised too": replaced(
            consolidation.Advice, "saves_pico", lambda _: property(lambda self: 1)
        ),
        "each is rated as if it were alone": replaced(
            consolidation,
            "_monthly",
            lambda monthly: lambda of, book: sum(monthly([one], book) for one in of),
        ),
        "the Gateway is forgotten": replaced(
            consolidation,
            "_monthly",
            lambda monthly: (
                lambda of, book: monthly(
                    [one for one in of if one[0] != consolidation.GATEWAY], book
                )
            ),
        ),
    },
)
def test_invariant_19_advice_that_is_followed_saves_what_it_says(
    there: dict[str, list[int]], book: prices.PriceBook
) -> None:
    """Catches: what saves nothing is advised too; each is rated as if it were alone; the Gateway
    is forgotten."""
    candidates = [
        consolidation.Candidate(
            lb=candidate(name.split("/")[1], *ports).lb,
            span=standing(name, ports)[1],
        )
        for name, ports in there.items()
    ]
    found, excluded = consolidation.advise(candidates, book)
    before = [(one.lb.id, one.span) for one in candidates]
    for advice in found:
        members = [one for one in candidates if one.service in advice.services]
        kept = [(one.lb.id, one.span) for one in candidates if one.service not in advice.services]
        ports = sorted({port for one in members for port in there[one.service]})
        after = [*kept, standing("shop/shared-gateway", ports)]
        assert month(before, book) - month(after, book) == advice.saves_pico > 0
    advised = {name for advice in found for name in advice.services}
    assert advised | {one.service for one in excluded} == set(there)
    if not found and len(there) > 1:
        ports = sorted({port for some in there.values() for port in some})
        assert month(before, book) <= month([standing("shop/shared-gateway", ports)], book)
