"""Addresses that another machine on the link turns out to have."""

from __future__ import annotations

from fakecloud.model import AddressRequest, State
from tests.fakes.small_cloud import SmallCloud, spec

FIRST, SECOND, THIRD = "127.77.0.1", "127.77.0.2", "127.77.0.3"


def ips(cloud: SmallCloud, name: str = "web") -> list[str]:
    return [address.ip for address in cloud.get(name).addresses]


def wait(cloud: SmallCloud, seconds: float) -> None:
    for _ in range(int(seconds)):
        cloud.clock.advance(1)
        cloud.settle()


def test_a_new_load_balancer_gets_another_address(cloud):
    cloud.link.foreign |= {FIRST, SECOND}
    cloud.put("web")
    assert ips(cloud) == [FIRST]
    wait(cloud, 5)
    lb = cloud.get("web")
    assert (lb.state, ips(cloud)) == (State.ACTIVE, [THIRD])
    assert cloud.link.held[lb.id] == lb.addresses
    assert [o.status for o in cloud.operations()] == ["SUCCEEDED"]
    cloud.put("other")
    assert ips(cloud, "other") == ["127.77.0.4"], "what was in use rests"


def test_why_it_got_another_one_is_told(cloud):
    cloud.link.foreign.add(FIRST)
    cloud.put("web")
    cloud.settle()
    note = cloud.get("web").last_error
    assert note is not None
    assert note.code == "address_in_use"
    assert note.message == f"another machine on the link has {FIRST}: {SECOND} takes its place"


def test_one_that_was_asked_for_is_an_error_that_heals(cloud):
    cloud.link.foreign.add(SECOND)
    cloud.put("web", spec(addresses=(AddressRequest(ip=SECOND),)))
    cloud.settle()
    lb = cloud.get("web")
    assert (lb.state, ips(cloud)) == (State.ERROR, [SECOND])
    assert lb.last_error is not None
    assert "was asked for" in lb.last_error.message
    cloud.link.foreign.clear()
    wait(cloud, 31)
    assert cloud.get("web").state is State.ACTIVE


def test_an_address_that_has_served_is_kept_while_its_former_host_may_let_go(cloud):
    lb = cloud.active("web")
    cloud.link.foreign.add(FIRST)
    cloud.provisioner.crashed(lb.id)
    wait(cloud, 5)
    assert (cloud.get("web").state, ips(cloud)) == (State.UPDATING, [FIRST])
    cloud.link.foreign.clear()
    wait(cloud, 30)
    assert (cloud.get("web").state, ips(cloud)) == (State.ACTIVE, [FIRST])


def test_an_address_that_is_lost_for_good_is_replaced_in_the_end(cloud):
    lb = cloud.active("web")
    cloud.link.foreign.add(FIRST)
    cloud.provisioner.crashed(lb.id)
    wait(cloud, 300)
    assert (cloud.get("web").state, ips(cloud)) == (State.ACTIVE, [SECOND])


def test_with_no_other_address_it_is_tried_again(cloud):
    all_of_them = {f"127.77.0.{last}" for last in range(1, 7)}
    cloud.link.foreign |= all_of_them
    cloud.put("web")
    wait(cloud, 20)
    assert cloud.get("web").state is not State.ACTIVE
    cloud.link.foreign.clear()
    wait(cloud, 400)
    assert cloud.get("web").state is State.ACTIVE
