"""What all load balancers of a server share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fakecloud import clock
from fakecloud.haproxy import launcher, runtime
from fakecloud.haproxy.spoiling import Spoiler
from fakecloud.supervision import pulse


@dataclass(frozen=True, slots=True)
class Host:
    """What all load balancers of a server share; directories are absolute.

    transparent: processes may connect from their clients' addresses. spoiler: spoils connections
    where somebody asked for that; None: it can't be reached from where processes run.
    """

    root: Path
    runtime_dir: Path
    launcher: launcher.Launcher
    clock: clock.Clock
    connections: int
    run_as: tuple[int, int] | None
    spare_sockets: bool = True
    beat_s: float = pulse.BEAT_S
    transparent: bool = False
    spoiler: Spoiler | None = None

    def directory(self, lb_id: str) -> Path:
        """Return where a load balancer keeps its files."""
        return self.root / lb_id

    def meter(self, lb_id: str) -> Path:
        """Return the file of what a load balancer has carried; it outlives the directory."""
        return self.root.parent / "meters" / f"{lb_id}.json"

    def socket(self, lb_id: str, number: int | str) -> Path:
        """Return the stats socket of a generation: short, as sockets' paths are limited."""
        name = launcher.runtime_name(lb_id)
        if self.launcher.own_network:  # a directory for each, as others must not be seen there
            return self.runtime_dir / name / f"g{number}.sock"
        return self.runtime_dir / f"{name}.g{number}.sock"

    def door(self, lb_id: str, number: int) -> runtime.Runtime:
        """Return the runtime interface of a generation."""
        spare = (self.directory(lb_id), spare_socket(number)) if self.spare_sockets else None
        return runtime.Runtime(str(self.socket(lb_id, number)), spare)


def spare_socket(number: int) -> str:
    """Return the second socket of a generation: its name in the load balancer's directory."""
    return f"g{number}.sock"
