"""Whether cluster, cloud and data plane say the same of every Service of a namespace."""

from __future__ import annotations

from typing import Any, Final

from tests.flows.kube.services import FINALIZER, Shop, condition, ingress
from tests.flows.kube.world import World

Json = dict[str, Any]

OUR_CLASS: Final = "fakecloud.dev/haproxy"
WHY_NOT: Final = frozenset({"Unsupported", "Infrastructure"})
"""Reasons of a Service that waits for an edit, or for the cloud."""


def disagreements(world: World, shop: Shop) -> list[str]:
    """Return what isn't so yet, or isn't right; nothing once all agree and rest."""
    services = shop.all()
    balancers = {
        name: one
        for name, one in world.balancers().items()
        if one["labels"].get("namespace") == shop.namespace
    }
    found = []
    used = set()
    for service in services:
        name = service["metadata"]["name"]
        balancer = balancers.get(f"k8s-{service['metadata']['uid']}")
        wrong = _wrong(service, balancer)
        found += [f"{name}: {wrong}"] if wrong else []
        if balancer is not None and _is_wanted(service):
            used.add(balancer["name"])
    found += [f"{name}: nobody wants this load balancer" for name in set(balancers) - used]
    running = sorted(id_ for id_, _ in world.haproxies())
    everything = sorted(
        one["status"]["id"]
        for one in world.balancers().values()
        if any(listener["protocol"] != "udp" for listener in one["spec"]["listeners"])
    )
    if running != everything:
        found.append(f"processes of {running}, load balancers {everything}")
    return found


def _is_wanted(service: Json) -> bool:
    spec, meta = service["spec"], service["metadata"]
    return (
        spec["type"] == "LoadBalancer"
        and spec.get("loadBalancerClass", OUR_CLASS) == OUR_CLASS
        and "deletionTimestamp" not in meta
    )


def _wrong(service: Json, balancer: Json | None) -> str:
    """Return what is wrong between a Service and its load balancer, "" if nothing is."""
    has_finalizer = FINALIZER in (service["metadata"].get("finalizers") or [])
    if "deletionTimestamp" in service["metadata"]:
        return "still there"
    if not _is_wanted(service):
        left = [balancer is not None and "a load balancer", has_finalizer and "our finalizer"]
        return ", ".join(f"not ours, with {one}" for one in left if one)
    reason = condition(service, "LoadBalancerProvisioning").get("reason")
    if not ingress(service):
        return "" if reason in WHY_NOT else f"no address, and why is {reason}"
    if balancer is None or not has_finalizer:
        return f"an address, load balancer {balancer is not None}, finalizer {has_finalizer}"
    # One that can't be served as it is written now is served as it was before.
    return "" if reason in WHY_NOT else _differs(service, balancer)


def _differs(service: Json, balancer: Json) -> str:
    spec, status = balancer["spec"], balancer["status"]
    if status["state"] != "ACTIVE" or status["observed_generation"] != status["generation"]:
        return f"the load balancer is {status['state']}"
    addresses = {one["ip"] for one in status["addresses"]}
    published = {one["ip"] for one in ingress(service) if "ip" in one}
    if published and published != addresses:
        return f"{published} published, {addresses} served"
    wanted = {
        (one["port"], one["protocol"].lower())
        for one in service["spec"]["ports"]
        if one["protocol"] != "SCTP"
    }
    served = {(one["port"], one["protocol"]) for one in spec["listeners"]}
    if wanted != served:
        return f"ports {wanted} wanted, {served} served"
    return ""
