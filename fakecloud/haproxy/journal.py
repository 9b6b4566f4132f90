"""What a load balancer's directory remembers, written when it says something new."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog

from fakecloud import model
from fakecloud.haproxy import generation, state


class Journal:
    """The record on disk. Not thread-safe: its owner takes turns. `epoch`: the newest seen."""

    def __init__(
        self, directory: Path, lb_id: str, epoch: int, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._directory = directory
        self._lb_id = lb_id
        self._log = log
        self._written: state.Record | None = None
        self.epoch = epoch
        self.overdue = False

    def read(self) -> state.Record | None:
        """Return what an earlier life of the server left; None if there is nothing."""
        record = state.load(self._directory)
        if record is not None:
            self.epoch = max(self.epoch, record.epoch)
        return record

    def doubt(self) -> None:
        """Write at the next occasion, whatever was written."""
        self._written = None

    def write(
        self,
        desired: model.Desired | None,
        active: generation.Generation | None,
        living: Iterable[generation.Generation],
        *,
        starting: state.ProcessRecord | None = None,
        durable: bool = False,
    ) -> None:
        """Write the record, if it says something new. Raises: OSError."""
        noted = [running.record() for running in living]
        record = state.Record(
            lb_id=self._lb_id,
            epoch=self.epoch,
            desired=desired,
            active=active.number if active else None,
            processes=(*noted, *([starting] if starting else [])),
        )
        if record != self._written or durable:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            state.save(self._directory, record, durable=durable)
            self._written = record

    def write_soon(
        self,
        desired: model.Desired | None,
        active: generation.Generation | None,
        living: Iterable[generation.Generation],
    ) -> None:
        """Write the record now, or be `overdue` until the disk has room again."""
        try:
            self.write(desired, active, living)
        except OSError as error:
            self._log.warning("record_not_saved", error=str(error))
            self.overdue = True
        else:
            self.overdue = False
