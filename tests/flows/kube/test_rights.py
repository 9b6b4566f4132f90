"""The shipped rights on an API server that enforces them: each is needed, and missed in public."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import urllib.error
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ccm import clock, errors
from ccm.kube import reviews
from ccm.kube import transport as transports
from tests.cluster import embedded
from tests.flows.kube.services import Shop
from tests.flows.kube.test_machines import Machines
from tests.flows.kube.world import Controller, World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

Json = dict[str, Any]
MANIFESTS = Path(__file__).parents[3] / "manifests"
ROLES = "/apis/rbac.authorization.k8s.io/v1"
NAMESPACE = "kube-system"


def shipped() -> list[Json]:
    """Return the objects of the manifests that give rights."""
    files = (
        MANIFESTS / "base" / "rbac.yaml",
        MANIFESTS / "components" / "pod-networks" / "rbac.yaml",
    )
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def rights() -> list[tuple[str, int, str, str]]:
    """Return (role, number of its rule, verb, resource) of every right there is."""
    return [
        (one["metadata"]["name"], number, verb, resource)
        for one in shipped()
        for number, rule in enumerate(one.get("rules", ()))
        for verb in rule["verbs"]
        for resource in rule["resources"]
    ]


def where(role: Json) -> str:
    kind, name = role["kind"].lower(), role["metadata"]["name"]
    scope = f"/namespaces/{NAMESPACE}" if kind == "role" else ""
    return f"{ROLES}{scope}/{kind}s/{name}"


@contextlib.contextmanager
def without(world: World, name: str, number: int, verb: str) -> Iterator[Json]:
    """Take one right away for a while; give the rule that it was of."""
    [role] = [one for one in shipped() if one["metadata"]["name"] == name and "rules" in one]
    poorer = copy.deepcopy(role)
    rule = poorer["rules"][number]
    rule["verbs"].remove(verb)
    if not rule["verbs"]:
        del poorer["rules"][number]
    put(world, poorer)
    try:
        yield role["rules"][number]
    finally:
        put(world, role)


def put(world: World, role: Json) -> None:
    body = {"rules": role["rules"]}
    world.cluster.request("PATCH", where(role), body, "application/merge-patch+json")


def granted(world: World, account: str) -> dict[str, set[str]]:
    """Return the verbs of an account by resource, as `kubectl auth can-i --list` tells them."""
    who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    listed = world.cluster.kubectl("auth", "can-i", "--list", who, f"--namespace={NAMESPACE}")
    found: dict[str, set[str]] = {}
    for line in listed.splitlines()[1:]:
        name, _, rest = line.partition(" ")
        if name:
            verbs = rest.rpartition("[")[2].rstrip("] ").split()
            found.setdefault(name.partition(".")[0], set()).update(verbs)
    return found


def test_rb_08_rights_are_those_of_the_manifests_and_no_others(world: World) -> None:
    everybodys = granted(world, "somebody-else")
    found = {
        name: verbs - everybodys.get(name, set())
        for name, verbs in granted(world, "fakecloud-ccm").items()
        if verbs != everybodys.get(name)
    }
    wanted: dict[str, set[str]] = {}
    for _, _, verb, resource in rights():
        wanted.setdefault(resource, set()).add(verb)
    for some in (found, wanted):
        some.pop("endpointslices", None)  # of an option, applied or not
    assert found == wanted


FLAGS = (
    "--configure-cloud-routes",
    "--cluster-cidr=10.64.0.0/16",
    "--no-reachability-check",
    "--node-monitor-period=1s",
    "--leader-elect-retry-period=500ms",
)
READERS = ("tokenreviews", "subjectaccessreviews")
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/cloud-controller-manager"


@pytest.fixture
def machines(world: World) -> Iterator[Machines]:
    made = Machines(world)
    yield made
    made.clear()


@pytest.fixture
def controller(world: World) -> Iterator[Controller]:
    """A controller with every option on and no Lease yet, in place of the usual one."""
    world.cluster.kubectl(
        "apply", "-f", str(MANIFESTS / "components" / "pod-networks" / "rbac.yaml")
    )
    world.ccm.stop()
    with contextlib.suppress(urllib.error.HTTPError):
        world.cluster.request("DELETE", LEASE)
    made = world.controller("rights.log", *FLAGS)
    yield made
    made.stop()
    world.ensure_running()


def leave_orphan(world: World, namespace: str) -> None:
    """Put a load balancer into the cloud as if its Service had vanished."""
    system = world.cluster.request("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    labels = {"cluster-uid": system, "namespace": namespace, "service": "ghost"}
    document = {
        "labels": {**labels, "service-uid": "ghost"},
        "spec": {"listeners": [], "target_groups": []},
    }
    world.http.put("/load-balancers/k8s-ghost", json=document).raise_for_status()


def provoke(shop: Shop, machines: Machines) -> None:
    """Make a controller with all rights use every one of them."""
    leave_orphan(shop.world, shop.namespace)
    shop.create()
    machines.instance("right-1", addresses=[{"type": "InternalIP", "address": "10.90.0.1"}])
    machines.new("right-1")
    made = machines.instance("right-2")
    machines.join("right-2", ready="False", providerID=made["provider_id"])
    machines.end("right-2")


def is_served(shop: Shop, policy: str) -> bool:
    """Say whether the load balancer is as a policy asks, and works."""
    found = shop.balancer()
    if found is None or found["status"]["state"] != "ACTIVE":
        return False
    ports = {group["health_check"]["port"] for group in found["spec"]["target_groups"]}
    own = shop.get()["spec"].get("healthCheckNodePort")
    return (own in ports) is (policy == "Local")


def repeat_an_event(shop: Shop) -> None:
    """Let the controller say the same twice: the second is a patch of the first."""
    shop.ip()
    for policy in ("Local", "Cluster", "Local"):
        shop.change(externalTrafficPolicy=policy)
        embedded.eventually(lambda p=policy: is_served(shop, p))


def complaints(ccm: Controller, resource: str, verb: str) -> list[str]:
    """Return the lines that name a refused request of that kind."""
    words = f"cannot {verb} resource {resource} "
    return [
        one for one in ccm.lines("forbidden") if words in one.replace(chr(92), "").replace('"', "")
    ]


@pytest.mark.parametrize(
    ("role", "number", "verb"),
    [pytest.param(*one[:3], id=f"{one[3]}-{one[2]}") for one in rights() if one[3] not in READERS],
)
def test_rb_03_rb_08_each_right_taken_away_is_missed_in_public(
    world: World,
    shop: Shop,
    machines: Machines,
    controller: Controller,
    role: str,
    number: int,
    verb: str,
) -> None:
    with without(world, role, number, verb) as rule:
        [resource] = rule["resources"]
        controller.start()
        provoke(shop, machines)
        if (resource, verb) == ("events", "patch"):
            repeat_an_event(shop)
        embedded.eventually(lambda: complaints(controller, resource, verb), timeout_s=40)
    assert not controller.lines("Traceback")


async def test_rb_05_rb_08_reviews_need_their_rights(world: World) -> None:
    plane = world.cluster.control_plane
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "fakecloud-ccm")
    transport = await transports.connect(kubeconfig)
    token = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"]
    reader = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "flows-metrics"},
        "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "flows-metrics"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flows-metrics"},
        "subjects": [{"kind": "ServiceAccount", "name": "fakecloud-ccm", "namespace": NAMESPACE}],
    }  # fmt: skip
    try:

        async def status(secret: str) -> int:
            return await reviews.Reviewer(transport, clock.SystemClock()).status(secret, "/metrics")

        assert await status("nobody's") == 401
        assert await status(token) == 403
        for one, kind in ((reader, "clusterroles"), (binding, "clusterrolebindings")):
            world.cluster.request("POST", f"{ROLES}/{kind}", one)
        await until(lambda: status(token), 200)
        for role, number, verb, resource in rights():
            if resource in READERS:
                with without(world, role, number, verb):
                    await until(lambda: status(token), f"cannot create resource {resource}")
                await until(lambda: status(token), 200)
    finally:
        await transport.close()
        for kind in ("clusterroles", "clusterrolebindings"):
            with contextlib.suppress(urllib.error.HTTPError):
                world.cluster.request("DELETE", f"{ROLES}/{kind}/flows-metrics")


async def until(ask: Callable[[], Awaitable[int]], wanted: int | str) -> None:
    """Return once the answer, or the refusal of it, is as wanted: RBAC takes a moment."""
    async with asyncio.timeout(10):
        while True:
            found: int | str
            try:
                found = await ask()
            except errors.KubeError as error:
                found = str(error).replace('"', "")
            if found == wanted or (isinstance(wanted, str) and wanted in str(found)):
                return
            await asyncio.sleep(0.05)


def test_r_01_r_05_rb_03_nodes_are_routed_with_the_shipped_rights(
    world: World, controller: Controller
) -> None:
    controller.start()

    def routes() -> dict[str, str]:
        found = world.http.get("/routes").json()["items"]
        return {one["labels"]["node"]: one["next_hop"] for one in found}

    def conditions() -> set[tuple[str, str]]:
        nodes = world.cluster.request("GET", "/api/v1/nodes")["items"]
        return {
            (one["status"], one["reason"])
            for node in nodes
            for one in node["status"]["conditions"]
            if one["type"] == "NetworkUnavailable"
        }

    embedded.eventually(routes, lambda it: it == dict(world.cluster.nodes))
    embedded.eventually(conditions, lambda it: it == {("False", "RouteCreated")})
    name = world.cluster.add_node()
    try:
        embedded.eventually(routes, lambda it: name in it)
    finally:
        world.cluster.remove_node(name)
    embedded.eventually(routes, lambda it: name not in it)
    assert not controller.lines("forbidden")
    assert not controller.lines("Traceback")
    for one in world.http.get("/routes").json()["items"]:
        world.http.delete(f"/routes/{one['name']}")
