"""What the cloud's answers mean: typed values, or the error that says what to do about it.

Errors are RFC 9457 problems; an answer that isn't (a proxy's HTML) is judged by its status. The
cloud's `retryable` decides, where it is given.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from ccm import errors

STALE_FENCE: Final = "stale_fence"

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True):
    """An answer as it came. retry_after: the header of that name, "" without one."""

    status: int
    body: bytes
    retry_after: str = ""


class _Problem(msgspec.Struct):
    status: int = 0
    code: str | int = ""
    title: str = ""
    detail: str = ""
    retryable: bool | None = None
    retry_after_ms: float | None = None
    errors: tuple[_FieldError, ...] | None = None


class _FieldError(msgspec.Struct):
    pointer: str = ""
    message: str = ""


_problem_decoder = msgspec.json.Decoder(_Problem)


def checked(answer: Answer) -> bytes:
    """Return the body of a good answer. Raises: CloudError."""
    if answer.status >= 300:
        raise problem_error(answer.status, answer.body, answer.retry_after)
    return answer.body


def is_absent(answer: Answer) -> bool:
    """Say whether the cloud itself says that there is no such thing.

    A 404 of anything else in between must not look like "gone": a Service would be released and
    its load balancer, and its bill, would stay.
    """
    if answer.status != 404:
        return False
    problem = _problem(answer.body)
    return problem is not None and problem.code == "not_found"


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return what the answer says. Raises: CloudBusy if it can't be read."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise errors.CloudBusy("unreadable_answer", f"the cloud's answer: {error}") from error


def problem_error(status: int, body: bytes, retry_after: str = "") -> errors.CloudError:
    """Return the error that a refused request raises, whatever its body looks like."""
    problem = _problem(body)
    if problem is None:
        # Not the cloud's own words: a proxy in between, or a server that is not a cloud.
        problem = _Problem(detail=f"HTTP {status} without a readable explanation", retryable=True)
    code = str(problem.code) or f"http_{status}"
    message = problem.detail or problem.title or f"HTTP {status}"
    fields = [f"{one.pointer}: {one.message}" for one in problem.errors or ()]
    if more := [one for one in fields[:5] if one not in message]:
        message = f"{message} ({'; '.join(more)})"
    wait_s = float(retry_after) if retry_after.isdigit() else None
    if wait_s is None and problem.retry_after_ms is not None:
        wait_s = problem.retry_after_ms / 1000
    kind = errors.CloudFenced if code == STALE_FENCE else _error_kind(status, problem.retryable)
    return kind(code, message, wait_s)


def frame_error(body: bytes) -> errors.CloudError:
    """Return the error that the cloud told of in the middle of a stream."""
    try:
        problem = _problem_decoder.decode(body)
        status = problem.status or int(problem.code)
    except (msgspec.MsgspecError, ValueError):
        status = 500
    return problem_error(status, body)


def _problem(body: bytes) -> _Problem | None:
    try:
        problem: _Problem = _problem_decoder.decode(body)
    except msgspec.MsgspecError:
        return None
    return problem if problem.code else None


def _error_kind(status: int, retryable: bool | None) -> type[errors.CloudError]:
    if status == 401:
        return errors.CloudUnauthenticated
    if status == 410:
        return errors.CloudWatchExpired
    if status == 507:
        return errors.CloudExhausted
    if retryable is None:
        retryable = status >= 500 or status in (408, 425, 429)
    return errors.CloudBusy if retryable else errors.CloudRefused
