"""The one type of text that may enter a configuration file or a runtime command."""

from __future__ import annotations

import re
from functools import lru_cache

_ALLOWED = re.compile(r"[A-Za-z0-9_.:/@-]{1,255}")


class Word(str):
    """One word for HAProxy: no blank, quote, `;`, `#`, `$`, backslash or control character.

    Raises: ValueError for anything else. A word can therefore end neither its line nor its
    argument, nor reach an environment variable.
    """

    __slots__ = ()

    def __new__(cls, value: str | int) -> Word:
        """Return `value` as a word."""
        text = str(value)
        if not _ALLOWED.fullmatch(text):
            raise ValueError(f"not a word of an HAProxy configuration: {text!r}")
        return super().__new__(cls, text)


def line(*words: str | int) -> tuple[Word, ...]:
    """Return `words` checked one by one, as one line or one command."""
    return tuple(word if type(word) is Word else _word(word) for word in words)


@lru_cache(4096)
def _word(value: str | int) -> Word:
    return Word(value)
