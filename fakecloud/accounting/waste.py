"""The report of what costs and serves nobody, and what clusters say they have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from fakecloud.accounting.costs import Costs, Found
from fakecloud.billing import events, money, projection, waste
from fakecloud.billing import report as reports
from fakecloud.billing.usage import Charge, Span
from fakecloud.clock import Clock, rfc3339
from fakecloud.errors import NotFound, QuotaExceeded
from fakecloud.resources import ReservedAddress
from fakecloud.store import inventories, load_balancers, reservations, traffic
from fakecloud.store.database import Connection, Database
from fakecloud.store.inventories import Inventory

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOST_CLUSTERS: Final = 1000
CHUNK: Final = 500


class Waste:
    """The desk for savings; it never deletes. Every method may raise Unavailable."""

    def __init__(self, database: Database, costs: Costs, clock: Clock) -> None:
        """Judge what is in `database`; say by `costs` what it comes to."""
        self._database = database
        self._costs = costs
        self._clock = clock

    def report(self, project: str, policy: waste.Policy) -> dict[str, Any]:
        """Return every finding with its cost to date and a month's, the dearest first."""
        at = waste.Moment(now=self._clock.now(), wall=self._clock.wall())
        asked = reports.Asked(start=_EPOCH, end=at.now, group_by=("load_balancer",))
        charged = self._costs.found(project, asked)
        with self._database.read() as connection:
            living = load_balancers.living(connection, project)
            used = _connections(connection, [lb.id for lb in living], at.now - policy.idle, at.now)
            known = _known(inventories.of_project(connection, project))
            spare = [
                one for one in reservations.living(connection, project) if one.load_balancer is None
            ]
        made = list(waste.findings(living, used, known, at, policy))
        cost, rate = _by_resource(charged.charges), _by_resource(charged.monthly)
        items = [self._finding(project, one, cost, rate, at) for one in made]
        items += [_unattached(one, cost, charged) for one in spare]
        items.sort(key=lambda one: (-one.rate_pico, one.document["name"]))
        each = {one.document["id"]: one.rate_pico for one in items}
        return {
            "as_of": rfc3339(at.now),
            "currency": charged.book.currency,
            "price_book": charged.book.id,
            "monthly_run_rate": money.text(sum(each.values())),
            "items": [one.document for one in items],
            "clusters": [
                {
                    "cluster_uid": uid,
                    "services": len(one.services),
                    "lease_until": rfc3339(one.lease_until),
                    "heard_of": one.lease_until >= at.wall,
                }
                for uid, one in sorted(known.items())
            ],
        }

    def _finding(
        self,
        project: str,
        one: waste.Finding,
        cost: Mapping[str, int],
        rate: Mapping[str, int],
        at: waste.Moment,
    ) -> _Item:
        lb = one.lb
        since = None
        if one.since is not None:
            asked = reports.Asked(start=one.since, end=at.now, group_by=("load_balancer",))
            if one.since < at.now:
                since = _by_resource(self._costs.found(project, asked).charges).get(lb.id, 0)
        stuck = one.kind is waste.Kind.STUCK_DELETE
        command = f"fakecloud op get {lb.operation}" if stuck else f"fakecloud lb delete {lb.name}"
        labels = ("cluster", "cluster-uid", "namespace", "service", "service-uid")
        document: dict[str, Any] = {
            "kind": one.kind.value,
            "resource": "load_balancer",
            "id": lb.id,
            "name": lb.name,
            "labels": {name: lb.labels[name] for name in labels if name in lb.labels},
            "why": one.why,
            "since": None if one.since is None else rfc3339(one.since),
            "cost_since": None if since is None else money.text(since),
            "cost_to_date": money.text(cost.get(lb.id, 0)),
            "monthly_run_rate": money.text(rate.get(lb.id, 0)),
            "protected": lb.spec.deletion_protection,
            "command": command,
        }
        return _Item(rate_pico=rate.get(lb.id, 0), document=document)

    def take_inventory(
        self, project: str, cluster_uid: str, services: Iterable[str], lease_s: int
    ) -> tuple[Inventory, bool]:
        """Keep what a cluster says it has, for so long; say whether it differs from before.

        Raises: QuotaExceeded when too many clusters have.
        """
        wall = self._clock.wall()
        found = Inventory(
            cluster_uid=cluster_uid,
            services=frozenset(services),
            taken_at=wall,
            lease_until=wall + timedelta(seconds=lease_s),
            taken_us=events.seconds_us(self._clock.now()),
        )
        with self._database.write() as connection:
            before = inventories.find(connection, project, cluster_uid)
            if before is None and inventories.count(connection, project) >= MOST_CLUSTERS:
                raise QuotaExceeded(
                    f"project {project!r} has inventories of {MOST_CLUSTERS} clusters; delete "
                    "those of clusters that are gone",
                    metric="inventories",
                    limit=MOST_CLUSTERS,
                    in_use=MOST_CLUSTERS,
                )
            inventories.put(connection, project, found)
        return found, before is None or before.services != found.services

    def inventory(self, project: str, cluster_uid: str) -> Inventory:
        """Return what a cluster said last. Raises: NotFound."""
        with self._database.read() as connection:
            found = inventories.find(connection, project, cluster_uid)
        if found is None:
            raise NotFound(f"cluster {cluster_uid!r} has sent no inventory")
        return found

    def forget_inventory(self, project: str, cluster_uid: str) -> None:
        """Forget what a cluster said: nothing of it is an orphan any more. Raises: NotFound."""
        with self._database.write() as connection:
            if not inventories.remove(connection, project, cluster_uid):
                raise NotFound(f"cluster {cluster_uid!r} has sent no inventory")


class _Item(msgspec.Struct, frozen=True, kw_only=True):
    rate_pico: int
    document: dict[str, Any]


def _unattached(one: ReservedAddress, cost: Mapping[str, int], charged: Found) -> _Item:
    span = Span(start_us=0, end_us=0, attribution="", ipv4_idle=int(one.family == "ipv4"))
    month = projection.month_of([(one.id, span)])
    rate = sum(line.billed_pico for line in projection.bill(month, charged.book))
    document: dict[str, Any] = {
        "kind": waste.Kind.UNATTACHED_ADDRESS.value,
        "resource": "address",
        "id": one.id,
        "name": one.name,
        "labels": {},
        "why": f"no load balancer uses {one.ip}",
        "since": None,
        "cost_since": None,
        "cost_to_date": money.text(cost.get(one.id, 0)),
        "monthly_run_rate": money.text(rate),
        "protected": False,
        "command": 'curl -X DELETE -H "Authorization: Bearer $FAKECLOUD_TOKEN" '
        f'"$FAKECLOUD_URL/v1/addresses/{one.name}"',
    }
    return _Item(rate_pico=rate, document=document)


def _by_resource(charges: Iterable[Charge]) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for one in charges:
        found[one.resource] += one.billed_pico
    return dict(found)


def _connections(
    connection: Connection, ids: list[str], start: datetime, end: datetime
) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for first in range(0, len(ids), CHUNK):
        for one in traffic.carried(connection, ids[first : first + CHUNK], start, end):
            found[one.load_balancer_id] += one.connections
    return dict(found)


def _known(found: Mapping[str, Inventory]) -> dict[str, waste.Known]:
    return {
        uid: waste.Known(
            services=one.services,
            taken_at=one.taken_at,
            lease_until=one.lease_until,
            seen=_EPOCH + timedelta(microseconds=one.taken_us),
        )
        for uid, one in found.items()
    }
