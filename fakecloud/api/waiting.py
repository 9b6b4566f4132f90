"""Long polls: hold a request until something is so, woken by the watch hub, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from fastapi.concurrency import run_in_threadpool

from fakecloud import errors
from fakecloud.api.context import Cloud
from fakecloud.store import events

VERSION_WAIT_S: Final = 2.0
_LOOK_S: Final = 0.05

T = TypeVar("T")


async def until(
    cloud: Cloud, object_id: str, look: Callable[[], T], done: Callable[[T], bool], wait_s: float
) -> T:
    """Return `look()` once it is `done`, or as it is after `wait_s`.

    look: reads in a thread; asked again whenever the object changed. Raises: what `look` raises.
    """
    with cloud.hub.changes_of(object_id) as changed:
        found, deadline = await _looked(look, changed), asyncio.get_running_loop().time() + wait_s
        while not done(found):
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                break
            found = await _looked(look, changed)
        return found


async def _looked(look: Callable[[], T], changed: asyncio.Event) -> T:
    changed.clear()  # before the look: a change during it is seen next
    return await run_in_threadpool(look)


async def for_version(cloud: Cloud, version: int) -> None:
    """Return when everything up to `version` can be read. Raises: InvalidParameter after 2 s."""

    def current() -> int:
        with cloud.database.read() as connection:
            return events.current_version(connection)

    if cloud.hub.version >= version:
        return
    try:
        async with asyncio.timeout(VERSION_WAIT_S):
            while await run_in_threadpool(current) < version:
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise errors.InvalidParameter(
            f"min_rv={version} is newer than anything here; take it from an answer of this cloud"
        ) from None
