"""What a load balancer's relays have carried on this host.

A successor goes on counting where its predecessor was: one epoch of a relay is one process here.
"""

from __future__ import annotations

from fakecloud import errors, model
from fakecloud.domain.tally import Tally
from fakecloud.udp import config, wire
from fakecloud.udp.control import Row
from fakecloud.udp.worker import Worker


class Meter(Tally):
    """Reads relays. Not thread-safe: its load balancer takes turns."""

    def measure(self, relay: Worker, spec: model.Spec) -> None:
        """Read what a relay has counted. Raises: Transient."""
        rows = [_columns(row) for row in relay.control.statistics()]
        self.read(relay.epoch, rows, config.names(spec))

    def finish(self, relay: Worker, spec: model.Spec | None) -> None:
        """Count a relay to its end: it relays nothing any more and is to be ended."""
        try:
            relay.control.apply(wire.render(wire.Config()), ())
            if spec is not None:
                self.measure(relay, spec)
        except errors.Transient:
            self.ended(relay.epoch, complete=False)
        else:
            self.ended(relay.epoch, complete=True)
        self.save()

    def counters(self, spec: model.Spec | None) -> list[model.Counters]:
        """Return the totals: of every listener there was, and of the targets of `spec`."""
        return self.totals(config.names(spec) if spec else {})


def _columns(row: Row) -> dict[str, str]:
    """Return a line of counters in HAProxy's words."""
    figures = row.figures
    counted = {
        "scur": row.sessions,
        "stot": figures["sessions_total"],
        "bin": figures["bytes_in"],
        "bout": figures["bytes_out"],
        "dcon": figures["denied"] + figures["refused"],
        "econ": figures["failed"] + figures["unserved"],
    }
    is_target = row.kind == "target"
    place = {
        "pxname": row.group if is_target else row.name,
        "svname": row.name if is_target else "",
    }
    return (
        place
        | {name: str(number) for name, number in counted.items()}
        | {
            "ctime": "",
            "rtime": "",
            "mode": "udp",
        }
    )
