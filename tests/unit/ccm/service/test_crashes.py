"""The process dies between any two steps, and again between any two of what it does about it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec
import pytest

from ccm import errors
from ccm.kube import objects
from ccm.service import nodes, ownership
from tests.fakes.ccm_world import Crash
from tests.unit.ccm import builders
from tests.unit.ccm.service.stage import CLEANUP, KEY, Stage

OTHER: Final = "shop/other"
GROUP: Final = ownership.group_key("shop", "x")
SHARED: Final = {"fakecloud.dev/share": "x"}
_PEACE: Final = 30


async def settle(it: Stage) -> None:
    """Look at everything, restarting after each death, until nothing moves any more."""
    before: object = None
    for _ in range(_PEACE):
        died = [key for key in (KEY, OTHER, GROUP) if await dies(it, key)]
        for name, one in list(it.cloud.store.items()):
            if one.status.state in ("PENDING", "UPDATING"):
                it.cloud.finish(name)
            elif one.status.state == "DELETING":
                it.cloud.drop(name)
        now = (dict(it.kube.store), dict(it.cloud.store))
        if now == before and not died:
            return
        before = now
    raise AssertionError("no peace: the controller goes on writing")


async def dies(it: Stage, key: str) -> bool:
    """Look at a key; say whether that was the end of the process, and start it again."""
    try:
        await it.target.reconcile(key)
    except Crash:
        it.restart(orphan_grace_s=0.0)
        return True
    except (errors.RetryAfter, errors.KubeConflict):
        pass  # it comes back
    finally:
        stays_sound(it)
    return False


def stays_sound(it: Stage) -> None:
    """Assert what holds at any moment: somebody still knows of each load balancer there is."""
    for one in it.cloud.store.values():
        uid, key = one.labels.get("service-uid"), f"shop/{one.labels.get('service')}"
        service = it.kube.store.get(key)
        if uid is None or (service is not None and service.metadata.uid != uid):
            continue  # of a group, or of a Service that somebody removed by force
        assert service is not None, "gone, and its load balancer is there"
        assert CLEANUP in service.finalizers, "a load balancer that nothing would remove"


def is_done(it: Stage) -> None:
    """Assert one load balancer per Service or group that wants one, an address each, and no more."""
    wanted = set()
    for service in it.kube.store.values():
        if not builders.ownership().wants(service):
            assert (
                CLEANUP not in service.finalizers or service.spec.load_balancer_class == "e.com/x"
            )
            continue
        assert service.ingress, f"{service.key} has no address"
        assert service.finalizers == (CLEANUP,)
        assert not service.metadata.deletion_timestamp
        shared = (service.metadata.annotations or {}).get("fakecloud.dev/share")
        found = [one for one in it.cloud.store.values() if service.key in ownership.keys_of(one)]
        assert len(found) == 1, f"{service.key} has {len(found)} load balancers"
        assert ("share" in found[0].labels) == bool(shared)
        assert {one.port for one in service.ports} <= {one.port for one in found[0].spec.listeners}
        wanted.add(found[0].name)
    assert set(it.cloud.store) == wanted, "a load balancer is left"


async def nothing(it: Stage) -> None:
    """Begin with no Service."""


async def served(it: Stage) -> None:
    it.kube.create(builders.service())
    await settle(it)


async def shared(it: Stage) -> None:
    it.kube.create(builders.service(annotations=SHARED))
    it.kube.create(another(annotations=SHARED))
    await settle(it)


def another(**more: object) -> objects.Service:
    return builders.service("other", uid="u-2", ports=(builders.port(81),), **more)


def create(it: Stage) -> None:
    it.kube.create(builders.service())


def create_two_that_share(it: Stage) -> None:
    it.kube.create(builders.service(annotations=SHARED))
    it.kube.create(another(annotations=SHARED))


def delete(it: Stage) -> None:
    it.kube.delete(KEY)


def delete_and_create_again(it: Stage) -> None:
    del it.kube.store[KEY]
    it.kube.create(builders.service(uid="u-9"))


def change(**spec: object) -> Callable[[Stage], None]:
    def changed(it: Stage) -> None:
        service = it.kube.store[KEY]
        status = service.status
        if spec.get("type", "LoadBalancer") != "LoadBalancer":
            status = msgspec.structs.replace(status, load_balancer=objects.LoadBalancerStatus())
        new = msgspec.structs.replace(service.spec, **spec)
        it.kube.create(msgspec.structs.replace(service, spec=new, status=status))

    return changed


def add_node(it: Stage) -> None:
    it.kube.node_backends += (nodes.Backend("node-3", ("10.0.0.3",)),)


def annotate(annotations: dict[str, str] | None) -> Callable[[Stage], None]:
    def changed(it: Stage) -> None:
        service = it.kube.store[KEY]
        meta = msgspec.structs.replace(service.metadata, annotations=annotations)
        it.kube.create(msgspec.structs.replace(service, metadata=meta))

    return changed


def lose_in_the_cloud(it: Stage) -> None:
    [name] = it.cloud.store
    it.cloud.drop(name)


STORIES: Final = {
    "created": (nothing, create),
    "created to share": (nothing, create_two_that_share),
    "deleted": (served, delete),
    "a member deleted": (shared, delete),
    "deleted and created again": (served, delete_and_create_again),
    "turned ClusterIP": (served, change(type="ClusterIP")),
    "given to another class": (served, change(load_balancer_class="e.com/x")),
    "another port": (served, change(ports=(builders.port(90),))),
    "a node more": (served, add_node),
    "begins to share": (served, annotate(SHARED)),
    "shares no more": (shared, annotate(None)),
    "lost in the cloud": (served, lose_in_the_cloud),
}


async def play(story: str, dies_at: list[int]) -> Stage:
    """Return the world after the story, with the deaths that it had."""
    before, happens = STORIES[story]
    it = Stage()
    it.restart(orphan_grace_s=0.0)
    await before(it)
    it.world.steps.clear()
    it.kube.events.clear()
    happens(it)
    it.world.dies_at = dies_at
    await settle(it)
    is_done(it)
    return it


@pytest.mark.parametrize("story", STORIES)
async def test_s_22_s_23_u_15_death_between_any_two_steps_and_again_during_the_recovery(story):
    whole = await play(story, [])
    assert whole.world.steps, "nothing happens"
    for first in count():
        survivor = await play(story, [first])
        if survivor.world.dies_at:
            break  # it was done before
        for second in range(first, len(survivor.world.steps)):
            await play(story, [first, second])
    assert first >= len(whole.world.steps)
