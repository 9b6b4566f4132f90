"""`python -m tests.demo [--once]`: the whole story; exit 0 if every act held, else 1."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path

from tests.cluster import binaries, embedded, processes
from tests.cluster.errors import ClusterError
from tests.demo import programs
from tests.demo.programs import ProgramError
from tests.demo.screen import Screen
from tests.demo.story import CloudActs, ClusterActs, StoryError


def main() -> int:
    """Tell the story; then stay until Ctrl-C, unless told or piped otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the story")
    once = parser.parse_args().once
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a script began us
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    screen = Screen()
    owned = processes.OwnedDirectory(
        prefix="fakecloud-demo",
        before_removal=lambda dead: programs.end_haproxies(dead / "cloud"),
    )
    directory = owned.path
    (directory / "cloud").mkdir(mode=0o700)
    kept = False
    try:
        with contextlib.ExitStack() as stack:
            _tell(screen, directory, stack, stay=not once and screen.is_terminal)
    except (StoryError, ProgramError, ClusterError, OSError) as error:
        screen.failure(str(error))
        screen.line(f"logs: {directory}")
        kept = True
        return 1
    except KeyboardInterrupt:
        screen.line("everything is removed")
        return 130 if once else 0
    finally:
        owned.close(keep=kept)
    return 0


def _tell(screen: Screen, directory: Path, stack: contextlib.ExitStack, *, stay: bool) -> None:
    began = time.monotonic()
    cloud = CloudActs(screen, directory / "cloud")
    stack.callback(cloud.end)
    screen.act("A real control plane on this machine")
    found = _binaries(screen, cloud)
    screen.fact(f"etcd, kube-apiserver, kube-controller-manager, kubectl: {found.origin}")
    started = time.monotonic()
    cluster = stack.enter_context(embedded.EmbeddedCluster(found.directory))
    nodes = ", ".join(f"{name} {ip}" for name, ip in cluster.nodes.items())
    screen.fact("control plane is ready", f"{round((time.monotonic() - started) * 1000)} ms")
    screen.fact(f"stand-in nodes: {nodes}")
    if not cloud.server.running():
        cloud.start()
    acts = ClusterActs(screen, cloud, cluster, directory)
    stack.callback(acts.end)
    acts.start()
    acts.pending_to_address()
    acts.answers()
    acts.kill_the_cloud()
    acts.delete_one()
    acts.costs()
    screen.act(f"Every act held. {time.monotonic() - began:.1f} s in all.")
    if stay:
        acts.how_to_use()
        threading.Event().wait()


def _binaries(screen: Screen, cloud: CloudActs) -> binaries.Binaries:
    """Find the executables; when they must be made first, play the REST half meanwhile."""
    with contextlib.suppress(ClusterError):
        return binaries.find(fetch=False)
    screen.line(
        f"the control plane isn't on this machine yet: downloading it, or {_EXPECTED} to build it;"
        " the next start takes seconds"
    )
    result: list[binaries.Binaries | ClusterError] = []
    latest = [binaries.Progress(0.0, "looking for a download")]

    def make() -> None:
        try:
            result.append(binaries.find(lambda progress: latest.__setitem__(0, progress)))
        except ClusterError as error:
            result.append(error)

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    cloud.rest_half()
    with screen.progress("making the control plane") as shown:
        while maker.is_alive():
            maker.join(0.5)
            shown.at(latest[0].fraction, latest[0].label)
    if isinstance(result[0], ClusterError):
        raise result[0]
    return result[0]


_EXPECTED = "about 5 to 11 minutes on 2 cores"

if __name__ == "__main__":
    sys.exit(main())
