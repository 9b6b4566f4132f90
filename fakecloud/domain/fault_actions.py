"""The catalogue of fault actions: which layer has which, their parameters, and an example of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from fakecloud.domain import filters
from fakecloud.domain.faults import Action, Layer, Match, Trigger, phase_of
from fakecloud.errors import FieldError, InvalidFilter


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One type of action.

    needs, may: parameters that it must and may have. points: where in a worker's attempt it can
    take place, () where that isn't asked. example: what follows `fakecloud fault add LAYER TYPE`.
    """

    says: str
    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    points: tuple[str, ...] = ()
    example: str = ""


def _kind(
    says: str, needs: str = "", may: str = "", *, points: tuple[str, ...] = (), example: str = ""
) -> Kind:
    return Kind(
        says=says,
        needs=frozenset(needs.split()),
        may=frozenset(may.split()),
        points=points,
        example=example,
    )


_SPREAD: Final = "distribution most_s sigma"
_WAY: Final = "direction probability lasts_s"
"""Of what spoils the way to the targets: one at a docker pool, or at IPv6, is reached as ever."""
_OUTSIDE: Final = ("claim", "pre_apply", "post_apply")
_WRITING: Final = "-m methods=PUT,POST,PATCH,DELETE"

_API: Final = {
    "status": _kind(
        "the request is refused with this status and a problem",
        "code",
        "problem retry_after_s",
        example="-p code=503 --trigger probability=0.05",
    ),
    "html_502": _kind("the answer is a proxy's page, no problem document", example="--max-hits 1"),
    "latency": _kind(
        "the request waits before it is handled",
        "seconds",
        _SPREAD,
        example="-p seconds=0.2 -p distribution=lognormal -p sigma=0.5",
    ),
    "hang": _kind("no answer for so long, then a reset; nothing is done", may="seconds"),
    "reset_before": _kind("the connection is reset; nothing is done", example="--trigger nth=1"),
    "drop_after_commit": _kind(
        "the request is done and its answer is lost", example=f"{_WRITING} --max-hits 1"
    ),
    "truncate_body": _kind("the connection ends in the middle of the body"),
    "malformed_json": _kind("the body is no JSON"),
    "wrong_content_type": _kind("the answer calls itself text/html"),
    "stale_read": _kind(
        "a read shows what was there so many changes ago",
        may="versions",
        example="-p versions=2 -m methods=GET",
    ),
    "omit_from_list": _kind(
        "a list leaves some items out", may="probability", example="-p probability=0.3"
    ),
    "dup_page": _kind(
        "the next page of a list begins with the second half of this one again",
        example="-m route=/v1/load-balancers",
    ),
    "skip_page": _kind("the next page of a list is left out", example="--trigger nth=1"),
    "rate_limit": _kind(
        "the request is refused with 429", may="retry_after_s", example="-p retry_after_s=7"
    ),
    "clock_skew_header": _kind(
        "Fakecloud-Time is wrong by so much, negative: late", "skew_s", example="-p skew_s=-90"
    ),
    "auth_flap": _kind(
        "a good token is refused, and without a trigger taken again: so many times each",
        may="times problem",
        example="-p times=2",
    ),
}
_WATCH: Final = {
    "disconnect": _kind(
        "the stream breaks after so many events", may="after_n", example="-p after_n=10"
    ),
    "delay": _kind("events come late", "seconds", _SPREAD, example="-p seconds=2"),
    "duplicate": _kind("every event comes twice"),
    "expire": _kind("410: the watch can't be continued", may="after_n", example="--max-hits 1"),
    "no_bookmarks": _kind("bookmarks are left out"),
    "reorder_across_objects": _kind(
        "events of different objects change places, those of one object never do"
    ),
    "silent_stall": _kind("the stream stands and says nothing", may="after_n"),
}
_PROVISION: Final = {
    "delay": _kind(
        "the work takes that much longer",
        "seconds",
        f"phase {_SPREAD}",
        points=_OUTSIDE,
        example="-p seconds=90 -m operation=create",
    ),
    "fail_transient": _kind(
        "the work fails so many times",
        may="phase times",
        points=_OUTSIDE,
        example="-p times=3 -m resource_name=web",
    ),
    "fail_permanent": _kind(
        "the work fails with this code until the fault is gone",
        may="phase code",
        points=_OUTSIDE,
        example="-p code=config_invalid",
    ),
    "stuck": _kind("the work doesn't end until the fault does", may="phase", points=_OUTSIDE),
    "slow_delete": _kind("deletion takes that long", "seconds", _SPREAD, example="-p seconds=60"),
    "pool_exhausted": _kind("nothing new gets an address: 507"),
    "quota_zero": _kind("nothing new is within the quota: 403"),
    "error_then_heal": _kind(
        "ERROR for so long, then it works", "seconds", example="-p seconds=30"
    ),
    "partial": _kind(
        "ACTIVE without these listeners (globs; default: the last one)",
        may="listeners",
        example="-p listeners=http*",
    ),
    "flap_state": _kind(
        "what is ACTIVE is UPDATING for a moment, every so many seconds (5)",
        may="seconds",
        example="-p seconds=2 --max-hits 10",
    ),
    "delete_leaks": _kind(
        "a deletion succeeds and leaves the process or the address behind, for the sweeper",
        "leaks",
        example="-p leaks=process",
    ),
}
_WORKER: Final = {
    "crash": _kind("the server ends as by kill -9", "point", example="-p point=post_apply"),
    "pause": _kind(
        "the worker sleeps, perhaps past its lease",
        "seconds",
        "point",
        points=_OUTSIDE,
        example="-p seconds=40 -p point=post_apply",
    ),
    "lease_steal": _kind("the worker's lease goes to another", may="point", points=_OUTSIDE),
    "duplicate_run": _kind("another worker does the same work", may="point", points=_OUTSIDE),
    "db_error": _kind(
        "the database fails where the result is written",
        may="kind point",
        points=("claim", "pre_apply", "post_apply", "pre_commit"),
        example="-p kind=disconnect --max-hits 1",
    ),
}
_DATAPLANE: Final = {
    "kill": _kind(
        "the process that serves is killed, once or every so many seconds",
        may="seconds",
        example="-m resource_name=web",
    ),
    "stop": _kind(
        "the process that serves stands still; one that doesn't answer is replaced in the end",
        may="lasts_s",
        example="-p lasts_s=5",
    ),
    "refuse": _kind("its ports are closed", may="lasts_s", example="-p lasts_s=30"),
    "blackhole": _kind("new connections are accepted and get no answer", may="lasts_s"),
    "latency": _kind(
        "new connections reach their target that much later",
        "seconds",
        "lasts_s",
        example="-p seconds=0.2",
    ),
    "timeout": _kind(
        "new connections get no answer and are closed after so many seconds",
        "seconds",
        "lasts_s",
        example="-p seconds=5",
    ),
    "jitter": _kind(
        "each piece that a target sends on a new connection comes up to so much later",
        "seconds",
        _WAY,
        example="-p seconds=0.3",
    ),
    "bandwidth": _kind(
        "new connections get no more than that from their target",
        "bytes_per_s",
        _WAY,
        example="-p bytes_per_s=100000",
    ),
    "slicer": _kind(
        "what a target sends on a new connection comes in pieces of so many bytes, seconds apart",
        "bytes",
        f"seconds {_WAY}",
        example="-p bytes=5 -p seconds=0.05",
    ),
    "limit_data": _kind(
        "new connections end when a target has sent so many bytes",
        "bytes",
        _WAY,
        example="-p bytes=1000 -p probability=0.5",
    ),
    "slow_close": _kind(
        "the end of a new connection comes that much later than its target sends it",
        "seconds",
        _WAY,
        example="-p seconds=3",
    ),
    "resets": _kind(
        "new connections are reset, or a share of them",
        may="probability lasts_s",
        example="-p probability=0.2",
    ),
    "health_flap": _kind(
        "all targets fail and are well again in turn, each for so many seconds (10)",
        may="seconds lasts_s",
        example="-p seconds=5",
    ),
    "cert_expire": _kind(
        "its certificates are over: others with the same names and keys, and a date in the past",
        may="lasts_s",
    ),
    "stats_socket_hang": _kind(
        "the process that serves hears no command; one that stays silent is replaced in the end",
        may="lasts_s",
        example="-p lasts_s=3",
    ),
    "reload_fail": _kind(
        "no process can be started, so a change that needs one fails", may="lasts_s"
    ),
    "host_down": _kind(
        "the host of a load balancer is silent: nothing answers, and others take over",
        may="lasts_s",
        example="-p lasts_s=60",
    ),
}
ACTIONS: Final[dict[Layer, dict[str, Kind]]] = {
    Layer.API: _API,
    Layer.WATCH: _WATCH,
    Layer.PROVISION: _PROVISION,
    Layer.WORKER: _WORKER,
    Layer.DATAPLANE: _DATAPLANE,
}
AT_ADMISSION: Final = frozenset({"pool_exhausted", "quota_zero"})


def mistakes(layer: Layer, match: Match, trigger: Trigger, action: Action) -> list[FieldError]:
    """Return what is wrong with a rule beyond the shape of its fields; empty if nothing is."""
    found = [*_action_mistakes(layer, action)]
    given = [name for name in trigger.__struct_fields__ if getattr(trigger, name) is not None]
    if len(given) > 1:
        found.append(_wrong("/trigger", f"give one of {', '.join(given)}, not several"))
    if trigger.window is not None and trigger.window.last < trigger.window.first:
        found.append(_wrong("/trigger/window", "last is before first"))
    try:
        filters.parse_selector(match.label_selector)
    except InvalidFilter as error:
        found.append(_wrong("/match/label_selector", error.detail))
    if match.label_selector and action.type in AT_ADMISSION:
        found.append(
            _wrong("/match/label_selector", f"{action.type} comes before there are labels")
        )
    return found


def _action_mistakes(layer: Layer, action: Action) -> Iterable[FieldError]:
    kind = ACTIONS[layer].get(action.type)
    if kind is None:
        offered = ", ".join(ACTIONS[layer])
        yield _wrong("/action/type", f"layer {layer} has no {action.type!r}; it has {offered}")
        return
    given = set(msgspec.to_builtins(action)) - {"type"}
    for name in sorted(kind.needs - given):
        yield _wrong(f"/action/{name}", f"{action.type} needs it")
    for name in sorted(given - kind.needs - kind.may):
        yield _wrong(f"/action/{name}", f"{action.type} doesn't have it")
    wanted: Any = str if action.type == "fail_permanent" else int
    if action.code is not None and not isinstance(action.code, wanted):
        takes = "a word" if wanted is str else "an HTTP status"
        yield _wrong("/action/code", f"{action.type} takes {takes}")
    elif isinstance(action.code, int) and not 400 <= action.code <= 599:
        yield _wrong("/action/code", "an injected status is 400 to 599")
    if kind.points and phase_of(action) not in kind.points:
        name = "point" if action.point else "phase"
        yield _wrong(f"/action/{name}", f"{action.type} takes place at {', '.join(kind.points)}")
    if action.distribution == "uniform" and (action.most_s or 0) < (action.seconds or 0):
        yield _wrong("/action/most_s", "the upper end of uniform is below `seconds`")


def _wrong(pointer: str, message: str) -> FieldError:
    return FieldError(pointer, "invalid", message)
