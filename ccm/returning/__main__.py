"""The command: python -m ccm.returning --gateway HOST [--interface NAME] [--ready-file FILE]."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from ccm import clock as clocks
from ccm import errors, logs
from ccm.returning import agent as agents
from ccm.returning import kernel


def main(arguments: list[str]) -> int:
    """Run the agent until SIGTERM; 2 for what can't work.

    What the kernel was told stays when it ends, so that an upgrade cuts no connection; --remove
    takes it back.
    """
    wish = _parser().parse_args(arguments)
    logs.configure()
    clock = clocks.SystemClock()
    try:
        door = kernel.Kernel(wish.interface)
        agent = agents.Agent(door, wish.gateway.split(","), wish.interface, clock)
        if wish.remove:
            agent.remove()
        else:
            asyncio.run(_run(agent, clock, wish.ready_file))
    except errors.ConfigError as error:
        sys.stderr.write(f"return-routes: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ccm.returning", description=__doc__)
    parser.add_argument(
        "--gateway", default="fakecloud", help="hosts of load balancers, with commas"
    )
    parser.add_argument("--interface", default="eth0", help="where they reach this node")
    parser.add_argument("--ready-file", type=Path, help="is there while the way back is known")
    parser.add_argument("--remove", action="store_true", help="leave nothing on this node")
    return parser


async def _run(agent: agents.Agent, clock: clocks.Clock, ready_file: Path | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.to_thread(agent.step)  # pyroute2 has an event loop of its own
            if ready_file is not None and agent.ready:
                ready_file.touch()
            await clock.sleep(agents.PAUSE_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
