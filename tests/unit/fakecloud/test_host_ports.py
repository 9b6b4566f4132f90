"""Ports of the machine around the container: one for each listener, always the same."""

from __future__ import annotations

import pytest

from fakecloud import errors, settings
from fakecloud.dataplane import premises
from fakecloud.domain import documents
from fakecloud.model import HostPort, Listener, Spec, Target, TargetGroup
from fakecloud.network import host_ports
from tests.fakes.small_cloud import SmallCloud


@pytest.fixture
def published(cloud: SmallCloud) -> SmallCloud:
    cloud.published = range(20000, 20003)
    cloud.restart()
    return cloud


def spec(*listeners: tuple[str, str, int]) -> Spec:
    return Spec(
        listeners=tuple(
            Listener(name=name, protocol=protocol, port=port, target_group="web")  # type: ignore[arg-type]
            for name, protocol, port in listeners
        ),
        target_groups=(TargetGroup(name="web", targets=(Target(ip="127.0.9.1", port=9000),)),),
    )


WEB, DNS = ("web", "tcp", 80), ("dns", "udp", 53)


def ports(cloud: SmallCloud, name: str) -> dict[str, int]:
    return {one.listener: one.port for one in cloud.get(name).host_ports}


def test_each_listener_has_one_and_the_data_plane_and_the_document_know_it(published):
    lb = published.active("a", spec(WEB, DNS, ("tls", "tcp", 443)))
    wanted = (
        HostPort(listener="web", transport="tcp", port=20000),
        HostPort(listener="dns", transport="udp", port=20000),
        HostPort(listener="tls", transport="tcp", port=20001),
    )
    assert lb.host_ports == wanted
    assert published.host.desired[lb.id].host_ports == wanted
    assert documents.load_balancer(lb)["status"]["host_ports"][1] == {
        "listener": "dns", "transport": "udp", "port": 20000,
    }  # fmt: skip


def test_it_stays_through_updates_restarts_and_a_load_balancer_that_comes_back(published):
    published.active("a", spec(WEB))
    published.active("b", spec(WEB))
    assert (ports(published, "a"), ports(published, "b")) == ({"web": 20000}, {"web": 20001})
    published.active("b", spec(DNS, ("http", "tcp", 80), ("more", "tcp", 81)))
    published.restart()
    assert ports(published, "b") == {"dns": 20000, "http": 20001, "more": 20002}
    published.delete("a")
    published.settle()
    published.active("a", spec(WEB))
    assert ports(published, "a") == {"web": 20000}


def test_those_of_what_is_gone_are_given_again_last_and_without_any_it_serves_all_the_same(
    published,
):
    for name in ("a", "b", "c"):
        published.active(name, spec(WEB))
    assert ports(published, "c") == {"web": 20002}
    published.active("d", spec(WEB))
    assert published.get("d").state.value == "ACTIVE"
    assert ports(published, "d") == {}
    published.delete("b")
    published.settle()
    published.active("e", spec(WEB))
    assert ports(published, "e") == {"web": 20001}
    published.active("b", spec(WEB))
    assert ports(published, "b") == {}


def test_nothing_is_published_unless_asked_for(cloud):
    assert cloud.active("a", spec(WEB)).host_ports == ()


@pytest.mark.parametrize(
    "text", ["", "80-90", "20000", "20010-20000", "20000-30000", "60000-70000"]
)
def test_a_range_that_cannot_be_is_refused(text):
    with pytest.raises(errors.StartError, match="FIRST-LAST"):
        host_ports.parse(text)


def test_only_a_container_publishes_ports():
    with pytest.raises(errors.StartError, match="interface pool"):
        premises.published_ports(settings.load(host_ports="20000-20010"))
    inside = settings.load(host_ports="20000-20010", pool=("default=interface:auto@eth0",))
    assert premises.published_ports(inside) == range(20000, 20011)
    assert premises.published_ports(settings.load()) == range(0)


def test_what_ran_before_gets_its_ports_when_the_server_starts_again_with_some(cloud):
    cloud.active("a", spec(WEB))
    cloud.published = range(20000, 20003)
    cloud.restart()
    cloud.settle()
    assert ports(cloud, "a") == {"web": 20000}
    generation = cloud.get("a").resource_version
    cloud.restart()
    cloud.settle()
    assert cloud.get("a").resource_version == generation, "nothing to do"
    cloud.published = range(0)
    cloud.restart()
    cloud.settle()
    assert ports(cloud, "a") == {}
