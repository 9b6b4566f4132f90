"""What the operating system refuses, as errors that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from fakecloud import errors

_REMEDIES: Final = {
    errno.ENOSPC: "free space on the disk of the state directory",
    errno.EDQUOT: "free space on the disk of the state directory",
    errno.EROFS: "the disk of the state directory is read-only",
    errno.EACCES: "the state directory must belong to the server's user",
    errno.EMFILE: "raise the server's limit of open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit of open files (fs.file-max)",
    errno.ENOMEM: "the machine has no memory left",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
}

log = structlog.get_logger(__name__)


@contextmanager
def exhaustion(lb_id: str) -> Iterator[None]:
    """Turn what the operating system refuses into a Transient that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "the server's log has more")
        log.warning("operating_system_refused", lb_id=lb_id, error=str(error))
        raise errors.Transient("host_exhausted", f"{error.strerror}: {remedy}") from error


def bind_failed(ip: str, port: int, number: int) -> errors.DataPlaneError:
    """Return why no socket could be bound there. number: the errno."""
    where = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    if number == errno.EACCES:
        remedy = f"use a port from 1024 on, or sysctl net.ipv4.ip_unprivileged_port_start={port}"
        return errors.Permanent("bind_failed", f"{where}: no permission for this port; {remedy}")
    if number == errno.EADDRINUSE:
        remedy = "stop that process or choose another port"
        return errors.Transient("bind_failed", f"{where}: another process has the port; {remedy}")
    if number == errno.EADDRNOTAVAIL:
        remedy = "add it to an interface or take it out of the pool"
        return errors.Transient("bind_failed", f"{where}: not an address of this host; {remedy}")
    return errors.Transient("bind_failed", f"{where}: {os.strerror(number)}")
