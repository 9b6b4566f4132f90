"""Load balancers answer again before the rest of the server is loaded.

After a reboot, and in a container that was replaced, neither processes nor addresses are left. All
that it takes to have them again lies in the state directory, and the parts that do it are loaded
in a fraction of the time that the whole server takes.
"""

from __future__ import annotations

from threading import Event
from typing import Final

import structlog

from fakecloud.clock import Clock
from fakecloud.dataplane import premises
from fakecloud.errors import DataPlaneError
from fakecloud.haproxy import state
from fakecloud.settings import Settings

PATIENCE_S: Final = 2.0
"""So long the server waits for what doesn't start: then it looks after that itself."""
LOOK_S: Final = 0.005

log = structlog.get_logger()


def restore(settings: Settings, clock: Clock) -> int:
    """Let answer what the last life of this server ran; return how many load balancers do.

    The server adopts them a moment later, and ends those that shouldn't be. With a database that
    other hosts use nothing is done: another host may answer in our place by now.
    Raises: StartError, as the server itself would.
    """
    if not settings.uses_sqlite or not (settings.state_dir / "lb").is_dir():
        return 0
    premises.set_limits()
    settings = premises.settle(settings, clock)
    pools = premises.parse_pools(settings)
    dataplane = premises.host_data_plane(settings, pools, clock)
    try:
        left = state.desired(settings.state_dir / "lb")
        addresses = premises.addresses(pools, clock)
        absent = addresses.restore({lb_id: one.addresses for lb_id, one in left.items()})
        started = dataplane.adopt(left).restarted - absent
        deadline, never = clock.monotonic() + PATIENCE_S, Event()
        while not started <= dataplane.running() and clock.monotonic() < deadline:
            clock.wait(never, LOOK_S)
        serving = len(dataplane.running())
        log.info("load_balancers_restored", serving=serving, of=len(left))
    except DataPlaneError as error:
        log.warning("load_balancers_not_restored", reason=error.message)
        return 0
    else:
        return serving
    finally:
        dataplane.close()
