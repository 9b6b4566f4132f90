"""Which host gets a load balancer, and how a lease outlasts long work."""

from __future__ import annotations

import pytest

from fakecloud import errors
from fakecloud.domain.addresses import parse_pool
from fakecloud.domain.lifecycle import DEADLINE_S
from fakecloud.hosts import Hosts
from fakecloud.model import AddressRequest, State
from fakecloud.provisioning.placement import Placement, served
from fakecloud.requests.actions import Actions
from fakecloud.requests.load_balancers import LoadBalancers
from fakecloud.store import hosts as host_rows
from fakecloud.store import leases
from tests.fakes.small_cloud import LEASE_S, PROJECT, SmallCloud, spec

DEAD_S = 30.0
DEFAULT = "default=loopback:127.77.0.0/24"
OTHER = "other=loopback:127.78.0.0/24"


def enter(cloud: SmallCloud, name: str, *pools: str) -> None:
    """Let a host be known, without a server behind it."""
    wall = cloud.clock.wall()
    made = host_rows.Host(
        name=name, identity=name, pools=pools, version="1", started_at=wall, heartbeat_at=wall
    )
    with cloud.database.write() as connection:
        host_rows.save(connection, made)


@pytest.fixture
def placement(cloud) -> Placement:
    placement = Placement(cloud.database, cloud.clock, dead_after_s=DEAD_S)
    pools = [parse_pool(DEFAULT), parse_pool(OTHER)]
    cloud.desk = LoadBalancers(cloud.database, pools, cloud.clock, placement=placement)
    return placement


def of(pool: str, port: int = 8080):
    return spec(port, addresses=(AddressRequest(pool=pool),))


def test_the_least_loaded_host_gets_it(cloud, placement):
    enter(cloud, "a", DEFAULT)
    enter(cloud, "b", DEFAULT)
    placement.refresh()
    for number in range(6):
        cloud.put(f"lb-{number}", spec(8080 + number))
    hosts = [lb.host for lb in cloud.living()]
    assert hosts == ["a", "b"] * 3
    enter(cloud, "c", DEFAULT)
    placement.refresh()
    for number in range(6, 9):
        cloud.put(f"lb-{number}", spec(8080 + number))
    assert [lb.host for lb in cloud.living()][6:] == ["c", "c", "c"]


def test_only_a_host_that_serves_the_pool_gets_it(cloud, placement):
    enter(cloud, "a", DEFAULT)
    enter(cloud, "b", DEFAULT, OTHER)
    placement.refresh()
    for number in range(4):
        cloud.put(f"lb-{number}", of("other", 8080 + number))
    assert {lb.host for lb in cloud.living()} == {"b"}
    cloud.put("moves", spec(8090))
    assert cloud.get("moves").host == "a"
    cloud.put("moves", of("other", 8090))
    assert cloud.get("moves").host == "b", "where it was it can't have this address"
    cloud.put("lb-0", of("default", 8080))
    assert cloud.get("lb-0").host == "b", "it stays where it can"


def test_a_dead_host_gets_nothing(cloud, placement):
    enter(cloud, "a", DEFAULT)
    cloud.clock.advance(DEAD_S + 1)
    enter(cloud, "b", DEFAULT)
    placement.refresh()
    for number in range(3):
        cloud.put(f"lb-{number}", spec(8080 + number))
    assert {lb.host for lb in cloud.living()} == {"b"}


def test_where_nobody_can_it_waits_for_whoever_can(cloud, placement):
    enter(cloud, "a", DEFAULT)
    placement.refresh()
    cloud.put("web", of("other"))
    assert cloud.get("web").host is None
    cannot = cloud.worker("a", "a", served([DEFAULT]))
    assert cannot.step() is False
    assert cloud.get("web").state is State.PENDING
    can = cloud.worker("b", "b", served([DEFAULT, OTHER]))
    assert can.step() is True
    assert (cloud.get("web").state, cloud.get("web").host) == (State.ACTIVE, "b")


def test_another_hosts_work_is_not_claimed(cloud, placement):
    enter(cloud, "a", DEFAULT)
    placement.refresh()
    cloud.put("web")
    assert cloud.worker("b", "b").step() is False
    assert cloud.worker("a", "a").step() is True


def test_failover_goes_elsewhere_if_there_is_an_elsewhere(cloud, placement):
    enter(cloud, "host-1", DEFAULT)
    placement.refresh()
    cloud.active("web")
    actions = Actions(cloud.database, cloud.clock, placement)
    assert actions.failover(PROJECT, "web").host == "host-1"
    enter(cloud, "b", DEFAULT)
    enter(cloud, "c", OTHER)
    placement.refresh()
    assert actions.failover(PROJECT, "web").host == "b"


def test_those_of_a_dead_host_are_spread(cloud, placement):
    enter(cloud, "host-1", DEFAULT)
    placement.refresh()
    for number in range(4):
        cloud.active(f"lb-{number}", spec(8080 + number))
    me = Hosts(
        cloud.database, cloud.clock, "b", "b", [DEFAULT], dead_after_s=DEAD_S, placement=placement
    )
    if cloud.database.is_sqlite:
        enter(cloud, "b", DEFAULT)  # to register would take them over: one host has the file
    else:
        me.register()
    assert me.sweep() == 0  # from now on it is known whose heartbeat stands still
    for _ in range(3):
        cloud.clock.advance(DEAD_S / 2)
        me.beat()
    enter(cloud, "c", DEFAULT)
    assert me.sweep() == 4
    assert sorted(lb.host for lb in cloud.living()) == ["b", "b", "c", "c"]


def test_what_a_host_announces_in_other_words_is_left_out():
    assert served([DEFAULT, "new=quantum:1", OTHER]) == {("default", "ipv4"), ("other", "ipv4")}


def slowly(cloud: SmallCloud, seconds: float, *, other, renewing: bool) -> list[bool]:
    """Let the next apply take that long; return what another worker could claim meanwhile."""
    claimed: list[bool] = []
    apply = cloud.dataplane.apply

    def slow(desired) -> None:
        cloud.dataplane.apply = apply
        for _ in range(int(seconds / (LEASE_S / 3))):
            cloud.clock.advance(LEASE_S / 3)
            if renewing:
                cloud.provisioner.renew()
            claimed.append(other.step())
        apply(desired)

    cloud.dataplane.apply = slow
    return claimed


def test_long_work_keeps_its_lease_and_is_done_once(cloud):
    cloud.put("web")
    claimed = slowly(cloud, LEASE_S * 4, other=cloud.worker("second"), renewing=True)
    assert cloud.provisioner.step()
    assert claimed == [False] * 12
    lb = cloud.get("web")
    assert (lb.state, lb.lease_epoch) == (State.ACTIVE, 1)
    assert [call[0] for call in cloud.dataplane.calls].count("apply") == 1
    assert cloud.provisioner.renew() == 0, "nothing is under way"


def test_without_renewal_another_takes_over_and_the_fence_holds(cloud):
    cloud.put("web")
    claimed = slowly(cloud, LEASE_S * 2, other=cloud.worker("second"), renewing=False)
    assert cloud.provisioner.step()
    assert claimed.count(True) == 1
    assert cloud.get("web").lease_epoch == 2
    assert cloud.history("web") == ["PENDING", "PROVISIONING", "ACTIVE"]


def test_a_lease_that_was_taken_is_not_renewed(cloud):
    cloud.put("web")
    apply = cloud.dataplane.apply

    def robbed(desired) -> None:
        cloud.dataplane.apply = apply
        with cloud.database.write() as connection:
            leases.free(connection, cloud.get("web").pk)
        assert cloud.provisioner.renew() == 0
        apply(desired)

    cloud.dataplane.apply = robbed
    cloud.provisioner.step()
    assert cloud.get("web").state is State.PROVISIONING, "it was not ours any more to finish"


def test_work_that_hangs_loses_its_lease_in_the_end(cloud):
    cloud.put("web")
    other = cloud.worker("second")
    claimed = slowly(cloud, DEADLINE_S + LEASE_S * 2, other=other, renewing=True)
    cloud.provisioner.step()
    assert claimed.count(True) == 1
    first = claimed.index(True) * LEASE_S / 3
    assert DEADLINE_S - LEASE_S <= first <= DEADLINE_S + LEASE_S + 1


def test_a_failed_apply_ends_the_renewal(cloud):
    cloud.dataplane.fail_next.append(errors.Transient("bind_failed", "taken"))
    cloud.put("web")
    cloud.provisioner.step()
    assert cloud.provisioner.renew() == 0
