"""What faults do to the connections of a load balancer, as the data plane is told."""

from __future__ import annotations

from typing import Literal

import msgspec

ToxicKind = Literal["bandwidth", "jitter", "limit_data", "slicer", "slow_close"]


class Toxic(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What spoils a connection to a target, in one direction; downstream: what the target sends.

    kind: slicer passes on so many `bytes` at once and waits `seconds` before each; bandwidth
    passes on `bytes` a second; limit_data ends the connection after so many; jitter lets each
    piece wait up to `seconds`; slow_close lets the end wait. share: of the connections, 0 to 1.
    """

    kind: ToxicKind
    direction: Literal["downstream", "upstream"] = "downstream"
    bytes: int = 1
    seconds: float = 0.0
    share: float = 1.0


class Disturbance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a fault does to new connections of a load balancer, over TCP; falsy: nothing.

    refuse: its ports are closed. delay_ms: silence before the target is reached, or, with hang_up,
    before the end. reset_share: so many of them are reset, 0 to 1. toxics: what spoils the way to
    the targets. expired: its certificates are over. deaf: the process that serves now hears no
    command. no_reload: no process can be started.
    """

    refuse: bool = False
    delay_ms: int = 0
    hang_up: bool = False
    reset_share: float = 0.0
    toxics: tuple[Toxic, ...] = ()
    expired: bool = False
    deaf: bool = False
    no_reload: bool = False

    def __bool__(self) -> bool:
        """Return whether anything is disturbed."""
        return self != Disturbance()
