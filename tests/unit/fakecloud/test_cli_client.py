"""What the command line makes of the cloud's answers."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from fakecloud.cli.client import Client


class _Parts(httpx2.SyncByteStream):
    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts


def lines(*parts: str) -> list[str]:
    """Return the lines of an answer that comes in these parts."""
    stream = _Parts([part.encode() for part in parts])
    transport = httpx2.MockTransport(lambda _asked: httpx2.Response(200, stream=stream))
    with httpx2.Client(transport=transport, base_url="http://cloud") as http:
        return list(Client(http).lines("/v1/billing/export"))


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\r"])
def test_lines_end_at_line_feeds_only(inside):
    """A label may hold what str.splitlines ends a line at: it is no end of its row."""
    row = f'web,"a{inside}b",1'
    assert lines(f"{row}\n{row}\n") == [row, row]
    assert lines(row[:5], f"{row[5:]}{inside}", f"\n{row}") == [f"{row}{inside}", row]


def test_parts_of_an_answer_are_no_lines():
    assert lines("a", "b\n", "", "\nc\nd\n", "e") == ["ab", "", "c", "d", "e"]
    assert lines() == lines("") == []
