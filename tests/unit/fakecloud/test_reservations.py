"""Reserved addresses, actions and instances on both databases."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec
import pytest

from fakecloud import errors, model
from fakecloud.access.quotas import Quotas
from fakecloud.accounting.ledger import Ledger
from fakecloud.billing import books
from fakecloud.domain.addresses import parse_pool
from fakecloud.model import AddressRequest, State
from fakecloud.provisioning.results import Result
from fakecloud.requests.actions import Actions
from fakecloud.requests.instances import Instances
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.requests.reservations import Reservations, Wanted
from fakecloud.resources import InstanceWish
from fakecloud.store import billing_events, listings, operations
from fakecloud.watch.hub import Hub
from tests.fakes.small_cloud import PROJECT, SmallCloud, spec


@pytest.fixture
def desk(cloud: SmallCloud) -> Reservations:
    return Reservations(cloud.database, [cloud.pool], cloud.clock)


def asking(ip: str, port: int = 8080) -> model.Spec:
    return spec(port, addresses=(AddressRequest(ip=ip),))


def test_a_reserved_address_is_never_given_by_chance(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    given = [cloud.active(f"lb{n}", spec(8080 + n)).addresses[0].ip for n in range(5)]
    assert ip not in given
    with pytest.raises(errors.NoCapacity):
        cloud.put("full", spec(8090))


def test_a_reserved_address_comes_back_without_rest(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    assert cloud.active("one", asking(ip)).addresses[0].ip == ip
    assert desk.find(PROJECT, "kept").load_balancer == "one"
    with pytest.raises(errors.InUse):
        desk.give_up(PROJECT, "kept")
    with pytest.raises(errors.AddressInUse):
        cloud.put("two", asking(ip, 8081))
    cloud.delete("one")
    cloud.settle()
    assert cloud.active("two", asking(ip, 8081)).addresses[0].ip == ip


def test_one_given_up_rests(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    desk.give_up(PROJECT, ip)
    with pytest.raises(errors.AddressInUse):
        desk.reserve(PROJECT, Wanted(name="again", ip=ip))
    assert desk.pools()[0].resting == 1
    cloud.clock.advance(61)
    assert desk.reserve(PROJECT, Wanted(name="again", ip=ip)).ip == ip
    assert (desk.pools()[0].resting, desk.pools()[0].reserved) == (0, 1)


def test_it_is_billed_while_nothing_uses_it(cloud, desk):
    """2 hours before a load balancer has it, 1 hour after, none while it does or later."""
    ledger = Ledger(cloud.database, cloud.clock, books.load("generic"))
    ledger.start()
    begun = ledger.now_us()
    kept = desk.reserve(PROJECT, Wanted(name="kept", labels={"team": "x"}))
    desk.reserve(PROJECT, Wanted(name="other"))
    cloud.clock.advance(2 * 3600)
    cloud.active("one", asking(kept.ip))
    cloud.clock.advance(3 * 3600)
    cloud.delete("one")
    cloud.settle()
    cloud.clock.advance(3600)
    desk.give_up(PROJECT, "kept")
    cloud.clock.advance(10 * 3600)
    with cloud.database.read() as connection:
        found = list(ledger.charge(connection, PROJECT, begun, ledger.now_us()))
        people = billing_events.attributions(
            connection, {one.attribution: one.resource for one in found}
        )
    hours: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in found:
        if one.sku.startswith("ipv4"):
            hours[people[one.attribution].name, one.sku] += one.quantity_micros // 10**6
    assert hours == {
        ("kept", "ipv4-idle-hour"): 3,
        ("one", "ipv4-inuse-hour"): 3,
        ("other", "ipv4-idle-hour"): 16,
    }
    assert {one.resource for one in found if one.sku == "lb-hour"} != {kept.id}


def test_of_another_project_it_cant_be_asked_for(cloud, desk):
    ip = desk.reserve("other", Wanted(name="theirs")).ip
    with pytest.raises(errors.AddressInUse):
        cloud.put("theft", asking(ip))
    with pytest.raises(errors.NotFound):
        desk.find(PROJECT, "theirs")
    assert cloud.living() == []


def test_a_reserved_one_is_let_go_when_it_is_no_longer_asked_for(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    cloud.active("one", asking(ip))
    other = cloud.active("one", spec(8081)).addresses[0].ip
    assert other != ip
    assert desk.find(PROJECT, "kept").load_balancer is None
    assert cloud.active("one", spec(8082)).addresses[0].ip == other, "an own one is kept"


def test_a_name_is_reserved_once(cloud, desk):
    first = desk.reserve(PROJECT, Wanted(name="kept"))
    assert desk.reserve(PROJECT, Wanted(name="kept")) == first
    with pytest.raises(errors.NameInUse):
        desk.reserve(PROJECT, Wanted(name="kept", labels={"a": "b"}))
    with pytest.raises(errors.ValidationFailed):
        desk.reserve(PROJECT, Wanted(name="far", ip="10.0.0.1"))


def test_repair_takes_up_a_failed_one_at_once(cloud):
    cloud.dataplane.fail_next = [errors.Permanent("config_invalid", "no")]
    assert cloud.active("web").state is State.ERROR
    again = Actions(cloud.database, cloud.clock).repair(PROJECT, "web")
    assert (again.state, again.attempts) == (State.PENDING, 0)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    ended = {op.type: op.status.value for op in cloud.operations()}
    assert ended == {"create": "FAILED", "repair": "SUCCEEDED"}


def test_failover_gives_it_to_whoever_comes_next(cloud):
    cloud.active("web")
    moved = Actions(cloud.database, cloud.clock).failover(PROJECT, "web")
    assert (moved.state, moved.host) == (State.UPDATING, None)
    cloud.settle()
    assert cloud.get("web").state is State.ACTIVE
    ended = {op.type: op.status.value for op in cloud.operations()}
    assert ended == {"create": "SUCCEEDED", "system.failover": "SUCCEEDED"}
    cloud.delete("web")
    with pytest.raises(errors.BeingDeleted):
        Actions(cloud.database, cloud.clock).failover(PROJECT, "web")


def test_only_work_that_nobody_is_at_can_be_cancelled(cloud):
    actions = Actions(cloud.database, cloud.clock)
    cloud.put("web")
    id = cloud.get("web").operation
    claimed = cloud.provisioner._claims.take()
    assert claimed is not None
    with pytest.raises(errors.NotCancellable, match="busy"):
        actions.cancel(PROJECT, id)
    cloud.provisioner._results.hand_in(Result(claimed, errors.Transient("bind_failed", "taken")))
    ended = actions.cancel(PROJECT, id)
    assert (ended.status.value, cloud.get("web").state) == ("CANCELLED", State.ERROR)
    cloud.clock.advance(1000)
    assert cloud.settle() == 0, "it waits"
    with pytest.raises(errors.NotCancellable, match="ended"):
        actions.cancel(PROJECT, id)
    cloud.delete("web")
    with pytest.raises(errors.NotCancellable, match="deletes"):
        actions.cancel(PROJECT, cloud.get("web").operation)


def test_pages_go_through_everything_once_in_every_order(cloud):
    desk = Instances(cloud.database, cloud.clock, Quotas())
    for name in ("c", "a", "b"):
        desk.create(PROJECT, name, InstanceWish(labels={"n": name, 'o"d': "x"}))
        cloud.clock.advance(1)
    desk.put(PROJECT, "c", InstanceWish(power_state="stopped"))
    for order, expected in (("name", "abc"), ("created_at", "cab"), ("updated_at", "abc")):
        for descending in (False, True):
            found, after = "", None
            while True:
                page = listings.Page(order=order, descending=descending, after=after, limit=1)
                _, rows = desk.page(PROJECT, page)
                if not rows:
                    break
                found, after = found + rows[0][1].name, rows[0][0]
            assert found == (expected[::-1] if descending else expected)
    for labels, names in (((("n", "a"),), ["a"]), ((('o"d', "x"),), ["c", "a", "b"])):
        _, rows = desk.page(PROJECT, listings.Page(order="created_at", labels=labels))
        assert [one.name for _, one in rows] == names, "strange keys are left to the reader"


def told(cloud: SmallCloud) -> list[tuple[str, str, str | None]]:
    """Return what the events say of reserved addresses: type, state, user."""
    found = [one for one in cloud.events() if one.kind == "address"]
    documents = [msgspec.json.decode(one.object) for one in found]
    assert [int(one["resource_version"]) for one in documents] == [
        one.resource_version for one in found
    ]
    return [
        (event.type, one["state"], one["load_balancer"])
        for event, one in zip(found, documents, strict=True)
    ]


def test_every_change_of_a_reserved_address_is_an_event(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    desk.reserve(PROJECT, Wanted(name="kept"))
    assert told(cloud) == [("ADDED", "RESERVED", None)]
    cloud.active("one", asking(ip))
    assert told(cloud)[1:] == [("MODIFIED", "ASSIGNED", "one")]
    cloud.active("one", spec(8080))
    assert told(cloud)[2:] == [("MODIFIED", "RESERVED", None)]
    cloud.active("one", asking(ip))
    cloud.delete("one")
    cloud.settle()
    assert told(cloud)[3:] == [("MODIFIED", "ASSIGNED", "one"), ("MODIFIED", "RESERVED", None)]
    last = desk.find(PROJECT, "kept")
    cloud.clock.advance(5)
    desk.give_up(PROJECT, "kept")
    assert told(cloud)[5:] == [("DELETED", "RESERVED", None)]
    assert last.updated_at >= last.created_at
    assert last.resource_version < cloud.events()[-1].resource_version


def test_other_addresses_make_no_events_of_their_own(cloud, desk):
    cloud.active("one")
    cloud.delete("one")
    cloud.settle()
    assert told(cloud) == []


def test_nothing_created_at_the_moment_where_a_page_ends_is_lost(cloud, desk):
    """The order is that of commits: ids of one moment are in none."""

    def page(after: listings.Key | None) -> list[tuple[listings.Key, str]]:
        asked = listings.Page(order="created_at", after=after, limit=2)
        with cloud.database.read() as connection:
            of_operations = operations.listing(connection, PROJECT, asked)
        return [(key, one.id) for key, one in of_operations]

    pool = parse_pool("default=loopback:127.77.0.0/24")
    cloud.desk = LoadBalancers(cloud.database, [pool], cloud.clock)
    seen: list[str] = []
    after = None
    for number in range(12):
        cloud.put(f"a{number}", spec(8000 + number))
        cloud.put(f"b{number}", spec(9000 + number))
        found = page(after)
        assert len(found) == 2, "two more, whatever their ids"
        after = found[-1][0]
        seen += [id for _, id in found]
    assert sorted(seen) == sorted(one.id for one in cloud.operations())


def test_resuming_a_watch_of_addresses_has_no_gap(cloud, desk):
    ip = desk.reserve(PROJECT, Wanted(name="kept")).ip
    version = desk.find(PROJECT, "kept").resource_version
    cloud.active("one", asking(ip))

    async def resumed() -> list[str]:
        hub = Hub(cloud.database, max_watches=5)
        with hub.subscribed(PROJECT, frozenset({"address"}), version) as watcher:
            return [frame.type for frame in await hub.history(watcher, version)]

    async def initial() -> list[tuple[str, str]]:
        hub = Hub(cloud.database, max_watches=5)
        with hub.subscribed(PROJECT, frozenset({"address"}), None) as watcher:
            return [(frame.type, frame.kind) for frame in await hub.snapshot(watcher)]

    assert asyncio.run(resumed()) == ["MODIFIED"]
    assert asyncio.run(initial()) == [("ADDED", "address"), ("BOOKMARK", "")]
