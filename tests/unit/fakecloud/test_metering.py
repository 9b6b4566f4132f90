"""From the data plane's totals to the store, on both databases."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from fakecloud.errors import Transient, Unavailable
from fakecloud.insight import Insight
from fakecloud.metering import LATE, Metering
from fakecloud.metrics import Metrics
from fakecloud.model import Counters
from fakecloud.store import traffic as rows
from tests.fakes.small_cloud import SmallCloud


def carried(bytes_in: int = 0, **more) -> Counters:
    return Counters(
        **{
            "kind": "listener",
            "name": "web",
            "connections": 0,
            "connections_total": 1,
            "bytes_in": bytes_in,
            "bytes_out": 0,
            "epoch": "e1",
            **more,
        }
    )


class FakeMeters:
    """`totals`: what is known, by id; those in `silent` don't answer; `forgotten` in order."""

    def __init__(self) -> None:
        self.totals: dict[str, list[Counters]] = {}
        self.silent: set[str] = set()
        self.alive: set[str] = set()

    def counted(self) -> list[str]:
        return list(self.totals)

    def counters(self, lb_id: str) -> list[Counters] | None:
        if lb_id in self.silent:
            raise Transient("runtime_unavailable", "no answer")
        return self.totals.get(lb_id)

    def forget_counters(self, lb_id: str, told: list[Counters]) -> None:
        if lb_id not in self.alive and self.totals[lb_id] == told:
            del self.totals[lb_id]

    def configuration(self, lb_id: str) -> str | None:
        return "global\n" if lb_id in self.totals else None

    def log_tail(self, lb_id: str, most: int) -> list[str]:
        return ["started"][:most]

    def running(self) -> frozenset[str]:
        return frozenset(self.alive)


@pytest.fixture
def meters() -> FakeMeters:
    return FakeMeters()


def metering(cloud: SmallCloud, meters: FakeMeters, **options) -> Metering:
    return Metering(
        cloud.database, meters, cloud.clock, **{"host": "host-1", "share": False, **options}
    )


def hours(cloud: SmallCloud, lb_id: str) -> list[tuple[int, int, bool]]:
    with cloud.database.read() as connection:
        return [(p.hour.hour, p.bytes_in, p.estimated) for _, p in rows.hours(connection, lb_id)]


def total(cloud: SmallCloud, lb_id: str) -> int:
    return sum(part[1] for part in hours(cloud, lb_id))


def test_totals_are_added_once_however_often_they_are_read(cloud, meters):
    lb = cloud.active("web")
    meters.alive = {lb.id}
    turns = metering(cloud, meters)
    for bytes_in in (100, 100, 250):
        meters.totals[lb.id] = [carried(bytes_in)]
        cloud.clock.advance(10)
        assert turns.step() == 1
    assert total(cloud, lb.id) == 250
    again = metering(cloud, meters)  # the server's next life
    again.step()
    meters.totals[lb.id] = [carried(300)]
    again.step()
    assert total(cloud, lb.id) == 300


def test_a_new_epoch_counts_from_nothing(cloud, meters):
    """As on another host, or after the disk was lost."""
    lb = cloud.active("web")
    meters.alive = {lb.id}
    turns = metering(cloud, meters)
    meters.totals[lb.id] = [carried(500)]
    turns.step()
    meters.totals[lb.id] = [carried(20, epoch="e2")]
    turns.step()
    turns.step()
    assert total(cloud, lb.id) == 520


def test_traffic_after_idle_hours_belongs_to_the_hour_it_came_in(cloud, meters):
    lb = cloud.active("web")
    meters.alive = {lb.id}
    turns = metering(cloud, meters)
    meters.totals[lb.id] = [carried(0, connections_total=0)]
    start = cloud.clock.now()
    cloud.clock.advance(15)  # no turn on the hour
    for _ in range(3 * 360):
        turns.step()
        cloud.clock.advance(10)
    meters.totals[lb.id] = [carried(100)]
    turns.step()
    assert hours(cloud, lb.id)[-1] == ((start + timedelta(hours=3)).hour, 100, False)
    assert total(cloud, lb.id) == 100


def test_what_was_removed_is_counted_to_the_end_and_forgotten(cloud, meters):
    lb = cloud.active("web")
    meters.alive = {lb.id}
    turns = metering(cloud, meters)
    meters.totals[lb.id] = [carried(100)]
    turns.step()
    cloud.delete("web")
    cloud.settle()
    meters.alive, meters.totals[lb.id] = set(), [carried(170)]
    turns.step()
    assert total(cloud, lb.id) == 170
    assert meters.counted() == []
    turns.step()


def test_totals_that_turn_up_after_their_rows_are_gone_are_not_counted_again(cloud, meters):
    lb = cloud.active("web")
    meters.totals[lb.id] = [carried(100)]
    metering(cloud, meters).step()
    cloud.delete("web")
    cloud.settle()
    cloud.clock.advance((LATE + timedelta(days=9)).total_seconds())
    now = cloud.clock.now()
    with cloud.database.write() as connection:
        rows.forget(
            connection, hours_before=now - timedelta(days=400), gone_before=now - timedelta(days=7)
        )
    meters.totals[lb.id] = [carried(100)]  # of a host that was off all the time
    metering(cloud, meters).step()
    assert total(cloud, lb.id) == 100
    assert meters.counted() == []


def test_totals_of_nobody_are_forgotten(cloud, meters):
    meters.totals["lb_unknown"] = [carried(1)]
    metering(cloud, meters).step()
    assert meters.counted() == []


def test_one_that_does_not_answer_holds_up_no_other(cloud, meters):
    web, shop = cloud.active("web"), cloud.active("shop")
    meters.alive = meters.silent = {web.id}
    meters.totals = {web.id: [carried(1)], shop.id: [carried(2)]}
    turns = metering(cloud, meters)
    assert turns.step() == 1
    assert (total(cloud, web.id), total(cloud, shop.id)) == (0, 2)
    meters.silent = set()
    turns.step()
    assert total(cloud, web.id) == 1


def test_a_store_that_is_gone_for_a_while_loses_nothing(cloud, meters, monkeypatch):
    lb = cloud.active("web")
    meters.alive = {lb.id}
    turns = metering(cloud, meters)
    meters.totals[lb.id] = [carried(100)]

    def refuse() -> None:
        raise Unavailable("the database can't be used now")

    with monkeypatch.context() as broken:
        broken.setattr(cloud.database, "write", refuse)
        with pytest.raises(Unavailable):
            turns.step()
    turns.step()
    assert total(cloud, lb.id) == 100


def test_other_hosts_see_what_this_one_runs(cloud, meters):
    lb = cloud.active("web")
    meters.alive = {lb.id}
    target = carried(5, kind="target", name="127.0.9.1 port 9000", connections_total=3)
    meters.totals[lb.id] = [carried(100), target]
    metering(cloud, meters, share=True).step()
    nothing = FakeMeters()
    elsewhere = Insight(
        cloud.database, nothing, metering(cloud, nothing, host="host-2"), cloud.clock, "host-2"
    )
    shown = elsewhere.stats(cloud.get("web"))
    assert (shown["host"], shown["running"]) == ("host-1", True)
    assert [one["bytes_in"] for one in shown["counters"]] == [100, 5]
    assert shown["counters"][1]["share"] == 1.0
    assert elsewhere.configuration(cloud.get("web")) == "global\n"
    assert elsewhere.log(cloud.get("web"), 10)["lines"] == ["started"]


def test_a_target_that_takes_everything_lately_is_seen(cloud, meters):
    lb = cloud.active("web")
    meters.alive = {lb.id}
    turns = metering(cloud, meters)
    insight = Insight(cloud.database, meters, turns, cloud.clock, "host-1")
    a, b = (carried(kind="target", name=name, connections_total=1000) for name in "ab")
    for _ in range(10):
        meters.totals[lb.id] = [a, b]
        turns.step()
        cloud.clock.advance(10)
        a = msgspec.structs.replace(a, connections_total=a.connections_total + 50)
    shares = {one["name"]: one["recent_share"] for one in insight.stats(lb)["counters"]}
    assert shares == {"a": 1.0, "b": 0.0}


def test_metrics_have_a_limit_and_say_when_it_cuts(cloud, meters):
    for name in ("web", "shop"):
        meters.totals[cloud.active(name).id] = [carried(7), carried(1, kind="target", name="t")]
    turns = metering(cloud, meters)
    turns.step()
    text = Metrics().show_traffic(turns.carried, 1).text().decode()
    series = 'fakecloud_load_balancer_bytes_total{direction="in",listener="web",load_balancer="%s",project="default"} 7.0'
    assert sum(series % name in text for name in ("web", "shop")) == 1
    assert "fakecloud_metrics_load_balancers_omitted 1.0" in text
