"""The stream of changes: once, in order, resumable, and never without bound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from threading import Thread
from typing import Any

import httpx2
import pytest

from fakecloud.store import events
from fakecloud.watch import hub as watch
from tests.flows.conftest import CLOCK, Running, document, eventually

pytestmark = pytest.mark.haproxy

NOTHING = document([])


class Reader:
    """Reads a watch in a thread; `frames` are those so far, `ended` is set when it ends."""

    def __init__(self, cloud: Running, accept: str | None = None, **params: object) -> None:
        headers = {"authorization": f"Bearer {cloud.token}"} | (
            {"accept": accept} if accept else {}
        )
        self._client = httpx2.Client(base_url=cloud.url, headers=headers, timeout=None)
        self.frames: list[dict[str, Any]] = []
        self.ended = False
        self._opened = self._client.stream("GET", "/v1/watch", params=params)
        self._answer = self._opened.__enter__()
        assert self._answer.status_code == 200
        self.kind = self._answer.headers["content-type"]
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self._answer.iter_lines():
                if line.startswith("{"):
                    self.frames.append(json.loads(line))
        except httpx2.HTTPError:
            pass
        self.ended = True

    def objects(self) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] in ("ADDED", "MODIFIED", "DELETED")]

    def close(self) -> None:
        self._answer.close()
        self._client.close()


@contextmanager
def reading(cloud: Running, **params: object) -> Iterator[Reader]:
    reader = Reader(cloud, **params)
    try:
        yield reader
    finally:
        reader.close()


def version(cloud: Running) -> int:
    return int(cloud.http.get("/v1/load-balancers").json()["resource_version"])


def states(reader: Reader) -> list[str]:
    return [
        frame["object"]["status"]["state"]
        for frame in reader.objects()
        if frame["kind"] == "load_balancer"
    ]


def test_active_and_gone_arrive_by_the_stream(cloud):
    with reading(cloud) as reader:
        assert reader.kind.startswith("application/x-ndjson")
        cloud.put("web", NOTHING)
        eventually(lambda: "ACTIVE" in states(reader))
        cloud.http.delete("/v1/load-balancers/web")
        eventually(lambda: "DELETED" in states(reader))
    of_lb = [f for f in reader.objects() if f["kind"] == "load_balancer"]
    assert of_lb[0]["type"] == "ADDED"
    assert of_lb[-1]["type"] == "DELETED"
    assert of_lb[-1]["object"]["name"] == "web"
    of_operation = [f["object"] for f in reader.objects() if f["kind"] == "operation"]
    assert {"create", "delete"} == {one["type"] for one in of_operation}
    assert all(f["resource_version"] == _inner(f) for f in reader.objects())


def _inner(frame: dict[str, Any]) -> str:
    thing = frame["object"]
    found: str = thing.get("status")["resource_version"] if "spec" in thing else None
    return found or thing["resource_version"]


def test_only_the_asked_kinds_come(cloud):
    with reading(cloud, kinds="operation") as reader:
        cloud.active("web", NOTHING)
        eventually(lambda: len(reader.objects()) >= 2)
    assert {frame["kind"] for frame in reader.objects()} == {"operation"}


def test_initial_is_list_and_watch_in_one(cloud):
    for number in range(3):
        cloud.active(f"lb-{number}", NOTHING)
    with reading(cloud, initial="true", kinds="load_balancer") as reader:
        eventually(lambda: any(f["type"] == "BOOKMARK" for f in reader.frames))
        mark = reader.frames[3]
        assert [f["object"]["name"] for f in reader.frames[:3]] == ["lb-0", "lb-1", "lb-2"]
        assert (mark["type"], mark["initial"]) == ("BOOKMARK", True)
        cloud.put("later", NOTHING)
        eventually(lambda: len(reader.frames) >= 5)
        assert reader.frames[4]["object"]["name"] == "later"
        assert int(reader.frames[4]["resource_version"]) > int(mark["resource_version"])


def test_a_watch_resumes_without_gap_or_repetition_while_others_write(cloud):
    """Cut off again and again under load, it knows what one that was never cut off knows."""
    start = version(cloud)
    writers = [
        Thread(
            target=lambda n=n: [
                cloud.put(f"lb-{n}", NOTHING | {"labels": {"turn": str(t)}}) for t in range(12)
            ]
        )
        for n in range(4)
    ]
    with reading(cloud, since=start) as whole:
        for thread in writers:
            thread.start()
        seen, since = [], start
        while any(thread.is_alive() for thread in writers) or since < version(cloud):
            with reading(cloud, since=since, heartbeat="0.2s") as piece:
                eventually(lambda piece=piece: piece.frames)
            frames = piece.objects()
            seen += [int(frame["resource_version"]) for frame in frames]
            since = max([since, *seen[-1:]])
            if any(f["type"] == "BOOKMARK" for f in piece.frames):
                since = max(since, int(piece.frames[-1]["resource_version"]))
        end = version(cloud)
        eventually(lambda: int(whole.objects()[-1]["resource_version"]) >= end)
    assert all(earlier < later for earlier, later in pairwise(seen))
    assert seen == [int(f["resource_version"]) for f in whole.objects()][: len(seen)]
    assert seen[-1] == end
    assert len(seen) == end - start


def test_the_snapshot_and_what_follows_miss_nothing_while_others_write(cloud):
    writers = [
        Thread(target=lambda n=n: [cloud.put(f"lb-{n}-{t}", NOTHING) for t in range(6)])
        for n in range(4)
    ]
    for thread in writers:
        thread.start()
    readers = [Reader(cloud, initial="true", kinds="load_balancer") for _ in range(6)]
    for thread in writers:
        thread.join()

    def active(reader: Reader) -> set[str]:
        known = {f["object"]["name"]: f["object"]["status"]["state"] for f in reader.objects()}
        return {name for name, state in known.items() if state == "ACTIVE"}

    try:
        for reader in readers:
            eventually(lambda reader=reader: len(active(reader)) == 24)
            pairs = [(f["object"]["name"], f["resource_version"]) for f in reader.objects()]
            assert len(pairs) == len(set(pairs))
    finally:
        for reader in readers:
            reader.close()


def test_server_sent_events_resume_by_their_last_id(cloud):
    cloud.active("web", NOTHING)
    stream = {"accept": "text/event-stream"}
    with cloud.http.stream("GET", "/v1/watch?initial=true", headers=stream) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks, lines = [], answer.iter_lines()
        while not blocks or not any("BOOKMARK" in line for line in blocks[-1]):
            block = []
            for line in lines:
                if not line:
                    break
                block.append(line)
            if block:
                blocks.append(block)
    assert [line.partition(":")[0] for line in blocks[0]] == ["event", "data"], (
        "no id in a snapshot"
    )
    assert [line.partition(":")[0] for line in blocks[-1]] == ["id", "event", "data"]
    last = blocks[-1][0].removeprefix("id: ")
    cloud.put("web", NOTHING | {"labels": {"a": "b"}})
    again = stream | {"last-event-id": last}
    with cloud.http.stream("GET", "/v1/watch?initial=true", headers=again) as answer:
        data = next(line for line in answer.iter_lines() if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["object"]["labels"] == {"a": "b"}


@pytest.mark.parametrize("where", ["before the history", "from another history"])
def test_an_unusable_start_is_gone(cloud, where):
    cloud.active("web", NOTHING)
    since = version(cloud) + 1000
    if where == "before the history":
        with cloud.app.state.cloud.database.write() as connection:
            events.trim(connection, 1)
        since = 1
    answer = cloud.http.get("/v1/watch", params={"since": since})
    assert (answer.status_code, answer.json()["code"]) == (410, "watch_expired")
    assert "list again" in answer.json()["detail"]


def test_a_quiet_watch_says_where_it_is(cloud):
    cloud.active("web", NOTHING)
    with reading(cloud, heartbeat="0.1s") as reader:
        eventually(lambda: len(reader.frames) >= 2)
    assert {f["type"] for f in reader.frames} == {"BOOKMARK"}
    assert int(reader.frames[0]["resource_version"]) <= version(cloud)


def test_a_reader_that_is_too_slow_is_told_to_list_again(cloud, monkeypatch):
    monkeypatch.setattr(watch, "QUEUE", 20)
    hub = cloud.app.state.cloud.hub
    with hub_paused(hub), reading(cloud, kinds="load_balancer") as reader:
        for turn in range(30):
            cloud.put("web", NOTHING | {"labels": {"turn": str(turn)}})
        hub.paused = False
        hub.notify()
        eventually(lambda: reader.ended)
    assert reader.frames[-1]["type"] == "ERROR"
    assert reader.frames[-1]["code"] == 410


@contextmanager
def hub_paused(hub: Any) -> Iterator[None]:
    """Hold the hub's reading back until `hub.paused` is false, so that all comes at once."""
    real = hub._since
    hub.paused = True

    async def since(after: int) -> list[Any]:
        return [] if hub.paused else await real(after)

    hub._since = since
    try:
        yield
    finally:
        del hub._since, hub.paused


def test_the_server_stops_soon_with_open_watches(new_cloud):
    cloud = new_cloud()
    with reading(cloud) as reader:
        begin = CLOCK.monotonic()
        cloud.stop()
        assert CLOCK.monotonic() - begin < 1.9, "it waited for the watch"
        eventually(lambda: reader.ended)
    cloud.start()
