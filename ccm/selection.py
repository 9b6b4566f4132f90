"""Which controllers run, in the syntax of upstream's --controllers.

Source: k8s.io/controller-manager app.IsControllerEnabled and k8s.io/cloud-provider
names/controller_names.go, read at v0.37 alpha.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ccm import errors

SERVICE: Final = "service-lb-controller"
NODE: Final = "cloud-node-controller"
LIFECYCLE: Final = "cloud-node-lifecycle-controller"
ROUTE: Final = "node-route-controller"

ALIASES: Final = {
    "service": SERVICE,
    "cloud-node": NODE,
    "cloud-node-lifecycle": LIFECYCLE,
    "route": ROUTE,
}
"""The names of before Kubernetes 1.28, which manifests still have."""
KNOWN: Final = tuple(ALIASES.values())


def check(wanted: Iterable[str]) -> None:
    """Refuse a name that no controller has, and a choice of none. Raises: ConfigError."""
    wanted = tuple(wanted)
    for one in wanted:
        if one != "*" and _canonical(one.removeprefix("-")) not in KNOWN:
            raise errors.ConfigError(
                f"--controllers: there is no controller {one!r}; there are {', '.join(KNOWN)}"
            )
    if not any(is_enabled(one, wanted) for one in KNOWN):
        raise errors.ConfigError(
            f"--controllers: none would run; give * or some of {', '.join(KNOWN)}"
        )


def is_enabled(name: str, wanted: Iterable[str]) -> bool:
    """Return whether the controller runs: the first mention of it decides, else the star."""
    has_star = False
    for one in wanted:
        if _canonical(one) == name:
            return True
        if one.startswith("-") and _canonical(one[1:]) == name:
            return False
        has_star = has_star or one == "*"
    return has_star


def short(name: str) -> str:
    """Return the older name of a controller, which upstream's metrics keep."""
    return next(old for old, new in ALIASES.items() if new == name)


def _canonical(name: str) -> str:
    return ALIASES.get(name, name)
