"""What a load balancer's directory remembers, written when it says something new."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from fakecloud import errors, model
from fakecloud.haproxy import state
from fakecloud.haproxy.generations import Generations

AGAIN_S: Final = 1.0


class Journal:
    """The record on disk. Not thread-safe: its owner takes turns. `epoch`: the newest seen."""

    def __init__(
        self,
        directory: Path,
        lb_id: str,
        epoch: int,
        log: structlog.stdlib.BoundLogger,
        generations: Generations,
    ) -> None:
        """Tell of `generations`."""
        self._generations = generations
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

    def admit(self, epoch: int, desired: model.Desired | None) -> None:
        """Refuse older epochs from now on; on disk with the next `write`, which has to follow.

        Raises: StaleEpoch when a newer one was seen; OSError when there is no directory yet, and
        none can be made.
        """
        known = self.epoch
        if epoch < known:
            raise errors.StaleEpoch(self._lb_id, epoch, known)
        self.epoch = epoch
        if self._written is None and not self._directory.exists():
            try:
                # Only then durable: whoever may hold an older epoch dies with the machine.
                self.write(desired, durable=True)
            except OSError:
                self.epoch = known
                raise

    def fence(self, epoch: int, desired: model.Desired | None) -> None:
        """Refuse older epochs from now on. Raises: StaleEpoch when a newer one was seen; OSError."""
        known = self.epoch
        self.admit(epoch, desired)
        try:
            self.write(desired)
        except OSError:
            self.epoch = known
            raise

    def doubt(self) -> None:
        """Write at the next occasion, whatever was written."""
        self._written = None

    def write(
        self,
        desired: model.Desired | None,
        *,
        starting: state.ProcessRecord | None = None,
        durable: bool = False,
    ) -> None:
        """Write the record, if it says something new. Raises: OSError."""
        active = self._generations.active
        noted = [running.record() for running in self._generations]
        record = state.Record(
            lb_id=self._lb_id,
            epoch=self.epoch,
            desired=desired,
            active=active.number if active else None,
            processes=(*noted, *([starting] if starting else [])),
        )
        if record != self._written or durable:
            try:
                state.save(self._directory, record, durable=durable)
            except FileNotFoundError:
                self._directory.mkdir(mode=0o700)
                state.save(self._directory, record, durable=durable)
            self._written = record

    def write_soon(self, desired: model.Desired | None) -> None:
        """Write the record now, or be `overdue` until the disk has room again."""
        try:
            self.write(desired)
        except OSError as error:
            self._log.warning("record_not_saved", error=str(error))
            self.overdue = True
        else:
            self.overdue = False

    def tend(self, desired: model.Desired | None, now: float) -> float | None:
        """Write what is overdue; return when to try it again, if ever."""
        if self.overdue:
            self.write_soon(desired)
        return now + AGAIN_S if self.overdue else None
