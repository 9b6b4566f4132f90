"""Health on its way from a probe's answer to the data plane and the store."""

from __future__ import annotations

from threading import Event, Thread

import msgspec
import pytest

from fakecloud.errors import Transient, Unavailable
from fakecloud.health.board import RETRY_S
from fakecloud.model import HealthCheck, OperatingState
from tests.fakes.small_cloud import SmallCloud, spec


def answer(cloud: SmallCloud, port: int, healthy: bool) -> None:
    """Let the target at `port` change."""
    cloud.probes.healthy[port] = healthy
    for key in cloud.probes.watched:
        if key.port == port:
            cloud.health.on_change(key, cloud.probes.result(key))


def told(cloud: SmallCloud) -> list[set[int]]:
    """Return the ports that the data plane was told are down, call by call."""
    return [{k.port for k in call[2]} for call in cloud.dataplane.calls if call[0] == "set_down"]


def tell(cloud: SmallCloud) -> None:
    while cloud.health.tell_dataplane(0):
        pass


def test_a_change_reaches_traffic_at_once_and_the_document_later(cloud):
    lb = cloud.active("web", spec(8080, 9001, 9002))
    tell(cloud)
    answer(cloud, 9001, False)
    tell(cloud)
    assert told(cloud) == [{9001}]
    met = {cloud.host.reach(lb.addresses[0].ip, 8080) for _ in range(6)}
    assert met == {"127.0.9.1:9002"}
    assert cloud.get("web").operating_state is OperatingState.ONLINE
    assert cloud.health.save() == 1
    shown = cloud.get("web")
    assert shown.operating_state is OperatingState.DEGRADED
    assert [t.health for t in shown.targets] == ["unhealthy", "healthy"]
    assert shown.generation == lb.generation
    assert cloud.health.save() == 0


def test_a_targets_own_weight_reaches_traffic_and_leaves_no_event(cloud):
    of = spec(8080, 9001, 9002)
    weighing = msgspec.structs.replace(
        of.target_groups[0], weights_from="health_header", health_check=HealthCheck(protocol="http")
    )
    lb = cloud.active("web", msgspec.structs.replace(of, target_groups=(weighing,)))
    tell(cloud)
    before = len(cloud.events())
    cloud.probes.weights = {9001: 3}
    answer(cloud, 9001, True)
    tell(cloud)
    assert cloud.health.save() == 0
    assert len(cloud.events()) == before
    (backend,) = cloud.host.running[lb.id].backends
    assert [server.weight for server in backend.servers] == [3, 100]


def test_a_flapping_target_makes_one_event(cloud):
    cloud.active("web")
    before = len(cloud.events())
    for healthy in (False, True, False, True, False):
        answer(cloud, 9000, healthy)
    assert cloud.health.save() == 1
    assert len(cloud.events()) == before + 1


def test_an_answer_that_comes_during_an_apply_is_told_after_it(cloud):
    """The apply brings the older answer; nobody else would ever correct it."""
    cloud.active("web", spec(8080, 9001, 9002))
    tell(cloud)
    cloud.put("web", spec(8081, 9001, 9002))
    real = cloud.dataplane.apply

    def apply(desired) -> None:
        answer(cloud, 9001, False)
        tell(cloud)
        real(desired)

    cloud.dataplane.apply = apply
    cloud.provisioner.step()
    tell(cloud)
    lb = cloud.get("web")
    assert {k.port for k in cloud.host.desired[lb.id].down} == {9001}


def test_what_the_data_plane_refused_is_told_again(cloud):
    cloud.active("web")
    tell(cloud)
    answer(cloud, 9000, False)
    real = cloud.dataplane.set_down

    def set_down(lb_id, down, weights) -> None:
        cloud.dataplane.set_down = real
        raise Transient("socket", "no answer")

    cloud.dataplane.set_down = set_down
    tell(cloud)
    assert told(cloud) == []
    cloud.clock.advance(RETRY_S)
    tell(cloud)
    assert told(cloud) == [{9000}]


def test_a_data_plane_that_refuses_holds_up_no_other(cloud):
    stuck, other = cloud.active("web"), cloud.active("shop", spec(8080, 9000))
    tell(cloud)
    real = cloud.dataplane.set_down

    def set_down(lb_id, down, weights) -> None:
        if lb_id == stuck.id:
            raise Transient("socket", "no answer")
        real(lb_id, down, weights)

    cloud.dataplane.set_down = set_down
    answer(cloud, 9000, False)
    tell(cloud)
    assert {k.port for k in cloud.host.desired[other.id].down} == {9000}


def test_who_shares_a_probe_that_has_just_begun_waits_for_its_answer_too(cloud):
    cloud.probes.healthy = {9000: None}
    cloud.put("web", spec(8080, 9000))
    cloud.put("shop", spec(8080, 9000))
    first, second = cloud.get("web"), cloud.get("shop")
    began = Event()

    def settle_first() -> None:
        began.set()
        cloud.health.settle(first)

    waiting = Thread(target=settle_first)
    waiting.start()
    began.wait(5)
    answering = Thread(target=lambda: answer(cloud, 9000, True))
    real = cloud.health._changed.wait_for

    def wait_for(predicate, timeout):  # the answer comes while the second one waits
        if not answering.ident:
            answering.start()
        return real(predicate, timeout)

    cloud.health._changed.wait_for = wait_for
    assert cloud.health.settle(second).down == frozenset()
    for thread in (waiting, answering):
        thread.join(5)


def test_what_the_store_could_not_take_is_saved_later(cloud, monkeypatch):
    cloud.active("web")
    answer(cloud, 9000, False)

    def refuse() -> None:
        raise Unavailable("the database can't be used now")

    with monkeypatch.context() as broken:
        broken.setattr(cloud.database, "write", refuse)
        with pytest.raises(Unavailable):
            cloud.health.save()
    assert cloud.health.save() == 1
    assert cloud.get("web").operating_state is OperatingState.OFFLINE


def test_after_a_restart_nothing_is_taken_out_before_its_first_answer(cloud):
    cloud.active("web", spec(8080, 9001, 9002))
    cloud.restart()
    cloud.probes.healthy = {9001: None, 9002: True}
    answer(cloud, 9002, True)
    tell(cloud)
    assert told(cloud) == []
    answer(cloud, 9001, False)
    tell(cloud)
    assert told(cloud) == [{9001}]


def test_a_deleted_one_is_forgotten(cloud):
    cloud.active("web")
    cloud.delete("web")
    answer(cloud, 9000, False)
    cloud.settle()
    tell(cloud)
    assert cloud.health.save() == 0
    assert cloud.probes.watched == frozenset()


def test_one_that_is_slow_to_be_told_keeps_nobody_waiting(cloud, monkeypatch):
    """It is told by one thread at a time, and again what came meanwhile."""
    slow, fast = cloud.active("slow", spec(8080, 9001)), cloud.active("fast", spec(8081, 9002))
    tell(cloud)
    reached, go_on, tell_at_once = Event(), Event(), cloud.dataplane.set_down

    def set_down(lb_id, *what):
        if lb_id == slow.id and not go_on.is_set():
            reached.set()
            assert go_on.wait(10)
        tell_at_once(lb_id, *what)

    monkeypatch.setattr(cloud.dataplane, "set_down", set_down)
    answer(cloud, 9001, False)
    teller = Thread(target=lambda: cloud.health.tell_dataplane(0))
    teller.start()
    assert reached.wait(10)
    answer(cloud, 9002, False)
    answer(cloud, 9001, True)
    tell(cloud)
    assert [call[1] for call in cloud.dataplane.calls if call[0] == "set_down"] == [fast.id]
    go_on.set()
    teller.join(10)
    tell(cloud)
    assert told(cloud) == [{9002}, {9001}, set()]
