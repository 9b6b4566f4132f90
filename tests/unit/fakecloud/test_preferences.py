"""What a `Prefer` header asks for."""

from __future__ import annotations

import pytest

from fakecloud.api import preferences
from fakecloud.errors import PreconditionFailed


@pytest.mark.parametrize(
    ("text", "strict", "wait_s"),
    [
        (None, False, None),
        ("", False, None),
        ("respond-async, wait=10", False, 10.0),
        ("handling=strict", True, None),
        ('Handling="strict"; x=1, wait=5', True, 5.0),
        ("handling=lenient, handling=strict", False, None),
        ("wait=soon, return=minimal", False, None),
    ],
)
def test_what_is_understood_counts(text, strict, wait_s):
    found = preferences.parse(text)
    assert (found.strict, found.wait_s) == (strict, wait_s)


def test_strict_wants_a_condition():
    preferences.parse("handling=lenient").check(None)
    strict = preferences.parse("handling=strict")
    strict.check(None, "*")
    with pytest.raises(PreconditionFailed, match="wants If-Match"):
        strict.check(None, None)
