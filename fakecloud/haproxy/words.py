"""The types of text that may enter a configuration file or a runtime command; no other may."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

_ALLOWED = re.compile(r"[A-Za-z0-9_.:/@-]{1,255}")
_KEY = re.compile(
    r"(\*|(\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*|\[[0-9a-f:.]+\])/([A-Za-z0-9._~%@:+,=/-]{0,1024}/)?"
)
_PEM = re.compile(
    r"(-----BEGIN (CERTIFICATE|PRIVATE KEY)-----\n([A-Za-z0-9+/=]{1,64}\n)+-----END \2-----\n)+"
)


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


class Fixed(StrEnum):
    """Expressions of HAProxy's language that only we write; nothing else may look like one."""

    ALPN = "h2,http/1.1"
    FORWARDED_PORT = "%[dst_port]"
    FORWARDED_HOST = "%[req.hdr(Host)]"
    HTTPS_HERE = "https://%[req.hdr(Host),host_only]"
    PATH_AND_QUERY = "%[pathq]"
    SET_HOST = "set-var(txn.host)"
    HOST = "req.hdr(Host),host_only,lower"
    SET_PATH = "set-var(txn.path)"
    SET_BACKEND = "set-var(txn.backend)"
    BACKEND = "var(txn.backend)"
    CHOSEN_BACKEND = "%[var(txn.backend)]"
    HOST_AND_PATH = "var(txn.host),concat(,txn.path,/)"
    WILDCARD_AND_PATH = "var(txn.host),regsub(^[^.]*,*),concat(,txn.path,/)"
    ANY_AND_PATH = "str(*),concat(,txn.path,/)"


class MapKey(str):
    """A host and a path of a routing rule: `shop.example/cart/`, `*.example/`, `*/api/`.

    Raises: ValueError for anything else. It holds no blank, so it ends where a map's key ends,
    and nothing that means something in a runtime command.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> MapKey:
        """Return `value` as a key."""
        if not _KEY.fullmatch(value):
            raise ValueError(f"not a host and a path: {value!r}")
        return super().__new__(cls, value)


class Pem(str):
    """Certificates and a key in PEM: nothing but labels that we know and lines of base64.

    Raises: ValueError for anything else. It has no empty line, which would end the payload of a
    runtime command. Its representation tells nothing.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Pem:
        """Return `value` as PEM."""
        if not _PEM.fullmatch(value):
            raise ValueError("not PEM")
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        """Return no part of the key."""
        return "Pem(...)"


class Location(str):
    """Where a client is sent: `https://`, its own host, a port unless it is 443, its own path."""

    __slots__ = ()

    def __new__(cls, port: int) -> Location:
        """Return the location at `port`."""
        number = "" if port == 443 else f":{int(port)}"
        return super().__new__(cls, f"{Fixed.HTTPS_HERE}{number}{Fixed.PATH_AND_QUERY}")


class Lookup(str):
    """What the longest key of map file `rules` that begins the value says."""

    __slots__ = ()

    def __new__(cls, value: Fixed, rules: Word) -> Lookup:
        """Return the expression."""
        return super().__new__(cls, f"{Fixed(value)},map_beg({Word(rules)})")


Text = Word | Fixed | MapKey | Location | Lookup
Line = tuple[Text, ...]


def line(*words: str | int) -> Line:
    """Return `words` checked one by one, as one line or one command."""
    return tuple(word if isinstance(word, Text) else _word(word) for word in words)


@lru_cache(4096)
def _word(value: str | int) -> Word:
    return Word(value)
