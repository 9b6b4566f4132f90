"""Either program dies or is away in the middle: in the end all is as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster import embedded
from tests.demo import traffic
from tests.flows.kube.services import PORT, Shop, answer, ask, condition, ingress
from tests.flows.kube.world import CLOCK, World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

MANY = 50
SOME = [f"web-{number}" for number in range(12)]
_FAILURES = 6
_BACK_S = 8.0
"""After so many failures the next attempt by itself is 16 s away."""


def all_answer(shop: Shop, names: list[str]) -> None:
    """Return when every Service has an address of its own that answers for it."""
    addresses = [shop.ip(name, 60) for name in names]
    assert len(set(addresses)) == len(names)
    for name, ip in zip(names, addresses, strict=True):
        assert answer(ip)["service"] == f"{shop.namespace}/{name}"


def in_step(shop: Shop, world: World) -> None:
    """Assert one load balancer per Service, one process per load balancer, and no more."""
    wanted = {f"k8s-{one['metadata']['uid']}" for one in shop.all()}
    embedded.eventually(lambda: set(world.balancers()), lambda it: it == wanted)
    embedded.eventually(world.has_one_process_each)
    published = {ingress(one)[0]["ip"] for one in shop.all()}
    kept = {one["status"]["addresses"][0]["ip"] for one in world.balancers().values()}
    assert published == kept


def restart_cloud(world: World) -> None:
    world.serve.kill()
    world.serve.start("ready at")


def restart_controller(world: World) -> None:
    world.ccm.kill()
    world.ccm.start()
    world.ccm.wait_for("caches_synced")


@pytest.mark.parametrize("restart", [restart_cloud, restart_controller])
def test_u_15_killed_in_the_middle_of_creation(
    shop: Shop, world: World, restart: Callable[[World], None]
) -> None:
    shop.create("before")
    ip = shop.ip("before")
    answer(ip)
    [before] = world.haproxies()

    with traffic.Traffic(ip, PORT, threads=2) as load:
        shop.create_many(SOME)
        embedded.eventually(lambda: len(world.haproxies()) > 1)
        restart(world)
        all_answer(shop, SOME)
        load.wait_for(50)

    assert load.failures == {}
    assert before in world.haproxies()
    in_step(shop, world)


@pytest.mark.parametrize("restart", [restart_cloud, restart_controller])
def test_b_05_t_24_restart_at_rest_changes_nothing(
    shop: Shop, world: World, restart: Callable[[World], None]
) -> None:
    shop.create_many(SOME[:3])
    all_answer(shop, SOME[:3])
    processes = world.haproxies()
    services = shop.all()

    with traffic.Traffic(shop.ip(SOME[0]), PORT, threads=2) as load:
        restart(world)
        shop.create("after")
        answer(shop.ip("after"))

    assert load.failures == {}
    assert [one for one in world.haproxies() if one in processes] == processes
    assert [one for one in shop.all() if one["metadata"]["name"] != "after"] == services


@pytest.mark.parametrize("restart", [restart_cloud, restart_controller])
def test_u_15_killed_in_the_middle_of_deletion(
    shop: Shop, world: World, restart: Callable[[World], None]
) -> None:
    shop.create_many(SOME)
    all_answer(shop, SOME)

    for name in SOME:
        shop.delete(name)
    restart(world)

    embedded.eventually(lambda: not shop.all())
    embedded.eventually(lambda: world.leftovers() == [])


def test_s_05_service_deleted_while_the_controller_is_down(shop: Shop, world: World) -> None:
    shop.create_many(["leaves", "stays"])
    all_answer(shop, ["leaves", "stays"])
    world.ccm.kill()

    shop.delete("leaves")
    assert shop.get("leaves")["metadata"]["finalizers"]
    shop.change("stays", ports=[{"name": "http", "port": 8081, "targetPort": 80}])
    world.ensure_running()

    embedded.eventually(lambda: shop.is_gone("leaves"))
    assert answer(shop.ip("stays"), 8081)["pod"]
    in_step(shop, world)


def test_b_06_s_19_service_removed_by_force_while_the_controller_is_down(
    shop: Shop, world: World
) -> None:
    """Somebody took the finalizer away by hand: only the cloud still knows of the Service."""
    shop.create()
    ip = shop.ip()
    answer(ip)
    world.ccm.kill()

    shop.patch_finalizers("web", [])
    shop.delete()
    assert shop.is_gone()
    world.ensure_running()

    embedded.eventually(lambda: world.leftovers() == [])
    assert ask(ip) is None


def test_services_created_while_the_cloud_is_down(shop: Shop, world: World) -> None:
    """Nobody waits for the end of a back-off that grew while the cloud was away."""
    shop.create("before")
    answer(shop.ip("before"))
    world.serve.kill()

    shop.create_many(SOME)
    shop.delete("before")
    embedded.eventually(
        lambda: len(world.ccm.lines("reconcile_failed")) >= _FAILURES * len(SOME), timeout_s=60
    )
    assert not any(ingress(one) for one in shop.all() if one["metadata"]["name"] in SOME)
    world.serve.start("ready at")

    began = CLOCK.monotonic()
    all_answer(shop, SOME)
    embedded.eventually(lambda: shop.is_gone("before"))
    assert CLOCK.monotonic() - began < _BACK_S
    in_step(shop, world)


def test_b_23_service_says_that_the_cloud_cannot_be_reached_from_the_start(
    shop: Shop, world: World
) -> None:
    world.ccm.stop()
    world.serve.stop()
    shop.create()
    world.ccm.start()
    service = embedded.eventually(
        shop.get,
        lambda it: condition(it, "LoadBalancerProvisioning").get("reason") == "Infrastructure",
    )
    assert "unreachable" in condition(service, "LoadBalancerProvisioning")["message"]
    embedded.eventually(shop.events, lambda it: ("Warning", "SyncLoadBalancerFailed") in it)

    world.ensure_running()

    assert answer(shop.ip())["pod"]
    assert condition(shop.get(), "LoadBalancerServing")["status"] == "True"


def test_b_24_fifty_services_at_once_and_nothing_left(shop: Shop, world: World) -> None:
    names = [f"many-{number}" for number in range(MANY)]
    shop.create_many(names)
    all_answer(shop, names)
    in_step(shop, world)

    for name in names:
        shop.delete(name)

    embedded.eventually(lambda: not shop.all(), timeout_s=30)
    embedded.eventually(lambda: world.leftovers() == [])
