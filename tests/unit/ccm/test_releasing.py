"""`fakecloud-ccm release`: Services given back when the controller is removed for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ccm import errors, releasing
from ccm.kube import objects
from tests.fakes.cloud import TOKEN, FakeCloud
from tests.fakes.kubeapi import FakeApiServer

SERVICES = "/api/v1/namespaces/shop/services"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
LEASE = "kube-system/cloud-controller-manager"
OURS = f'v:"{objects.CLEANUP_FINALIZER}"'


def service(manager: str, *finalizers: str) -> dict[str, Any]:
    fields = {"f:metadata": {"f:finalizers": {OURS: {}}}}
    conditions = [
        {"type": kind, "status": "True", "reason": "Serving", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("LoadBalancerServing", "Theirs")
    ]  # fmt: skip
    return {
        "metadata": {
            "namespace": "shop",
            "annotations": {"fakecloud.dev/hourly-cost": "0.0275 USD", "theirs": "kept"},
            "finalizers": [*finalizers, objects.CLEANUP_FINALIZER],
            "managedFields": [{"manager": manager, "fieldsV1": fields}],
        },
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}, "conditions": conditions},
    }


def kubeconfig(tmp_path: Path, url: str) -> Path:
    file = tmp_path / "kubeconfig"
    content = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    file.write_text(yaml.safe_dump(content))
    return file


async def release(tmp_path: Path, api: FakeApiServer, fake: FakeCloud) -> Any:
    api.put("/api/v1/namespaces", "kube-system", {"metadata": {"uid": "mine"}})
    file = kubeconfig(tmp_path, api.url)
    return await releasing.release(file, LEASE, fake.url, lambda: TOKEN)


def balancers(fake: FakeCloud) -> None:
    for name, uid in (("k8s-a", "mine"), ("k8s-b", "other")):
        fake._create(name, {"labels": {"cluster-uid": uid}, "spec": {"addresses": []}})


async def test_services_are_pending_again_and_free_and_nothing_is_left_in_the_cloud(tmp_path):
    async with FakeApiServer().serving() as api, FakeCloud().serving() as fake:
        balancers(fake)
        api.put(SERVICES, "web", service("fakecloud-ccm", "theirs/finalizer"))
        api.put(SERVICES, "db", service("another-ccm"))
        assert await release(tmp_path, api, fake) == (["shop/web"], ["k8s-a"])
        web = api.objects[f"{SERVICES}/web"]
        assert web["metadata"]["finalizers"] == ["theirs/finalizer"]
        assert web["metadata"]["annotations"] == {"theirs": "kept"}
        assert not web["status"]["loadBalancer"].get("ingress")
        assert [one["type"] for one in web["status"]["conditions"]] == ["Theirs"]
        assert api.objects[f"{SERVICES}/db"]["status"]["loadBalancer"]["ingress"]
        assert [path for method, path in fake.requests if method == "DELETE"] == [
            "/v1/load-balancers/k8s-a"
        ]


async def test_nothing_is_touched_while_a_controller_leads(tmp_path):
    async with FakeApiServer().serving() as api, FakeCloud().serving() as fake:
        balancers(fake)
        api.put(SERVICES, "web", service("fakecloud-ccm"))
        api.put(LEASES, "cloud-controller-manager", {"spec": {"holderIdentity": "pod_1"}})
        with pytest.raises(errors.ConfigError, match=r"pod_1 still leads.*delete deployment"):
            await release(tmp_path, api, fake)
        assert api.objects[f"{SERVICES}/web"]["status"]["loadBalancer"]["ingress"]
        assert fake.count("DELETE") == 0
        api.put(LEASES, "cloud-controller-manager", {"spec": {"holderIdentity": ""}})
        assert (await release(tmp_path, api, fake))[0] == ["shop/web"]
