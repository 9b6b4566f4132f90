"""What the reconciler sees of the cluster: indices, and the patch on services/status."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

import msgspec
import pytest

from ccm import errors, metrics
from ccm.kube import events, informer, objects
from ccm.service import cluster
from tests.fakes.ccm_clock import HastyClock, until
from tests.fakes.kubeapi import FakeApiServer
from tests.unit.ccm import builders

SERVICES = "/api/v1/services"
OF_SHOP = "/api/v1/namespaces/shop/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
CLEANUP = objects.CLEANUP_FINALIZER


@asynccontextmanager
async def watching(server):
    """Give a Cluster whose caches follow `server`."""
    transport, clock = server.transport(), HastyClock()

    def cached(path, kind):
        return informer.Informer(transport, path, kind, clock, rng=random.Random(1))

    caches = [
        cached(SERVICES, objects.Service),
        cached("/api/v1/nodes", objects.Node),
        cached(SLICES, objects.EndpointSlice),
    ]
    services, nodes, slices = caches
    recorder = events.Recorder(transport, "test", clock, metrics.Metrics())
    target = cluster.Cluster(transport, services, nodes, recorder, slices)
    tasks = [asyncio.create_task(one.run()) for one in caches]
    for one in caches:
        await one.synced.wait()
    try:
        yield target
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await transport.close()


def meta(**more):
    return {"metadata": {"namespace": "shop", **more}}


async def test_slices_are_found_by_their_service():
    async with FakeApiServer().serving() as server:
        labels = {"kubernetes.io/service-name": "web"}
        server.put(SLICES, "web-1", meta(labels=labels))
        async with watching(server) as target:
            server.put(SLICES, "web-2", meta(labels=labels) | {"addressType": "IPv6"})
            await until(lambda: len(target.endpoints("shop/web")) == 2)
            server.put(SLICES, "web-2", meta(labels={"kubernetes.io/service-name": "api"}))
            await until(lambda: len(target.endpoints("shop/api")) == 1)
            server.delete(SLICES, "web-1")
            await until(lambda: target.endpoints("shop/web") == ())
            assert target._slices.keys() == {"shop/api"}


async def test_sharers_are_found_by_their_group():
    async with FakeApiServer().serving() as server, watching(server) as target:
        share = {"fakecloud.dev/share": "edge"}
        for name in ("b", "a"):
            server.put(SERVICES, name, meta(annotations=share))
        await until(lambda: len(target.sharing("share:shop/edge")) == 2)
        assert [one.key for one in target.sharing("share:shop/edge")] == ["shop/a", "shop/b"]
        server.put(SERVICES, "a", meta(annotations={"fakecloud.dev/share": "other"}))
        server.delete(SERVICES, "b")
        await until(lambda: target.sharing("share:shop/edge") == ())
        assert target._sharing.keys() == {"share:shop/other"}


async def test_s_27_s_28_u_10_one_patch_writes_finalizer_and_status_against_a_version():
    async with FakeApiServer().serving() as server, watching(server) as target:
        server.put(OF_SHOP, "web", meta(finalizers=["example.com/keep"], uid="u-1"))
        version = server.objects[f"{OF_SHOP}/web"]["metadata"]["resourceVersion"]
        before = builders.service()
        service = msgspec.structs.replace(
            before, metadata=msgspec.structs.replace(before.metadata, resource_version=version)
        )
        written = await target.write(
            service,
            finalizers=("example.com/keep", CLEANUP),
            ingress=(objects.Ingress("127.77.0.1", ip_mode="Proxy"),),
        )
        assert server.requests[-1] == ("PATCH", f"{OF_SHOP}/web/status")
        assert written.finalizers == ("example.com/keep", CLEANUP)
        assert written.ingress[0].ip == "127.77.0.1"
        with pytest.raises(errors.KubeConflict):
            await target.write(service, finalizers=())
        cleared = await target.write(written, ingress=(), conditions=())
        assert (cleared.ingress, cleared.finalizers) == ((), written.finalizers)


@pytest.mark.parametrize(("manager", "is_ours"), [("fakecloud-ccm", True), ("other", False)])
async def test_s_29_whose_finalizer_it_is_stands_in_the_managed_fields(manager, is_ours):
    fields = {"f:metadata": {"f:finalizers": {".": {}, f'v:"{CLEANUP}"': {}}}}
    async with FakeApiServer().serving() as server, watching(server) as target:
        managed = [{"manager": manager, "fieldsV1": fields}]
        server.put(OF_SHOP, "web", meta(managedFields=managed))
        found = await target.live_service("shop/web")
        assert found is not None
        assert found[1] is is_ours
        assert await target.live_service("shop/none") is None
