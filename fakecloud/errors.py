"""Every error the cloud raises on purpose, as one tree.

    CloudError
    ├── Problem                what a caller of the API did or met; shown as problem+json
    │   └── (one class per row of the catalogue below)
    ├── DataPlaneError         a load balancer can't be put into effect
    │   ├── Transient          worth trying again soon
    │   └── Permanent          wrong until somebody changes something
    │   └── StaleEpoch         the caller lost its lease; its work is void
    ├── Postponed              a worker's attempt that comes too early
    └── StartError             the server can't start; one line, exit code 2

`code` is stable and part of the interface: every code has a page at /problems/{code}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


class CloudError(Exception):
    """Root of the tree."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong: a JSON pointer into the body (or a parameter's name), and why."""

    pointer: str
    code: str
    message: str


class Problem(CloudError):
    """A refused request. `detail` names the field and the remedy; nothing was persisted."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The cloud made a mistake"
    retryable: ClassVar[bool] = False
    retry_after_s: int | None = None

    def __init__(self, detail: str, *, errors: tuple[FieldError, ...] = (), **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.extra = extra


class MalformedJson(Problem):
    """The body is not JSON."""

    status, code, title = 400, "malformed_json", "The body is not valid JSON"


class UnknownParameter(Problem):
    """A query parameter that this path does not have."""

    status, code, title = 400, "unknown_parameter", "Unknown query parameter"


class InvalidParameter(Problem):
    """A query parameter whose value can't be used."""

    status, code, title = 400, "invalid_parameter", "Parameter out of range"


class InvalidFilter(Problem):
    """`filter` or `label_selector` can't be understood, or names an unknown field."""

    status, code, title = 400, "invalid_filter", "Unusable filter"


class InvalidPageToken(Problem):
    """A page token that this server didn't make for this list."""

    status, code, title = 400, "invalid_page_token", "Unusable page token"


class IdempotencyKeyInvalid(Problem):
    """`Idempotency-Key` is empty, too long, or not printable ASCII."""

    status, code, title = 400, "idempotency_key_invalid", "Unusable idempotency key"


class Unauthenticated(Problem):
    """No token, or one the cloud doesn't know."""

    status, code, title = 401, "unauthenticated", "A valid token is needed"


class TokenExpired(Problem):
    """The token's time is over; ask for a new one."""

    status, code, title = 401, "token_expired", "The token has expired"


class TokenRevoked(Problem):
    """Somebody revoked the token."""

    status, code, title = 401, "token_revoked", "The token was revoked"


class BudgetExceeded(Problem):
    """A hard budget is used up: no new load balancer of its scope until its period ends."""

    status, code, title = 402, "budget_exceeded", "The budget is used up"


class ProjectSuspended(Problem):
    """A hard budget over the whole project is used up: nothing is made or changed until its
    period ends. Deleting is possible."""

    status, code, title = 402, "project_suspended", "The project is suspended"


class ScopeMissing(Problem):
    """The token is valid but may not do this; the detail names the scope that may."""

    status, code, title = 403, "scope_missing", "The token lacks a scope"


class QuotaExceeded(Problem):
    """The project has as many of these as it may; `metric`, `limit` and `in_use` say which."""

    status, code, title = 403, "quota_exceeded", "Quota exceeded"


class NotFound(Problem):
    """The named resource does not exist in this project."""

    status, code, title = 404, "not_found", "No such resource"


class RouteNotFound(Problem):
    """No endpoint has this path."""

    status, code, title = 404, "route_not_found", "No such endpoint"


class MethodNotAllowed(Problem):
    """The endpoint exists, the method doesn't."""

    status, code, title = 405, "method_not_allowed", "Method not allowed here"


class BeingDeleted(Problem):
    """The name is still taken by a load balancer on its way out."""

    status, code, title = 409, "being_deleted", "The resource is being deleted"
    retryable, retry_after_s = True, 1


class NameInUse(Problem):
    """Another resource of the project has this name."""

    status, code, title = 409, "name_in_use", "Name in use"


class InUse(Problem):
    """Something else needs the resource; the detail says what."""

    status, code, title = 409, "in_use", "The resource is in use"


class IdempotencyInProgress(Problem):
    """A request with this key may still be under way."""

    status, code, title = 409, "idempotency_in_progress", "A request with this key is under way"
    retryable, retry_after_s = True, 1


class NotCancellable(Problem):
    """The operation has ended, or is one that can't be stopped any more."""

    status, code, title = 409, "not_cancellable", "The operation can't be cancelled"


class ClockAdvancing(Problem):
    """The clock is being advanced; wait for that operation."""

    status, code, title = 409, "clock_advancing", "The clock is being advanced"
    retryable, retry_after_s = True, 1


class DeletionProtected(Problem):
    """`spec.deletion_protection` is on."""

    status, code, title = 409, "deletion_protected", "Deletion protection is on"


class StaleFence(Problem):
    """`Fakecloud-Fence` is lower than one seen: another writer has taken over."""

    status, code, title = 409, "stale_fence", "Another writer has taken over"


class FenceInvalid(Problem):
    """`Fakecloud-Fence` is no name with a number."""

    status, code, title = 400, "fence_invalid", "Unusable fence"


class AddressInUse(Problem):
    """The asked address belongs to another load balancer."""

    status, code, title = 409, "address_in_use", "Address in use"


class RangeInUse(Problem):
    """Addresses of a network or route that another one has, or a pool; they never overlap."""

    status, code, title = 409, "range_in_use", "Range of addresses in use"


class WatchExpired(Problem):
    """`since` is older than the event history; list again."""

    status, code, title = 410, "watch_expired", "The event history starts later"


class PreconditionFailed(Problem):
    """`If-Match` or `If-None-Match` does not hold."""

    status, code, title = 412, "precondition_failed", "Precondition failed"


class PayloadTooLarge(Problem):
    """The body is larger than 1 MiB."""

    status, code, title = 413, "payload_too_large", "Body too large"


class UnsupportedMediaType(Problem):
    """The body's content type is not the one of the endpoint."""

    status, code, title = 415, "unsupported_media_type", "Unsupported content type"


class ValidationFailed(Problem):
    """Fields of the body that break a rule, each named in `errors`."""

    status, code, title = 422, "validation_failed", "The document breaks a rule"


class IdempotencyKeyReused(Problem):
    """The key was used for another request; every new request needs a new key."""

    status, code, title = 422, "idempotency_key_reused", "Idempotency key used for something else"


class NotYetOffered(Problem):
    """A valid wish that this version of the cloud can't fulfil."""

    status, code, title = 422, "unsupported", "Not offered by this cloud"


class LimitExceeded(Problem):
    """The load balancer has more listeners, targets or certificates than its type allows."""

    status, code, title = 422, "limit_exceeded", "Larger than the type allows"


class MaintenanceLocked(Problem):
    """The resource is locked. This cloud never locks; a fault says so in the name of others."""

    status, code, title = 423, "maintenance_locked", "The resource is locked"
    retryable, retry_after_s = True, 1


class TooManyWatches(Problem):
    """The server's limit of open watches is reached."""

    status, code, title = 429, "too_many_watches", "Too many open watches"
    retryable, retry_after_s = True, 5


class RateLimited(Problem):
    """The token's requests come faster than its rate limit; `Retry-After` says when to go on."""

    status, code, title = 429, "rate_limited", "Too many requests"
    retryable = True

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Internal(Problem):
    """An unexpected error; the log has the traceback under the request id."""

    status, code, title = 500, "internal", "The cloud made a mistake"
    retryable = True


class InjectedFault(Problem):
    """An answer that a fault gave in place of the cloud; its status is the one asked for."""

    status, code, title = 500, "injected_fault", "A fault was injected"
    retryable = True


class UpstreamError(Problem):
    """What stands before the cloud got no answer from it; only a fault says so."""

    status, code, title = 502, "upstream_error", "Bad gateway"
    retryable, retry_after_s = True, 1


class Unavailable(Problem):
    """The database or the workers can't serve now."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"
    retryable, retry_after_s = True, 1


class DeadlineExceeded(Problem):
    """The cloud didn't answer in time; only a fault says so."""

    status, code, title = 504, "deadline", "Gateway timeout"
    retryable, retry_after_s = True, 1


class NoCapacity(Problem):
    """No address is left in the pool."""

    status, code, title = 507, "no_capacity", "No capacity left"
    retryable, retry_after_s = True, 30


class PeriodOpen(Problem):
    """A month that can't be closed yet: it isn't over, or not all of it is rated."""

    status, code, title = 409, "period_open", "The billing period is still open"


class BookInvalid(Problem):
    """A price book that breaks its schema; the one in force stays."""

    status, code, title = 422, "price_book_invalid", "The price book is wrong"


class BookUnknown(Problem):
    """A price book, or a version of one, that there isn't."""

    status, code, title = 404, "price_book_unknown", "No such price book"


class DataPlaneError(CloudError):
    """A load balancer can't be put into effect. `code` goes to the operation and `last_error`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Transient(DataPlaneError):
    """Trying again soon may help (a port still taken, a socket that doesn't answer)."""


class AddressElsewhere(Transient):
    """Another machine on the link answers for the address `ip`."""

    def __init__(self, ip: str) -> None:
        super().__init__(
            "address_in_use",
            f"{ip} is in use by another machine on the link; choose a pool range that nothing "
            "else uses",
        )
        self.ip = ip


class Permanent(DataPlaneError):
    """Trying again changes nothing until somebody acts (configuration refused, no permission).

    retry_s: after how long it is tried again all the same; None: the usual time.
    """

    def __init__(self, code: str, message: str, *, retry_s: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_s = retry_s


class Postponed(CloudError):
    """The attempt is to be made again in `seconds`; it counts neither as done nor as failed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"to be tried again in {seconds:.1f} s")
        self.seconds = seconds


class StaleEpoch(DataPlaneError):
    """A newer lease holder works on this load balancer; the caller drops what it did."""

    def __init__(self, lb_id: str, epoch: int, current: int) -> None:
        super().__init__("stale_epoch", f"{lb_id}: epoch {epoch} is older than {current}")


class StartError(CloudError):
    """The server can't start: wrong option, taken port, unwritable directory. One clear line."""
