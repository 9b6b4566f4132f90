"""Command line of the embedded cluster: `python -m tests.cluster up` and `… binaries`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import binaries, embedded, errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 with one line on standard error if it failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a cluster and keep it until Ctrl-C")
    up.add_argument("--nodes", type=int, default=3, help="stand-in nodes (default 3)")
    up.add_argument(
        "--dir", type=Path, help="work in this directory and keep it (default: temporary)"
    )
    commands.add_parser("binaries", help="find, download or build the executables")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        found = binaries.find(progress=_Shown())
        if chosen.command == "binaries":
            print(f"{found.directory} ({found.origin})")
            return 0
        _stay_up(found, chosen.dir, chosen.nodes)
    except errors.ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt(*_: object) -> None:
    # No lock may be taken here: the interrupted code may hold it. One interrupt is enough, and
    # the way down must not be cut short by another.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _stay_up(found: binaries.Binaries, directory: Path | None, nodes: int) -> None:
    print(f"binaries: {found.directory} ({found.origin})", file=sys.stderr)
    with embedded.EmbeddedCluster(found.directory, directory, nodes=nodes) as cluster:
        try:  # from the first line on: who reads it may interrupt at once
            for name, address in cluster.nodes.items():
                print(f"node {name} {address}", file=sys.stderr)
            print(f"logs and keys: {cluster.control_plane.directory}", file=sys.stderr)
            print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
            print("Ctrl-C ends it", file=sys.stderr)
            threading.Event().wait()
        except KeyboardInterrupt:
            print("ending", file=sys.stderr)


class _Shown:
    """Prints progress: one line that moves on a terminal, a line per step and tenth elsewhere."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __call__(self, progress: binaries.Progress) -> None:
        terminal = sys.stderr.isatty()
        now = (progress.label, int(progress.fraction * (100 if terminal else 10)))
        if now == self._last:
            return
        if terminal:
            end = "" if progress.fraction < 1 else "\n"
            print(f"\r\033[K{progress.fraction:4.0%} {progress.label}", end=end, file=sys.stderr)
        else:
            print(f"{progress.fraction:4.0%} {progress.label}", file=sys.stderr)
        sys.stderr.flush()
        self._last = now


if __name__ == "__main__":
    sys.exit(main())
