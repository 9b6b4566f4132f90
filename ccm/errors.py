"""Every error the controller raises on purpose, as one tree.

CcmError
├── ConfigError              wrong flags or files: one line, exit code 2
├── LeaseLost                another instance leads now: stop writing, exit code 1
├── Rejected                 a Service or Node that can't be served as written; waits for an edit
├── RetryAfter               a planned wait, not a failure
├── KubeError                the API server said no
│   ├── KubeConflict         409: somebody else wrote first
│   ├── KubeNotFound         404
│   ├── KubeGone             410: too old a resource version
│   └── KubeUnreachable      no answer at all
└── CloudError               the cloud said no
    ├── CloudRefused         the same request will be refused again
    ├── CloudBusy            worth repeating, perhaps at a given time
    │   └── CloudExhausted   507: something has to get free first
    ├── CloudUnauthenticated the token is wrong
    ├── CloudFenced          it has heard of a later leader of this cluster
    ├── CloudWatchExpired    the event history doesn't reach back that far
    └── CloudUnreachable     no answer at all
"""

from __future__ import annotations


class CcmError(Exception):
    """Root of the tree."""


class ConfigError(CcmError):
    """The command line, the kubeconfig or a file is unusable; the text says which and why."""


class LeaseLost(CcmError):
    """This instance may no longer write."""


class Rejected(CcmError):
    """A Service or Node that can't be served as written.

    reason: CamelCase, for the condition and the log; str(self): for people, naming the field.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RetryAfter(CcmError):
    """Look at the key again in `seconds`; the failure count stays as it is."""

    def __init__(self, seconds: float, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds


class KubeError(CcmError):
    """The API server refused. code: HTTP status; retry_after_s: as it asked, if it did."""

    def __init__(
        self, code: int, reason: str, message: str, retry_after_s: float | None = None
    ) -> None:
        prefix = f"{code or ''} {reason}".strip()
        super().__init__(f"{prefix}: {message}")
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s


class KubeConflict(KubeError):
    """409: the object changed since it was read, or exists already."""


class KubeNotFound(KubeError):
    """404: the object isn't there."""


class KubeGone(KubeError):
    """410: the resource version or the continue token is too old; list again."""


class KubeUnreachable(KubeError):
    """The API server could not be reached, or hung past the deadline."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)


class CloudError(CcmError):
    """The cloud refused or failed. code: the cloud's stable code; str(self): its explanation."""

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class CloudRefused(CloudError):
    """The request is wrong or not allowed; repeating it unchanged is pointless."""


class CloudBusy(CloudError):
    """The cloud asks to be asked again."""


class CloudExhausted(CloudBusy):
    """507: no address, port or place is left; people should hear of it although it is a wait."""


class CloudUnauthenticated(CloudError):
    """401: the token is missing, unknown or revoked."""


class CloudFenced(CloudError):
    """409 stale_fence: a later leader has written; whatever this instance wants is void."""


class CloudWatchExpired(CloudError):
    """410: take a new snapshot."""


class CloudUnreachable(CloudError):
    """The cloud could not be reached, or hung past the deadline."""

    def __init__(self, message: str) -> None:
        super().__init__("unreachable", message)
