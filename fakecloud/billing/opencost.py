"""Costs in the shapes of OpenCost's API, for what reads those.

Shapes are those of OpenCost's `/allocation`, `/assets` and `/customCost/total`
(github.com/opencost/opencost, pkg/customcost/types.go). Their money is numbers, so it is here, and
only here, a float: of the exact amount, which stands beside each as text, called x_.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from fakecloud.billing import money
from fakecloud.billing import report as reports
from fakecloud.billing.money import PICO
from fakecloud.billing.prices import PriceBook, Sku
from fakecloud.billing.quantities import HOUR_US, MICRO
from fakecloud.billing.usage import Attribution, Charge
from fakecloud.clock import rfc3339

NOBODY: Final = "__unallocated__"
_NETWORK: Final = frozenset({"bytes_out"})
_NONE: Final = (
    "cpuCost", "gpuCost", "ramCost", "pvCost", "networkCrossZoneCost", "networkCrossRegionCost",
    "sharedCost", "externalCost", "loadBalancerCostAdjustment", "networkCostAdjustment",
)  # fmt: skip


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Charges of [start, end) with all that is said of them.

    lived_us: for how long of it each resource was billed. ips: of what is still there. books: by
    their ids.
    """

    start: datetime
    end: datetime
    charges: Sequence[Charge]
    people: Mapping[str, Attribution]
    lived_us: Mapping[str, int]
    ips: Mapping[str, str]
    books: Mapping[str, PriceBook]


def allocation(of: Picture, aggregate: Sequence[str]) -> dict[str, Any]:
    """Return costs by names of a report's groups. Raises: InvalidParameter for an unknown one."""
    readers = [reports.reader(token) for token in aggregate]
    network = {
        (id, sku.id) for id, book in of.books.items() for sku in book.skus if sku.meter in _NETWORK
    }
    groups: defaultdict[str, list[Charge]] = defaultdict(list)
    for charge in of.charges:
        parts = (read(charge, of.people[charge.attribution]) or NOBODY for read in readers)
        groups["/".join(parts)].append(charge)
    return {name: _allocation(of, name, groups[name], network) for name in sorted(groups)}


def _allocation(
    of: Picture, name: str, charges: Sequence[Charge], network: Collection[tuple[str, str]]
) -> dict[str, Any]:
    """Return one allocation. network: the books and SKUs that are of traffic."""
    traffic = 0
    balancers: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in charges:
        if (one.book, one.sku) in network:
            traffic += one.billed_pico
        else:
            balancers[one.resource, one.attribution] += one.billed_pico
    people = [of.people[one] for one in dict.fromkeys(charge.attribution for charge in charges)]
    fixed = sum(balancers.values())
    return {
        "name": name,
        "properties": {
            "cluster": _common(people, "cluster"),
            "namespace": _common(people, "namespace"),
            "services": sorted(
                {one.labels["service"] for one in people if "service" in one.labels}
            ),
        },
        **_window(of),
        **dict.fromkeys(_NONE, 0),
        **_amounts("loadBalancerCost", fixed),
        **_amounts("networkCost", traffic),
        **_amounts("networkInternetCost", traffic),
        **_amounts("totalCost", fixed + traffic),
        "loadBalancers": {
            f"{resource}/{attribution}": {
                "service": _service(of.people[attribution]),
                **_amounts("cost", pico),
                "private": False,
                "ip": of.ips.get(resource, ""),
                "hours": of.lived_us.get(resource, 0) / HOUR_US,
                "adjustment": 0,
            }
            for (resource, attribution), pico in balancers.items()
        },
    }


def assets(of: Picture) -> dict[str, Any]:
    """Return what each load balancer and address comes to, by its id."""
    sums: defaultdict[str, int] = defaultdict(int)
    whose: dict[str, Attribution] = {}
    for one in of.charges:
        sums[one.resource] += one.billed_pico
        whose[one.resource] = of.people[one.attribution]
    return {
        resource: {
            "type": "LoadBalancer",
            "properties": {
                "category": "Network",
                "provider": "fakecloud",
                "project": whose[resource].account,
                "cluster": whose[resource].labels.get("cluster", ""),
                "service": "Load Balancing",
                "name": whose[resource].name,
                "providerID": resource,
            },
            "labels": whose[resource].labels,
            **_window(of),
            "minutes": of.lived_us.get(resource, 0) / (60 * MICRO),
            "adjustment": 0,
            **_amounts("cost", pico),
            "ip": of.ips.get(resource, ""),
            "private": False,
        }
        for resource, pico in sums.items()
    }


def custom_costs(of: Picture) -> dict[str, Any]:
    """Return what each price of each resource comes to."""
    sums: defaultdict[tuple[str, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in of.charges:
        both = sums[one.resource, one.attribution, one.sku, one.price_id, one.book]
        both[0] += one.billed_pico
        both[1] += one.list_pico
    return {
        "window": {"start": rfc3339(of.start), "end": rfc3339(of.end)},
        **_amounts("totalCost", sum(billed for billed, _ in sums.values())),
        "totalCostType": "billed",
        "customCosts": [
            {
                "id": f"{resource}/{price}",
                "zone": "local-1",
                "account_name": of.people[attribution].account,
                "charge_category": "usage",
                "description": _sku(of.books[book], sku).description,
                "resource_name": of.people[attribution].name,
                "resource_type": "load_balancer",
                "provider_id": resource,
                **_amounts("cost", billed),
                **_amounts("x_list_cost", listed),
                "usage_unit": _sku(of.books[book], sku).unit,
                "domain": "fakecloud",
                "cost_source": book,
                "aggregate": "",
                "cost_type": "billed",
            }
            for (resource, attribution, sku, price, book), (billed, listed) in sums.items()
        ],
    }


def _amounts(name: str, pico: int) -> dict[str, Any]:
    return {name: number(pico), f"x_{name.removeprefix('x_')}_exact": money.text(pico)}


def number(pico: int) -> float:
    """Return an amount as those who can't take text read it."""
    return pico / PICO


def _window(of: Picture) -> dict[str, Any]:
    start, end = rfc3339(of.start), rfc3339(of.end)
    minutes = (of.end - of.start).total_seconds() / 60
    return {
        "window": {"start": start, "end": end}, "start": start, "end": end, "minutes": minutes,
    }  # fmt: skip


def _sku(book: PriceBook, sku: str) -> Sku:
    return next(one for one in book.skus if one.id == sku)


def _service(of: Attribution) -> str:
    if "service" not in of.labels:
        return of.name
    return f"{of.labels.get('namespace', '')}/{of.labels['service']}"


def _common(people: Iterable[Attribution], label: str) -> str:
    found = {one.labels.get(label, "") for one in people}
    return found.pop() if len(found) == 1 else ""
