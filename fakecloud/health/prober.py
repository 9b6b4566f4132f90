"""The health prober: one asyncio loop asks every distinct target once, whoever shares the answer.

Equal `ProbeKey`s are one probe. HTTP checks keep their connection open and write one request per
turn; TCP checks connect and hang up. All turns wait in one heap with one timer, so a probe at
rest costs neither a task nor a timer of the loop. What an answer means is decided in `checks`.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Collection
from threading import Lock

import structlog

from fakecloud import clock as clocks
from fakecloud import model
from fakecloud.domain import checks
from fakecloud.domain.checks import ProbeResult as ProbeResult
from fakecloud.health.probes import Connection, Probe

_SLOT_S = 0.05  # turns are rounded up to slots: one wake-up starts many probes
_JITTER = 0.1
_OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REASONS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.ECONNRESET: "connection_reset",
    errno.EHOSTUNREACH: "no_route",
    errno.ENETUNREACH: "no_route",
    errno.ETIMEDOUT: "timeout",
}

_log = structlog.get_logger(__name__)


class Prober:
    """Asks the watched keys in turn; tells `on_change` when a target's health or weight changes.

    `on_change` runs in the loop of `run` and must not block; it is told the first answer too.
    `max_concurrent` bounds the probes under way, `max_idle` the connections kept open between
    them; their sum is the most file descriptors the prober holds. When the process runs out
    of descriptors nothing is judged: results stay and the probe is tried again.
    """

    def __init__(
        self,
        clock: clocks.Clock,
        on_change: Callable[[model.ProbeKey, ProbeResult], None],
        *,
        rng: random.Random,
        max_concurrent: int = 256,
        max_idle: int = 512,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._rng = rng
        self._max_concurrent = max_concurrent
        self._max_idle = max_idle
        self._lock = Lock()  # guards _results and _loop; the rest belongs to the loop
        self._results: dict[model.ProbeKey, ProbeResult] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probes: dict[model.ProbeKey, Probe] = {}
        self._turns: list[tuple[float, int, Probe, int]] = []
        self._serial = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._busy = 0
        self._queue: deque[Probe] = deque()
        self._idle: set[Connection] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._exhausted = False

    def watch(self, keys: Collection[model.ProbeKey]) -> None:
        """Replace the set of what is probed; new keys are asked at once. From any thread."""
        now = self._clock.now()
        with self._lock:
            known = self._results
            self._results = {
                key: known.get(key) or ProbeResult(None, "not_probed", now) for key in keys
            }
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._sync)

    def result(self, key: model.ProbeKey) -> ProbeResult:
        """Return what is known of `key`; unwatched keys are not known. From any thread."""
        with self._lock:
            result = self._results.get(key)
        return result or ProbeResult(None, "not_probed", self._clock.now())

    async def run(self) -> None:
        """Probe until cancelled; then every connection is closed. Results stay readable."""
        loop = asyncio.get_running_loop()
        with self._lock:
            assert self._loop is None, "the prober runs already"
            self._loop = loop
        self._sync()
        try:
            await loop.create_future()
        finally:
            self._queue.clear()
            for key in list(self._probes):
                self._drop(key)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            self._turns.clear()
            with self._lock:
                self._loop = None
            await asyncio.gather(*self._dials, return_exceptions=True)

    def _sync(self) -> None:
        """Make the probes equal to the watched keys."""
        with self._lock:
            if self._loop is None:
                return
            wanted = dict(self._results)
        for key, probe in list(self._probes.items()):
            if wanted.get(key) is not probe.result:  # unwatched, perhaps watched anew since
                self._drop(key)
        for key in wanted.keys() - self._probes.keys():
            probe = self._probes[key] = Probe(key, wanted[key])
            self._start_or_queue(probe)

    def _drop(self, key: model.ProbeKey) -> None:
        probe = self._probes.pop(key)
        self._interrupt(probe)
        if probe.connection is not None:
            probe.connection.close()
        probe.gone = True
        if probe.busy:
            self._release(probe)

    def _schedule(self, probe: Probe, when: float) -> None:
        """Give `probe` its next turn (or, while it is asked, its deadline) at loop time `when`."""
        slot = math.ceil(when / _SLOT_S) * _SLOT_S
        heapq.heappush(self._turns, (slot, next(self._serial), probe, probe.turn))
        self._arm()

    def _arm(self) -> None:
        if self._loop is None or not self._turns:
            return
        first = self._turns[0][0]
        if self._timer is not None:
            if self._timer_at <= first:
                return
            self._timer.cancel()
        self._timer_at = first
        self._timer = self._loop.call_at(first, self._tick)

    def _tick(self) -> None:
        """Start or time out all probes whose moment has come."""
        assert self._loop is not None
        self._timer = None
        now = self._loop.time()
        try:
            while self._turns and self._turns[0][0] <= now:
                _, _, probe, turn = heapq.heappop(self._turns)
                if turn != probe.turn or probe.gone:
                    continue  # the deadline of a turn that ended in time
                if probe.busy:
                    self._interrupt(probe)
                    self.finish(probe, ok=False, reason="timeout")
                else:
                    self._start_or_queue(probe)
        finally:
            self._arm()

    def _start_or_queue(self, probe: Probe) -> None:
        probe.turn += 1
        if self._busy < self._max_concurrent:
            self._start(probe)
        else:
            self._queue.append(probe)

    def _start(self, probe: Probe) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self._busy += 1
        probe.busy = True
        probe.started = now
        self._schedule(probe, now + probe.key.check.timeout_s)
        connection = probe.connection
        if connection is not None:
            self._idle.discard(connection)
            if connection.usable(now):
                connection.ask()
                return
            connection.close()
        self.dial(probe)

    def dial(self, probe: Probe) -> None:
        """Open a new connection for the turn that is under way."""
        probe.connection = None
        probe.dial = asyncio.ensure_future(self._connect(probe))
        self._dials.add(probe.dial)
        probe.dial.add_done_callback(self._dials.discard)

    async def _connect(self, probe: Probe) -> None:
        assert self._loop is not None
        try:
            await self._loop.create_connection(
                lambda: Connection(self, probe), probe.key.ip, probe.key.port
            )
        except OSError as error:
            probe.dial = None
            if error.errno in _OWN_FAULTS:
                self._postpone(probe, error)
            else:
                reason = _REASONS.get(error.errno or 0, "connect_failed")
                self.finish(probe, ok=False, reason=reason)
        else:
            self._exhausted = False

    def _interrupt(self, probe: Probe) -> None:
        if probe.dial is not None:
            probe.dial.cancel()
            probe.dial = None
        if probe.busy and probe.connection is not None:
            probe.connection.close()

    def _postpone(self, probe: Probe, error: OSError) -> None:
        """End the turn without a verdict: this process is at a limit, the target may be well."""
        if not self._exhausted:
            self._exhausted = True
            _log.warning("probes_postponed", error=str(error), remedy="raise the limit (ulimit -n)")
        for connection in list(self._idle):
            connection.close()
        if probe.result.healthy is None:
            self._record(probe, ProbeResult(None, "prober_exhausted", probe.result.since))
        self._rest(probe)

    def finish(self, probe: Probe, *, ok: bool, reason: str, weight: int | None = None) -> None:
        """End the turn of `probe` with an answer, and let the next one start."""
        assert self._loop is not None
        known = probe.result
        result, probe.contrary = checks.judge(
            known, probe.contrary, ok, reason, probe.key.check, self._clock.now(), weight
        )
        if result is not known:
            self._record(probe, result)
        self._rest(probe, spread=known.healthy is None)
        if result.healthy is not known.healthy or result.weight != known.weight:
            self._loop.call_soon(self._on_change, probe.key, result)

    def _rest(self, probe: Probe, *, spread: bool = False) -> None:
        """Schedule the next turn. `spread`: keys watched together part after their first turn."""
        assert self._loop is not None
        connection = probe.connection
        if connection is not None:
            if len(self._idle) < self._max_idle:
                self._idle.add(connection)
            else:
                connection.close()
        factor = self._rng.uniform(0.5 if spread else 1 - _JITTER, 1 + _JITTER)
        due = probe.started + checks.delay_s(probe.key.check, probe.contrary) * factor
        self._release(probe)
        self._schedule(probe, max(due, self._loop.time()))

    def _release(self, probe: Probe) -> None:
        probe.busy = False
        probe.turn += 1
        self._busy -= 1
        while self._queue and self._busy < self._max_concurrent:
            waiting = self._queue.popleft()
            if not waiting.gone:
                self._start(waiting)

    def _record(self, probe: Probe, result: ProbeResult) -> None:
        probe.result = result
        with self._lock:
            if probe.key in self._results:
                self._results[probe.key] = result

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection that is closed."""
        self._idle.discard(connection)
