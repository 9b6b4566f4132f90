"""`python -m tests.flows.standing serve …`: a server whose worker stops at a given point.

The file STAND_AT names an operation and a point ("update pre_commit"); a worker that comes there
writes a line into the pipe beside it (STAND_AT.stands) and does nothing more, for ever.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

from fakecloud import app
from fakecloud.__main__ import main
from fakecloud.chaos.interference import Interference
from fakecloud.model import LoadBalancer, State


class Standing(Interference):
    """Disturbs as faults ask for, and stands where the file says."""

    def at(self, point: str, lb: LoadBalancer) -> None:
        """Be told where a worker is."""
        asked = Path(os.environ["STAND_AT"])
        if asked.exists() and asked.read_text() == f"{_operation(lb)} {point}":
            asked.unlink()
            asked.with_suffix(".stands").write_text(f"{lb.id}\n")
            Event().wait()
        super().at(point, lb)


def _operation(lb: LoadBalancer) -> str:
    if lb.state is State.DELETING:
        return "delete"
    return "update" if lb.was_active else "create"


if __name__ == "__main__":
    vars(app)["Interference"] = Standing
    main()
