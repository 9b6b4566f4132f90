"""What a token may be allowed to do. A scope is one word or `noun:verb`; presets are sets of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

ADMIN: Final = "admin"
"""Everything, in every project."""

ALL: Final = frozenset(
    [
        "lb:read",
        "lb:write",
        "ip:read",
        "ip:write",
        "cert:read",
        "cert:write",
        "instance:read",
        "instance:write",
        "network:read",
        "network:write",
        "op:read",
        "watch",
        "billing:read",
        "billing:admin",
        "chaos",
        "clock",
        "token:admin",
        "project:admin",
        "audit:read",
        "admin",
    ]
)

_READING: Final = frozenset(
    {"lb:read", "ip:read", "cert:read", "instance:read", "network:read", "op:read", "watch"}
)
_CCM: Final = _READING | {"lb:write", "ip:write", "cert:write", "instance:write", "network:write"}

PRESETS: Final[dict[str, frozenset[str]]] = {
    "ccm": _CCM,
    "viewer": _READING | {"billing:read"},
    "tester": _CCM | {"billing:read", "chaos", "clock"},
    "admin": frozenset({ADMIN}),
}


def expand(names: Iterable[str]) -> frozenset[str]:
    """Return the scopes of a mix of scopes and presets. Raises: ValueError that names a wrong one.

    `admin`, a scope and a preset, stands for itself.
    """
    found: set[str] = set()
    for name in names:
        if name in PRESETS:
            found |= PRESETS[name]
        elif name in ALL:
            found.add(name)
        else:
            raise ValueError(
                f"{name!r} is no scope; there are {', '.join(sorted(ALL))} "
                f"and the presets {', '.join(PRESETS)}"
            )
    return frozenset(found)
