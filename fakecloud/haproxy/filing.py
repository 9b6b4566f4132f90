"""When the files of the process that serves are made to say what it was told."""

from __future__ import annotations

from typing import Final

import structlog

from fakecloud.clock import Clock
from fakecloud.haproxy import config, generation

WRITE_S: Final = 1.0
AGAIN_S: Final = 1.0


class Filing:
    """A moment later: a node that fails for hundreds of load balancers must not wait for hundreds
    of files. The record, which a restart goes by, is written already.

    Not thread-safe: its owner takes turns. `due_at`: when there is something to write, if ever.
    """

    def __init__(self, time: Clock, log: structlog.stdlib.BoundLogger) -> None:
        """Have nothing to write."""
        self._clock = time
        self._log = log
        self.due_at: float | None = None

    def later(self) -> None:
        """Write in a moment."""
        if self.due_at is None:
            self.due_at = self._clock.monotonic() + WRITE_S

    def tend(
        self, active: generation.Generation | None, running: config.Config | None, now: float
    ) -> float | None:
        """Write what is due: that `active` runs `running`. Return when to come back, if ever."""
        if self.due_at is None or now < self.due_at:
            return self.due_at
        self.due_at = None
        if active is not None and running is not None:
            try:
                active.artifacts.write(running)
            except OSError as error:
                self._log.warning("files_not_written", error=str(error))
                self.due_at = now + AGAIN_S
        return self.due_at
