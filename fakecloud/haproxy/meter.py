"""What a load balancer's HAProxy processes have carried on this host."""

from __future__ import annotations

from fakecloud import errors, model
from fakecloud.domain.tally import Tally
from fakecloud.haproxy import config, generation


class Meter(Tally):
    """Reads processes. Not thread-safe: its load balancer takes turns."""

    def measure(self, running: generation.Generation, spec: model.Spec | None) -> bool:
        """Read what a process has counted; False if it doesn't say.

        spec: what it runs; None: it only finishes, its lines stand for what they did.
        """
        try:
            rows = running.runtime.statistics()
        except errors.Transient:
            return False
        self.read(running.number, rows, config.names(spec) if spec else {})
        return True

    def finish(self, running: generation.Generation, spec: model.Spec | None) -> None:
        """Count a process to its end, which is now."""
        complete = running.finish() and self.measure(running, spec)
        self.ended(running.number, complete=complete)
        self.save()

    def counters(self, spec: model.Spec | None) -> list[model.Counters]:
        """Return the totals: of every listener there was, and of the targets of `spec`."""
        return self.totals(config.names(spec) if spec else {})
