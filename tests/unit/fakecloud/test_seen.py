"""What the watch hub has seen: the newest document of each load balancer, never an outdated one."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from fakecloud.domain import documents
from fakecloud.model import LoadBalancer
from fakecloud.requests.wishes import Wish
from fakecloud.store import events, load_balancers
from fakecloud.watch import hub as watch
from fakecloud.watch.seen import Seen


@pytest.fixture
def hub(cloud) -> watch.Hub:
    made = watch.Hub(cloud.database, max_watches=1)
    cloud.database.on_commit(made.notify)
    return made


def encoded(lb: LoadBalancer) -> bytes:
    return msgspec.json.encode(documents.load_balancer(lb))


def relabel(cloud, name: str, **labels: str) -> LoadBalancer:
    lb = cloud.desk.find("default", name)
    wish = Wish(labels=labels, annotations=lb.annotations, spec=lb.spec)
    return cloud.desk.put("default", name, wish)[0]


def feed(cloud, seen: Seen, after: int) -> None:
    with cloud.database.read() as connection:
        for event in events.since(connection, after, 1000):
            seen.apply(event)


def test_a_snapshot_and_what_came_after_it_are_what_the_database_says(cloud):
    cloud.put("web")
    seen = Seen()
    with cloud.database.read() as connection:
        version = seen.load(connection)
    cloud.put("api")
    changed = relabel(cloud, "web", team="b")
    feed(cloud, seen, version)
    for lb in (changed, cloud.desk.find("default", "api")):
        for key in (lb.name, lb.id):
            found = seen.find("default", key)
            assert found is not None
            assert (found.body, found.etag.decode()) == (encoded(lb), documents.etag(lb))
    assert seen.find("other", "web") is None


def test_events_from_before_the_snapshot_change_nothing(cloud):
    cloud.put("web")
    changed = relabel(cloud, "web", team="b")
    seen = Seen()
    with cloud.database.read() as connection:
        seen.load(connection)
    feed(cloud, seen, 0)
    found = seen.find("default", "web")
    assert found is not None
    assert found.body == encoded(changed)


def test_what_was_deleted_is_gone_also_by_its_id(cloud):
    cloud.put("web")
    seen = Seen()
    with cloud.database.read() as connection:
        version = seen.load(connection)
    lb = cloud.desk.find("default", "web")
    cloud.desk.delete("default", "web")
    cloud.settle()
    feed(cloud, seen, version)
    assert seen.find("default", "web") is None
    assert seen.find("default", lb.id) is None


def test_what_doesnt_fit_is_not_kept_and_never_outdated(cloud):
    cloud.put("web")
    lb = cloud.desk.find("default", "web")
    seen = Seen(most_bytes=len(encoded(lb)))
    with cloud.database.read() as connection:
        version = seen.load(connection)
    cloud.put("api")
    relabel(cloud, "web", team="a name that makes it larger than before")
    feed(cloud, seen, version)
    assert seen.find("default", "web") is None
    with cloud.database.read() as connection:
        assert load_balancers.find(connection, "default", "web") is not None


def test_who_has_committed_something_waits_until_it_is_seen(cloud, hub):
    async def scenario() -> None:
        await hub.step()
        assert await hub.caught_up()
        cloud.put("web")
        asked = asyncio.create_task(hub.caught_up())
        await asyncio.sleep(0)
        assert not asked.done()
        await hub.step()
        assert await asked
        assert hub.seen.find("default", "web") is not None

    asyncio.run(scenario())


def test_nobody_is_told_that_an_unread_history_is_up_to_date(cloud, hub):
    async def scenario() -> None:
        assert not await hub.caught_up(), "nothing was read yet"
        await hub.step()
        cloud.put("web")
        assert not await hub.caught_up(), "nobody reads it"

    asyncio.run(scenario())


def test_a_history_that_was_trimmed_too_far_is_no_gap(cloud, hub):
    for name in ("web", "api"):
        cloud.put(name)
    with cloud.database.write() as connection:
        events.trim(connection, 0)
    asyncio.run(hub.step())
    for name in ("web", "api"):
        found = hub.seen.find("default", name)
        assert found is not None
        assert found.body == encoded(cloud.desk.find("default", name))
