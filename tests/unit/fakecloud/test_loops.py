"""Threads that turn steps: what ends them is seen."""

from __future__ import annotations

from threading import Event

import pytest

from fakecloud.loops import Loops
from fakecloud.metrics import Metrics
from tests.fakes.clock import FakeClock


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_ended_by_itself_is_named():
    turned, loops = Event(), Loops(FakeClock(), Metrics())

    def turn() -> None:
        turned.set()
        loops.stop.wait(10)

    def end() -> None:
        raise SystemExit

    loops.start("worker", turn)
    loops.start("ender", end)
    turned.wait(10)
    loops._threads[1].join(10)
    assert loops.stopped() == ["ender"]
    loops.join(10)
    assert loops.stopped() == []
