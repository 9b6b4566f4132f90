"""A queue of keys for level-triggered work: each key once, and never twice at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import aiohttp

from tests.cluster import errors, kubeapi

_log = logging.getLogger("tests.cluster")
_RETRY_S = 0.25
_GONE = (404, 409)

Key = TypeVar("Key", bound=Hashable)


class Work(Generic[Key]):
    """Calls `step(key)` for every added key; a key added during its own step gets another one."""

    def __init__(self, step: Callable[[Key], Awaitable[None]]) -> None:
        self._step = step
        self._waiting: dict[Key, None] = {}
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._arrived = asyncio.Event()

    def add(self, key: Key) -> None:
        """Have `key` looked at soon."""
        if key in self._running:
            self._again.add(key)
        else:
            self._waiting[key] = None
            self._arrived.set()

    def add_later(self, key: Key, delay_s: float) -> None:
        """Have `key` looked at after `delay_s`."""
        asyncio.get_running_loop().call_later(delay_s, self.add, key)

    async def run(self) -> None:
        """Work for ever; several of these may run side by side."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._running.add(key)
            try:
                await self._one(key)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _one(self, key: Key) -> None:
        try:
            await self._step(key)
        except kubeapi.ApiError as error:
            if error.status in _GONE:  # it changed under us: the watch brings the news
                return
            _log.warning("%s: %s", key, error)
            self.add_later(key, _RETRY_S)
        except errors.ClusterError as error:
            _log.warning("%s: %s", key, error)
            self.add_later(key, _RETRY_S)
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.info("%s: %r, tries again", key, error)
            self.add_later(key, _RETRY_S)
