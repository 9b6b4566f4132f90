"""What a `Prefer` header asks for."""

from __future__ import annotations

import pytest

from fakecloud.api import preferences, replies
from fakecloud.errors import PreconditionFailed


@pytest.mark.parametrize(
    ("text", "strict", "wait_s", "minimal"),
    [
        (None, False, None, False),
        ("", False, None, False),
        ("respond-async, wait=10", False, 10.0, False),
        ("handling=strict", True, None, False),
        ('Handling="strict"; x=1, wait=5', True, 5.0, False),
        ("handling=lenient, handling=strict", False, None, False),
        ("wait=soon, return=minimal", False, None, True),
        ("return=representation, return=minimal", False, None, False),
    ],
)
def test_what_is_understood_counts(text, strict, wait_s, minimal):
    found = preferences.parse(text)
    assert (found.strict, found.wait_s, found.minimal) == (strict, wait_s, minimal)


def test_a_minimal_answer_has_status_and_headers_and_no_body():
    whole = replies.json({"name": "web"}, 201, {"etag": '"1.2"'})
    told = preferences.parse("return=minimal").told(whole)
    assert (told.status_code, told.body, told.headers["etag"]) == (201, b"", '"1.2"')
    assert told.headers["preference-applied"] == "return=minimal"
    assert "content-type" not in told.headers


def test_strict_wants_a_condition():
    preferences.parse("handling=lenient").check(None)
    strict = preferences.parse("handling=strict")
    strict.check(None, "*")
    with pytest.raises(PreconditionFailed, match="wants If-Match"):
        strict.check(None, None)
