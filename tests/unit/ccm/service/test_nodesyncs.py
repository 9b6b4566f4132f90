"""How long a change of the nodes takes to be everywhere."""

from __future__ import annotations

from ccm import metrics
from ccm.service import nodesyncs
from tests.fakes.ccm_clock import FakeClock


async def test_a_change_lasts_until_the_last_service_was_looked_at():
    clock, numbers = FakeClock(), metrics.Metrics()
    syncs = nodesyncs.NodeSyncs(clock, numbers)

    def seen(part: str) -> float | None:
        name = f"service_controller_nodesync_latency_seconds_{part}"
        return numbers.registry.get_sample_value(name)

    syncs.begin(["a", "b"])
    await clock.advance(2.0)
    syncs.done("a")
    syncs.begin(["a"])  # a second change on top
    syncs.done("b")
    syncs.done("elsewhere")
    assert seen("count") == 0
    await clock.advance(1.0)
    syncs.done("a")
    assert (seen("count"), seen("sum")) == (1, 3.0)
    syncs.begin([])
    assert seen("count") == 1
