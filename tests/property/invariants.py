"""The invariants of billing: properties that are proved able to fail.

`invariant` makes a test of a property and remembers the bugs that it must catch. `missed` plants
one of them and says whether the property didn't notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

NUMBERS: Final = range(1, 22)
Bug = Callable[[pytest.MonkeyPatch], None]

_HUNT: Final = settings(
    max_examples=5000,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
"""Many examples, and the first that fails will do as it is."""


class Property(msgspec.Struct, frozen=True):
    """A property of one invariant: `prove` raises where it doesn't hold."""

    number: int
    name: str
    prove: Callable[[settings], None]
    bugs: Mapping[str, Bug]
    needs_databases: bool = False


PROPERTIES: Final[list[Property]] = []
HELD: Final[set[str]] = set()
"""Which of them have been proved in this run."""


def invariant(
    number: int, *strategies: SearchStrategy[Any], bugs: Mapping[str, Bug], examples: int = 60
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a test of a function over these strategies.

    bugs: what it must catch, as its docstring lists them.
    """

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        def prove(how: settings) -> None:
            how(given(*strategies)(check))()

        return proved(number, prove, bugs, settings(max_examples=examples, deadline=None), check)

    return decorate


def proved(
    number: int,
    prove: Callable[[settings], None],
    bugs: Mapping[str, Bug],
    how: settings,
    of: Callable[..., Any],
) -> Callable[[], None]:
    """Return the test of a property, which has the name and the text of `of`."""
    name = of.__name__
    PROPERTIES.append(Property(number, name, prove, bugs))
    for bug in bugs:
        assert bug in " ".join((of.__doc__ or "").split()), f"{name} doesn't list {bug!r}"

    def test() -> None:
        prove(how)
        HELD.add(name)

    test.__name__, test.__qualname__ = name, name
    test.__doc__, test.__module__ = of.__doc__, of.__module__
    return test


def missed(of: Property, bug: str) -> bool:
    """Plant a bug; say whether the property holds all the same."""
    with pytest.MonkeyPatch.context() as patch:
        of.bugs[bug](patch)
        try:
            of.prove(_HUNT)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - a bug shows itself in any way
            return False
    return True


def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Bug:
    """Return the bug that puts `make(what there is)` in place of an attribute."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, make(getattr(owner, name)))

    return plant
