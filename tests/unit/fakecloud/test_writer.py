"""Changes of many requests together: each gets what it would have got alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
import sqlalchemy
from starlette.responses import Response

from fakecloud.api.writer import Change, Writer
from fakecloud.errors import BeingDeleted, NoCapacity, Unavailable, ValidationFailed
from fakecloud.model import Listener, LoadBalancer, Spec, Tls
from fakecloud.requests.wishes import Done, Put
from tests.fakes.small_cloud import PROJECT, SmallCloud, spec, wish


class Requests:
    """PUTs that come at the same time; `statements` counts what the database was asked."""

    def __init__(self, cloud: SmallCloud) -> None:
        self.cloud = cloud
        self.writer = Writer(cloud.database, cloud.desk)
        self.digests: dict[str, str | None] = {}
        self.statements = 0
        sqlalchemy.event.listen(cloud.database.engine, "before_cursor_execute", self._count)

    def _count(self, *_told: object) -> None:
        self.statements += 1

    def put(self, name: str, port: int = 80, of: Spec | None = None) -> Change:
        wanted = wish(of or spec(port))

        def run() -> Response:
            return _answer(self.cloud.desk.put(PROJECT, name, wanted)[0])

        def done(_connection: object, done: Done, digest: str | None) -> Response:
            self.digests[name] = digest
            return _answer(done.lb)

        return Change(run, Put(project=PROJECT, name=name, wish=wanted), done)

    async def at_once(self, *changes: Change) -> list[Response | BaseException]:
        """Return what each got; they wait together."""
        self.statements = 0
        with self.cloud.database.write():  # nobody begins before all are there
            made = [asyncio.create_task(self.writer.make(change)) for change in changes]
            while len(self.writer._waiting) < len(changes) - 1:
                await asyncio.sleep(0)
        return await asyncio.gather(*made, return_exceptions=True)


def _answer(lb: LoadBalancer) -> Response:
    return Response(msgspec.json.encode([lb.name, lb.generation, lb.pk, lb.resource_version]))


@pytest.fixture
def requests(cloud) -> Iterator[Requests]:
    return Requests(cloud)


async def test_new_ones_are_created_together(requests):
    """A statement for all of them; rows, events and answers as if each had come alone."""
    await requests.at_once(*(requests.put(f"lb-{n}") for n in range(5)))
    for lb in requests.cloud.living():
        found = [e for e in requests.cloud.events() if lb.id in e.object]
        kinds = [(e.kind, e.type) for e in found]
        assert kinds == [("load_balancer", "ADDED"), ("operation", "ADDED")]
        assert lb.resource_version == found[0].resource_version
        assert requests.cloud.desk.find(PROJECT, lb.name).addresses == lb.addresses
    assert sorted(lb.name for lb in requests.cloud.living()) == [f"lb-{n}" for n in range(5)]
    assert len({lb.addresses[0].ip for lb in requests.cloud.living()}) == 5
    assert requests.cloud.settle() == 5


async def test_a_certificate_that_is_not_there_is_refused_among_others_too(requests):
    listener = Listener(
        name="web", protocol="https", port=443, target_group="web", tls=Tls(certificates=("no",))
    )
    unknown = msgspec.structs.replace(spec(), listeners=(listener,))
    found = await requests.at_once(
        requests.put("a"), requests.put("b"), requests.put("c", of=unknown)
    )
    assert [type(one) for one in found] == [Response, Response, ValidationFailed]
    assert sorted(lb.name for lb in requests.cloud.living()) == ["a", "b"]


async def test_each_has_the_hash_of_its_own_events(requests):
    await requests.at_once(*(requests.put(f"lb-{n}") for n in range(5)))
    assert len(set(requests.digests.values()) - {None}) == len(requests.digests) >= 4


async def test_who_is_there_already_is_replaced_beside_new_ones(requests):
    requests.cloud.active("old")
    answers = await requests.at_once(*(requests.put(name, 81) for name in ("a", "old", "b")))
    found = [msgspec.json.decode(one.body)[:2] for one in answers]
    assert found == [["a", 1], ["old", 2], ["b", 1]]


async def test_those_that_are_there_are_replaced_together(requests):
    """A statement for all of them; each keeps its address and has its own events and hash."""
    cloud = requests.cloud
    before = {n: cloud.active(f"lb-{n}") for n in range(5)}
    await requests.at_once(requests.put("lb-0", 81))
    alone = requests.statements
    seen = len(cloud.events())
    requests.digests.clear()
    await requests.at_once(*(requests.put(f"lb-{n}", 82) for n in range(5)))
    assert requests.statements < 2 * alone
    assert len(set(requests.digests.values()) - {None}) == len(requests.digests) >= 4
    for lb in before.values():
        now = cloud.desk.find(PROJECT, lb.name)
        assert (now.id, now.addresses, now.spec.listeners[0].port) == (lb.id, lb.addresses, 82)
        found = [(e.kind, e.type) for e in cloud.events()[seen:] if lb.id in e.object]
        assert found == [("load_balancer", "MODIFIED"), ("operation", "ADDED")]


async def test_what_is_already_so_leaves_no_event_among_others(requests):
    await requests.at_once(requests.put("same"))
    seen = len(requests.cloud.events())
    requests.digests.clear()
    answers = await requests.at_once(*(requests.put(name) for name in ("a", "same", "b", "c")))
    assert msgspec.json.decode(answers[1].body)[1] == 1
    assert requests.digests.get("same") is None
    assert "same" not in {e.object_id for e in requests.cloud.events()[seen:]}
    assert len(requests.cloud.events()) - seen == 6


async def test_the_same_name_twice_is_created_once_and_replaced_once(requests):
    answers = await requests.at_once(requests.put("web", 80), requests.put("web", 81))
    assert [msgspec.json.decode(one.body)[1] for one in answers] == [1, 2]
    assert [lb.spec.listeners[0].port for lb in requests.cloud.living()] == [81]


async def test_when_there_is_not_enough_for_all_some_get_it(requests):
    """The pool has six addresses: nobody is refused because of somebody else."""
    answers = await requests.at_once(*(requests.put(f"lb-{n}") for n in range(8)))
    refused = [one for one in answers if isinstance(one, NoCapacity)]
    assert (len(refused), len(requests.cloud.living())) == (2, 6)
    assert len({lb.addresses[0].ip for lb in requests.cloud.living()}) == 6


async def test_one_that_is_refused_does_not_touch_the_others(requests):
    requests.cloud.active("going")
    requests.cloud.delete("going")
    answers = await requests.at_once(*(requests.put(name) for name in ("a", "going", "b")))
    assert [type(one) for one in answers] == [Response, BeingDeleted, Response]


async def test_everybody_is_told_that_nothing_could_be_written(requests, monkeypatch):
    def refuse(*_blocks: object) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(requests.cloud.database, "write_each", refuse)
    answers = await requests.at_once(requests.put("a"), requests.put("b"))
    assert [type(one) for one in answers] == [Unavailable, Unavailable]


async def test_a_full_pool_is_found_full_by_a_few_queries(cloud, requests):
    """Asking for each address took seconds for a /16, with the write lock held."""
    for n in range(6):
        cloud.put(f"lb-{n}")
    requests.statements = 0
    with pytest.raises(NoCapacity, match="has no free address"):
        cloud.put("one-more")
    assert requests.statements < 10


async def test_workers_wait_while_somebody_waits_for_an_answer_but_not_for_ever(requests):
    writer = requests.writer
    assert writer.idle(5)  # at once: nobody asks for anything
    with requests.cloud.database.write():
        made = asyncio.create_task(writer.make(requests.put("a")))
        await asyncio.sleep(0)
        assert not writer.idle(0)
    await made
    assert await asyncio.to_thread(writer.idle, 5)  # a moment later: the burst may go on
