"""Business time: a line that is bent but never broken, and advances that stop on the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakecloud.domain import addresses
from fakecloud.domain.business_time import LATEST, MAX_RATE, UNCHANGED, BusinessClock, Mode, Status
from fakecloud.errors import ClockAdvancing, ValidationFailed
from fakecloud.model import OperationStatus
from fakecloud.store import clocks
from fakecloud.timekeeper import COMMIT_WITHIN, STOPS, Timekeeper
from tests.fakes.clock import FakeClock
from tests.fakes.small_cloud import PROJECT

DAY = timedelta(days=1)
MOMENTS = st.integers(0, 10**10).map(
    lambda s: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=s)
)


@pytest.fixture
def system() -> FakeClock:
    return FakeClock()


@pytest.fixture
def clock(system) -> BusinessClock:
    return BusinessClock(system)


@pytest.fixture
def keeper(cloud, clock) -> Timekeeper:
    return Timekeeper(cloud.database, clock)


def run(keeper: Timekeeper) -> int:
    """Step to the end of the advance; return how many stops there were."""
    for stops in range(STOPS * 2):
        if not keeper.step():
            return stops
    raise AssertionError("the advance does not end")


def test_business_time_is_wall_time_until_somebody_sets_it(keeper, clock, system):
    keeper.refresh()
    assert clock.now() == clock.wall() == system.wall()
    system.advance(5)
    assert clock.now() == system.wall()


def test_by_hand_it_stands_still(keeper, clock, system):
    before = clock.now()
    keeper.set(Mode.MANUAL, 1)
    system.advance(100)
    assert clock.now() == before
    assert clock.wall() == before + timedelta(seconds=100)


def test_a_rate_is_so_many_times_as_fast(keeper, clock, system):
    before = clock.now()
    keeper.set(Mode.RATE, 3600)
    system.advance(2)
    assert clock.now() == before + timedelta(hours=2)
    keeper.set(Mode.REAL, 1)
    system.advance(1)
    assert clock.now() == before + timedelta(hours=2, seconds=1)


@given(
    changes=st.lists(
        st.tuples(st.sampled_from(Mode), st.integers(1, MAX_RATE), st.integers(-50, 50))
    )
)
def test_it_never_goes_back(changes):
    """I14, whatever the mode becomes and however the machine's clock is set."""
    system = FakeClock()
    clock = BusinessClock(system)
    last = clock.now()
    for mode, rate, seconds in changes:
        line = clock.timeline.anchored(clock.now(), clock.wall())
        clock.follow(msgspec.structs.replace(line, mode=mode, rate=rate))
        system.advance(5)
        assert clock.now() >= last
        last = clock.now()
        system.step_wall(seconds)
        assert clock.now() >= last
        last = clock.now()
        assert last <= max(LATEST, system.wall())


def test_a_change_that_is_being_committed_is_not_undone(cloud, keeper, clock, system):
    """Who looks meanwhile still sees the old line; when the change has failed, it holds again."""
    keeper.set(Mode.RATE, 2)
    system.advance(10)
    with suppress(LookupError), cloud.database.write():
        keeper.set(Mode.MANUAL, 1)
        with ThreadPoolExecutor() as another:
            another.submit(keeper.refresh).result(10)
        assert clock.timeline.mode is Mode.MANUAL
        raise LookupError
    system.advance(COMMIT_WITHIN.total_seconds())
    keeper.refresh()
    assert clock.timeline.mode is Mode.RATE


def test_another_server_follows(cloud, keeper, clock, system):
    keeper.set(Mode.RATE, 100)
    system.advance(10)
    other = BusinessClock(system)
    Timekeeper(cloud.database, other).refresh()
    assert other.timeline == clock.timeline
    assert other.now() == clock.now()


def test_an_advance_is_an_operation(cloud, keeper, clock):
    keeper.set(Mode.MANUAL, 1)
    before = clock.now()
    operation = keeper.advance(PROJECT, before + DAY)
    assert (operation.type, operation.status) == ("clock.advance", OperationStatus.RUNNING)
    with pytest.raises(ClockAdvancing, match=operation.id):
        keeper.advance(PROJECT, before + DAY)
    with pytest.raises(ClockAdvancing):
        keeper.set(Mode.REAL, 1)
    run(keeper)
    assert clock.now() == before + DAY
    (ended,) = cloud.operations()
    assert (ended.status, ended.progress, ended.updated_at) == ("SUCCEEDED", 100, before + DAY)
    assert clock.timeline.status is Status.READY


def test_an_advance_stops_where_something_falls_due(keeper, clock, cloud):
    """Months begin, addresses have rested: each is a moment of its own, and of the events."""
    web = cloud.active("web")
    cloud.delete("web")
    cloud.settle()
    keeper.set(Mode.MANUAL, 1)
    before = clock.now()
    keeper.advance(PROJECT, before + timedelta(days=40))
    stops = []
    while keeper.step():
        stops.append(clock.now())
    assert web.addresses
    assert datetime(2026, 12, 1, tzinfo=UTC) in stops
    assert datetime(2027, 1, 1, tzinfo=UTC) in stops
    assert stops == sorted(set(stops))
    assert stops[-1] == before + timedelta(days=40)


def test_an_advance_is_gone_on_with_by_another_server(cloud, keeper, clock, system):
    keeper.set(Mode.MANUAL, 1)
    before = clock.now()
    keeper.advance(PROJECT, before + timedelta(days=400))
    keeper.step()
    other = BusinessClock(system)
    successor = Timekeeper(cloud.database, other)
    successor.refresh()
    run(successor)
    keeper.refresh()
    assert clock.now() == other.now() == before + timedelta(days=400)


def test_quarantine_ends_in_business_time(keeper, clock, cloud):
    """An address that rests can be given again when business time says so."""
    web = cloud.active("web")
    cloud.delete("web")
    cloud.settle()
    with cloud.database.read() as connection:
        quarantine = timedelta(seconds=addresses.QUARANTINE_S)
        due = clocks.next_expiry(connection, clock.now(), clock.now() + DAY, quarantine)
    assert due == clock.now() + quarantine
    assert web.addresses


@pytest.mark.parametrize("by", [timedelta(), -DAY, timedelta(days=732)])
def test_an_advance_is_forward_and_at_most_two_years(keeper, clock, by):
    with pytest.raises(ValidationFailed):
        keeper.advance(PROJECT, clock.now() + by)


@given(sim=MOMENTS, rate=st.integers(1, MAX_RATE), seconds=st.integers(0, 10**9))
def test_the_end_of_time_is_no_error(sim, rate, seconds):
    line = msgspec.structs.replace(UNCHANGED, mode=Mode.RATE, rate=rate).anchored(sim, sim)
    assert sim <= line.at(sim + timedelta(seconds=min(seconds, 10**8))) <= LATEST


def test_the_database_corrects_the_wall(clock, system):
    clock.correct(system.wall() + timedelta(seconds=3))
    assert clock.wall() == system.wall() + timedelta(seconds=3)
    clock.correct(system.wall() + timedelta(seconds=3.01))
    assert clock.wall() == system.wall() + timedelta(seconds=3), "jitter moves nothing"
