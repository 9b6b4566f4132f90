"""Faults asked for by a label or annotation of the load balancer itself.

    chaos.fakecloud.dev/provision: "fail_transient=3,delay=90s"
    chaos.fakecloud.dev/delete:    "stuck=60s"
    chaos.fakecloud.dev/state:     error
    chaos.fakecloud.dev/dataplane: "latency=200ms/60s,resets=20"

So a test that only has Kubernetes can ask for them on its Service. An annotation wins over the
label of the same key (a label can't hold `=`). `…/profile` belongs to the latency profiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fakecloud.domain.faults import MAX_SECONDS, Action
from fakecloud.errors import FieldError

PREFIX: Final = "chaos.fakecloud.dev/"
DATAPLANE: Final = PREFIX + "dataplane"
_KEYS: Final = ("provision", "delete", "state", "profile", "dataplane")
_ON_TRAFFIC: Final = (
    *("kill", "stop", "refuse", "blackhole", "latency", "timeout", "resets"),
    *("jitter", "bandwidth", "slicer", "limit_data", "slow_close"),
    *("health_flap", "cert_expire", "stats_socket_hang", "reload_fail", "host_down"),
)
_NEEDS_TIME: Final = ("latency", "timeout", "jitter", "slow_close")
_NEEDS_BYTES: Final = ("bandwidth", "slicer", "limit_data")
_WITH_VALUE: Final = (*_NEEDS_TIME, *_NEEDS_BYTES, "resets", "health_flap")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}
_DURATION: Final = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)(ms|s|m|)")
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LISTENER: Final = re.compile(r"[a-z0-9*?.-]{1,63}")
MAX_TIMES: Final = 1000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the labels and annotations ask for, per kind of work; `error`: be in ERROR."""

    provision: tuple[Action, ...] = ()
    delete: tuple[Action, ...] = ()
    dataplane: tuple[Action, ...] = ()
    error: bool = False

    def actions(self, operation: str) -> tuple[Action, ...]:
        """Return what disturbs create, update or delete."""
        if operation == "delete":
            return self.delete
        failing = Action(type="fail_permanent", code="fault_injected")
        return (failing, *self.provision) if self.error else self.provision

    @property
    def lasting(self) -> tuple[bool, tuple[Action, ...]]:
        """Return what holds a load balancer for as long as it is asked for."""
        return self.error, tuple(one for one in self.provision if one.type == "partial")


NOTHING: Final = Asked()


def parse(labels: Mapping[str, str], annotations: Mapping[str, str]) -> Asked:
    """Return what is asked for; wrong parts are left out (they were refused at the door)."""
    return _read(labels, annotations)[0]


def mistakes(labels: Mapping[str, str], annotations: Mapping[str, str]) -> tuple[FieldError, ...]:
    """Return what is wrong in `chaos.fakecloud.dev/*`, each with a pointer to the key."""
    return tuple(_read(labels, annotations)[1])


def _read(
    labels: Mapping[str, str], annotations: Mapping[str, str]
) -> tuple[Asked, list[FieldError]]:
    found: dict[str, Any] = {}
    wrong: list[FieldError] = []
    for where, pairs in (("labels", labels), ("annotations", annotations)):
        for key, value in pairs.items():
            if not key.startswith(PREFIX):
                continue
            try:
                found |= _value(key.removeprefix(PREFIX), value)
            except ValueError as error:
                pointer = f"/{where}/{key.replace('~', '~0').replace('/', '~1')}"
                wrong.append(FieldError(pointer, "invalid", f"{where[:-1]} {key}: {error}"))
    return (Asked(**found) if found else NOTHING), wrong


def _value(key: str, text: str) -> dict[str, Any]:
    if key not in _KEYS:
        raise ValueError(f"not known; there are {', '.join(PREFIX + one for one in _KEYS)}")
    if key == "profile":
        return {}
    if key == "state":
        if text.strip() != "error":
            raise ValueError(f"{text[:60]!r} is not 'error', the only state that can be asked for")
        return {"error": True}
    parts = [part.strip() for part in text.split(",")]
    if key == "dataplane":
        return {key: tuple(_on_traffic(part) for part in parts)}
    return {key: tuple(_action(key, part) for part in parts)}


def _on_traffic(part: str) -> Action:
    """Return an action on traffic: `name`, `name=value`, `name/how long` or `name=value/how long`.

    It ends after ten minutes unless it says how long.
    """
    asked, slash, lasting = (word.strip() for word in part.partition("/"))
    name, equals, value = (word.strip() for word in asked.partition("="))
    if name not in _ON_TRAFFIC or (equals and name not in _WITH_VALUE):
        known = ", ".join(_ON_TRAFFIC)
        raise ValueError(f"{part[:60]!r} is none of {known}, such as latency=200ms/60s")
    lasts_s = _seconds(name, lasting) if slash else None
    if name == "resets":
        return Action(type=name, probability=_share(value) if equals else None, lasts_s=lasts_s)
    if name in _NEEDS_TIME and not equals:
        raise ValueError(f"{name} needs a time, such as {name}=200ms")
    if name in _NEEDS_BYTES:
        field = "bytes_per_s" if name == "bandwidth" else "bytes"
        return msgspec.convert(
            {"type": name, field: _bytes(name, value), "lasts_s": lasts_s}, Action
        )
    seconds = _seconds(name, value) if equals else None
    return Action(type=name, seconds=seconds, lasts_s=lasts_s)


def _bytes(name: str, text: str) -> int:
    if not (text.isdecimal() and len(text) <= 9 and int(text)):
        raise ValueError(f"{name}={text[:20]!r} is not a number of bytes, such as {name}=1000")
    return int(text)


def _share(text: str) -> float:
    if not (text.isdecimal() and int(text) <= 100):
        raise ValueError(f"resets={text[:20]!r} is not a percentage of 0 to 100")
    return int(text) / 100


def _action(key: str, part: str) -> Action:
    name, equals, value = (word.strip() for word in part.partition("="))
    if part == "stuck":
        return Action(type="stuck")
    if name in ("stuck", "delay") or (key == "delete" and name == "slow_delete"):
        return Action(type="delay", seconds=_seconds(name, value))
    if name == "fail_transient":
        return Action(type="fail_transient", times=_times(value))
    if key == "provision" and name == "error_then_heal":
        return Action(type="error_then_heal", seconds=_seconds(name, value))
    if key == "provision" and name == "partial":
        return Action(type="partial", listeners=_listeners(value) if equals else None)
    if key == "provision" and name == "fail_permanent":
        return Action(type="fail_permanent", code=_code(value) if equals else None)
    more = ""
    if key == "provision":
        more = ", error_then_heal=30s, fail_permanent=CODE, partial=LISTENER"
    raise ValueError(
        f"{part[:60]!r} is not one of delay=90s, stuck, stuck=60s, fail_transient=3{more}"
    )


def _times(text: str) -> int:
    if not (text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_TIMES):
        raise ValueError(f"fail_transient={text[:20]!r} is not a count of 1 to {MAX_TIMES}")
    return int(text)


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ValueError(f"fail_permanent={text[:20]!r} is not a code such as config_invalid")
    return text


def _listeners(text: str) -> tuple[str, ...]:
    if not _LISTENER.fullmatch(text):
        raise ValueError(f"partial={text[:20]!r} is not the name of a listener, or a glob")
    return (text,)


def _seconds(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_SECONDS:
        most = int(MAX_SECONDS)
        raise ValueError(f"{name}={text[:20]!r} is not a time such as 90s or 2m, at most {most}s")
    return seconds
