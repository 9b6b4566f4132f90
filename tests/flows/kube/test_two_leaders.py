"""Two controllers as processes of their own, one of which stands still longer than its lease."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from tests.cluster import embedded
from tests.flows.kube.services import Shop, answer, port
from tests.flows.kube.world import Controller, World

pytestmark = [pytest.mark.kube, pytest.mark.haproxy, pytest.mark.timeout(120)]

PAUSES = 4
EDITS = 5
LEASE = (
    "--leader-elect-lease-duration=3s",
    "--leader-elect-renew-deadline=2s",
    "--leader-elect-retry-period=200ms",
)


@pytest.fixture
def rivals(world: World) -> Iterator[dict[str, Controller]]:
    """Two controllers that wait for one lease; the keys are the ids of their tokens."""
    world.ccm.stop()
    found: dict[str, Controller] = {}
    try:
        for name in ("one", "other"):
            made = world.http.post("/tokens", json={"scopes": ["ccm"], "description": name})
            token = made.raise_for_status().json()
            file = world.token_file.with_name(f"token-{name}")
            file.write_text(token["secret"])
            found[token["id"]] = world.controller(
                f"{name}.log", *LEASE, f"--cloud-token-file={file}"
            )
        yield found
    finally:
        for one in found.values():
            if one.running():
                os.kill(one.pid, signal.SIGCONT)
            one.stop()
        world.ensure_running()


def test_b_20_p_10_a_leader_that_stood_still_never_writes_beside_its_successor(
    shop: Shop, world: World, rivals: dict[str, Controller]
) -> None:
    """Paused in the middle of edits, by SIGSTOP; the cloud's audit record tells who wrote when."""
    (first, leader), (second, waiting) = rivals.items()
    leader.start()
    leader.wait_for("leadership_acquired")
    waiting.start()
    waiting.wait_for("leadership_awaited")
    shop.create()
    answer(shop.ip())
    number = itertools.count(8081)

    for _ in range(PAUSES):
        for _ in range(EDITS):
            shop.change(ports=[port(next(number))])
        os.kill(leader.pid, signal.SIGSTOP)
        shop.change(ports=[port(wanted := next(number))])
        waiting.wait_for("leadership_acquired")
        assert answer(shop.ip(), wanted)
        os.kill(leader.pid, signal.SIGCONT)
        embedded.eventually(lambda one=leader: not one.running())
        assert leader.lines("leadership_lost")

        leader.start()
        leader.wait_for("leadership_awaited")
        leader, waiting = waiting, leader

    terms = [token for token, _ in itertools.groupby(_writers(world, {first, second}))]
    assert terms == [first, second] * (PAUSES // 2) + [first]


def _writers(world: World, tokens: set[str]) -> list[str]:
    """Return whose writes the cloud took, in its own order."""
    found: list[str] = []
    after = ""
    while True:
        query = {"page_token": after} if after else {}
        page = world.http.get("/audit", params=query).raise_for_status().json()
        found += [
            one["token_id"]
            for one in page["items"]
            if one["token_id"] in tokens and one["status"] < 300
        ]
        after = page["next_page_token"]
        if not after:
            return found
