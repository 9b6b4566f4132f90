"""What faults do to one load balancer: asked for by somebody, known only to this life of the server."""

from __future__ import annotations

import msgspec
import structlog

from fakecloud import errors
from fakecloud.domain.disturbances import Disturbance
from fakecloud.haproxy import config, generation, values, words
from fakecloud.haproxy.host import Host


class Faults:
    """Not thread-safe: its owner takes turns. `asked`: what new connections shall meet."""

    def __init__(self, host: Host, lb_id: str, log: structlog.stdlib.BoundLogger) -> None:
        """Begin without any."""
        self._host = host
        self._lb_id = lb_id
        self._log = log
        self._deaf: generation.Generation | None = None
        self._spoils = False  # whether anything ever was
        self.asked = Disturbance()

    def applied_to(self, whole: config.Config) -> config.Config:
        """Return the configuration with the faults in it. Raises: Transient."""
        through = self._spoiler_of(whole)
        if not self.asked:
            return whole
        if self.asked.expired:
            whole = _expired(whole)
        return config.disturbed(whole, self.asked, through)

    def may_start(self) -> None:
        """Refuse the start of a process where that was asked for. Raises: Transient."""
        if self.asked.no_reload:
            raise errors.Transient("fault_injected", "a fault lets no process be started")

    def listen(self) -> None:
        """Let every process be heard again, before anything is told."""
        if self._deaf is not None:
            self._deaf.runtime.hangs = False
            self._deaf = None

    def impose(self, active: generation.Generation | None) -> None:
        """Let the stats socket of the process that serves hang, if asked for; not its successor's."""
        if self.asked.deaf and active is not None:
            self._deaf, active.runtime.hangs = active, True

    def end(self) -> None:
        """Let go of what was made for them."""
        self.listen()
        if self._host.spoiler is not None:
            self._host.spoiler.forget(self._lb_id)

    def _spoiler_of(self, whole: config.Config) -> words.Word | None:
        """Return what spoils the way to the targets, if anything shall."""
        if not (self.asked.toxics or self._spoils):
            return None
        if self._host.spoiler is None:
            self._log.warning("not_spoiled", reason="its network is not that of this host")
            return None
        self._spoils = True
        targets = {values.place(s.address) for b in whole.backends for s in b.servers}
        try:
            port = self._host.spoiler.spoil(self._lb_id, self.asked.toxics, targets)
        except OSError as error:
            raise errors.Transient("fault_injected", f"nothing can be spoiled: {error}") from error
        return words.Word(f"127.0.0.1:{port}") if port else None


def _expired(whole: config.Config) -> config.Config:
    """Return the configuration with certificates that are over."""
    if not whole.certificates:
        return whole
    from fakecloud.haproxy import expired  # only for this fault: restoring.py starts without it

    made = []
    for one in whole.certificates:
        assert one.pem is not None, one.name
        pem, fingerprint = expired.twin(one.pem)
        made.append(msgspec.structs.replace(one, pem=pem, fingerprint=fingerprint))
    return msgspec.structs.replace(whole, certificates=tuple(made))
