"""How the value of an annotation is read: each kind says in words what it takes.

read() raises ValueError whose text continues "must be …".
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)

_DURATION: Final = re.compile(r"(\d{1,9})(ms|s|m|h)?")
_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # as Go's ParseBool
_LONGEST_NETWORK: Final = 64  # of text that a refusal repeats
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Kind(Protocol[T_co]):
    """A type of values, with its bounds."""

    @property
    def words(self) -> str:
        """Return what is taken, for the reference and for errors."""

    def read(self, text: str) -> T_co:
        """Return the value. Raises: ValueError."""


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false, as Go writes them."""

    words: str = "true or false"

    def read(self, text: str) -> bool:
        """Return the value. Raises: ValueError."""
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError(self.words)


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within bounds."""

    least: int
    most: int

    @property
    def words(self) -> str:
        """Return the bounds in words."""
        return f"a whole number from {self.least} to {self.most}"

    def read(self, text: str) -> int:
        """Return the value. Raises: ValueError."""
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        if not is_number or not self.least <= int(text) <= self.most:
            raise ValueError(self.words)
        return int(text)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration in whole seconds: 90, 90s, 2m."""

    least: int
    most: int

    @property
    def words(self) -> str:
        """Return the bounds in words."""
        return f"a duration from {self.least}s to {self.most}s, such as 90s or 2m"

    def read(self, text: str) -> int:
        """Return the value in seconds. Raises: ValueError."""
        found = _DURATION.fullmatch(text)
        if found is None:
            raise ValueError(self.words)
        seconds, rest = divmod(int(found[1]) * _UNITS_MS[found[2] or "s"], 1000)
        if rest or not self.least <= seconds <= self.most:
            raise ValueError(self.words)
        return seconds


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    choices: tuple[str, ...]

    @property
    def words(self) -> str:
        """Return the words."""
        return "one of " + ", ".join(self.choices)

    def read(self, text: str) -> str:
        """Return the value. Raises: ValueError, with the word that was probably meant."""
        if text in self.choices:
            return text
        meant = nearest(text, self.choices)
        raise ValueError(self.words + (f"; did you mean {meant}?" if meant else ""))


@dataclass(frozen=True, slots=True)
class Text:
    """A text that matches a pattern as a whole."""

    pattern: str
    words: str

    def read(self, text: str) -> str:
        """Return the value. Raises: ValueError."""
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.words)
        return text


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that match a pattern, separated by commas, at least one."""

    pattern: str
    words: str

    def read(self, text: str) -> tuple[str, ...]:
        """Return the values in their order. Raises: ValueError."""
        parts = split(text)
        if not parts or any(re.fullmatch(self.pattern, part) is None for part in parts):
            raise ValueError(self.words)
        return parts


@dataclass(frozen=True, slots=True)
class Addresses:
    """One address of each family at most."""

    words: str = "an IP address, or one of each family separated by a comma"

    def read(self, text: str) -> tuple[str, ...]:
        """Return the addresses, as they are written normally. Raises: ValueError."""
        try:
            found = [ipaddress.ip_address(part) for part in split(text)]
        except ValueError:
            raise ValueError(self.words) from None
        if not found or len({one.version for one in found}) != len(found):
            raise ValueError(self.words)
        return tuple(str(one) for one in found)


@dataclass(frozen=True, slots=True)
class Networks:
    """CIDRs of both families."""

    words: str = "CIDRs such as 10.0.0.0/8, separated by commas"

    def read(self, text: str) -> tuple[str, ...]:
        """Return the networks, sorted. Raises: ValueError, with the part that is wrong."""
        return networks(split(text))


@dataclass(frozen=True, slots=True)
class Pairs:
    """key=value pairs, separated by commas."""

    words: str = "key=value pairs, separated by commas"

    def read(self, text: str) -> tuple[tuple[str, str], ...]:
        """Return the pairs in their order. Raises: ValueError."""
        pairs = [part.partition("=") for part in split(text)]
        keys = [key.strip() for key, _, _ in pairs]
        if not pairs or not all(keys) or len(set(keys)) != len(keys):
            raise ValueError(self.words)
        if any(not sign for _, sign, _ in pairs):
            raise ValueError(self.words)
        return tuple((key.strip(), value.strip()) for key, _, value in pairs)


def split(text: str) -> tuple[str, ...]:
    """Return the parts between commas, trimmed, without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def networks(parts: Iterable[str]) -> tuple[str, ...]:
    """Return CIDRs as they are written normally, sorted. Raises: ValueError."""
    return tuple(sorted({_network(part.strip()) for part in parts}))


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        why = str(error) if len(text) <= _LONGEST_NETWORK else f"{text[:_LONGEST_NETWORK]}… is none"
        raise ValueError(f"CIDRs; {why}") from None


def nearest(text: str, known: Iterable[str]) -> str:
    """Return the spelling that was probably meant, "" if none is near."""
    return next(iter(difflib.get_close_matches(text.lower(), list(known), n=1, cutoff=0.6)), "")
