"""A thousand watchers hold, and one that never reads costs only itself."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from fakecloud.errors import TooManyWatches
from fakecloud.watch import hub as watch
from fakecloud.watch.hub import Hub
from tests.fakes.small_cloud import SmallCloud

KINDS = frozenset({"load_balancer"})


async def test_a_thousand_watchers_hold_and_one_that_sleeps_delays_nobody(
    cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "QUEUE", 30)
    hub = Hub(cloud.database, max_watches=1000)
    with ExitStack() as held:
        watchers = [held.enter_context(hub.subscribed("default", KINDS, None)) for _ in range(1000)]
        with pytest.raises(TooManyWatches), hub.subscribed("default", KINDS, None):
            pass
        sleeper, *readers = watchers
        got: list[list[int]] = [[] for _ in readers]
        for turn in range(40):
            cloud.put("web", turn=str(turn))
            await hub.step()
            for reader, seen in zip(readers, got, strict=True):
                seen.extend(frame.resource_version for frame in reader.queue)
                reader.queue.clear()
        assert sleeper.overrun
        assert len(sleeper.queue) == 0
        assert not any(reader.overrun for reader in readers)
        assert len(got[0]) == 40
        assert all(seen == got[0] for seen in got)
    assert hub.watches("default") == 0
