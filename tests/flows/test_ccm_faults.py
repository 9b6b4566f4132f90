"""The controller manager against the real cloud with each of its faults on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from tests.fakes.ccm_clock import SwiftClock, until
from tests.fakes.ccm_manager import Scene, managing
from tests.fakes.kubeapi import FakeApiServer
from tests.flows.conftest import Running
from tests.flows.test_faults import inject

pytestmark = pytest.mark.haproxy

SPEED: Final = 60.0
TROUBLE_S: Final = 30.0
"""How long the fault lasts, by the controller's clock."""
MOST_REQUESTS: Final = 32
"""For each Service in that time: one a second if the cloud says so, at most eight by themselves."""
MOST_WATCHES: Final = 200
"""A cloud that can't be reached is tried every 0.15 s and more: what is served waits for it."""
LASTING: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "429": ("api", "rate_limit", {"retry_after_s": 3}),
    "500": ("api", "status", {"code": 500}),
    "503": ("api", "status", {"code": 503}),
    "a proxy's 502": ("api", "html_502", {}),
    "401": ("api", "auth_flap", {}),
    "hang": ("api", "hang", {"seconds": 0.2}),
    "reset": ("api", "reset_before", {}),
    "no JSON": ("api", "malformed_json", {}),
    "half an answer": ("api", "truncate_body", {}),
    "answer lost": ("api", "drop_after_commit", {}),
    "stale reads": ("api", "stale_read", {}),
    "latency": ("api", "latency", {"seconds": 0.1}),
    "stuck": ("provision", "stuck", {}),
    "provisioning fails": ("provision", "fail_transient", {}),
    "slow deletion": ("provision", "slow_delete", {"seconds": 0.5}),
    "watch stands": ("watch", "silent_stall", {}),
    "watch breaks": ("watch", "disconnect", {}),
    "watch expires": ("watch", "expire", {}),
    "watch without bookmarks": ("watch", "no_bookmarks", {}),
    "events twice": ("watch", "duplicate", {}),
    "events late": ("watch", "delay", {"seconds": 0.2}),
    "events in another order": ("watch", "reorder_across_objects", {}),
}


class RealCloud:
    """The cloud of this process, read past its faults."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.url = running.url

    @property
    def load_balancers(self) -> dict[str, dict[str, Any]]:
        """The documents by name."""
        answer = self._running.http.get("/v1/load-balancers")
        assert answer.status_code == 200, answer.text
        return {one["name"]: one for one in answer.json()["items"]}


@pytest.fixture(autouse=True)
def _no_fault_left(cloud: Running) -> Iterator[None]:
    yield
    assert cloud.http.post("/v1/chaos:reset").status_code == 200


@pytest.mark.parametrize("fault", LASTING)
async def test_u_15_every_fault_of_the_cloud_is_outlived(cloud: Running, fault: str) -> None:
    """Services come, change and go meanwhile: one load balancer each, none left, no storm."""
    layer, action, more = LASTING[fault]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(FakeApiServer().serving())
        it = Scene(server, RealCloud(cloud), SwiftClock(SPEED))
        manager = await stack.enter_async_context(
            managing(server.transport(), cloud.url, clock=it.clock, token=cloud.token)
        )
        for name in ("stays", "changes", "goes"):
            it.create(name)
        await it.in_step("stays", "changes", "goes")
        ids = {name: one["status"]["id"] for name, one in it.cloud.load_balancers.items()}
        match = {} if layer == "provision" else {"match": {"user_agent": "fakecloud-ccm*"}}
        inject(cloud, layer, action, **match, **more)

        before = manager.cloud_requests()
        it.create("comes")
        it.edit("changes", 8090)
        it.delete("goes")
        await it.clock.sleep(TROUBLE_S)
        asked = manager.cloud_requests() - before
        watches = asked.pop("WATCH", 0)
        assert cloud.http.post("/v1/chaos:reset").status_code == 200

        await it.in_step("stays", "changes", "comes", seconds=20)
        await until(lambda: it.ports()["changes"] == [8090], seconds=20)
        assert sum(asked.values()) <= 3 * MOST_REQUESTS, f"asked too much: {asked}"
        assert watches <= MOST_WATCHES
        kept = {one: id_ for one, id_ in ids.items() if one in it.cloud.load_balancers}
        now = {name: it.cloud.load_balancers[name]["status"]["id"] for name in kept}
        assert now == kept, "a load balancer was made again"
