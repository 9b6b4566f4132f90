"""The price books that come with the product, one YAML file each; `NAME@VERSION` is an older one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from fakecloud.billing.prices import PriceBook, parse
from fakecloud.errors import BookInvalid, BookUnknown


def names() -> list[str]:
    """Return the books that there are."""
    return sorted({name for name, _ in _all()})


def versions(name: str) -> list[PriceBook]:
    """Return every version of a book, the oldest first. Raises: BookUnknown."""
    found = [book for (of, _), book in sorted(_all().items()) if of == name]
    if not found:
        raise BookUnknown(f"there is no price book {name!r}; there are: {', '.join(names())}")
    return found


def load(name: str) -> PriceBook:
    """Return the newest version of a book, or the one of `NAME@VERSION`. Raises: BookUnknown."""
    plain, _, version = name.partition("@")
    found = versions(plain)
    if not version:
        return found[-1]
    for book in found:
        if str(book.version) == version:
            return book
    there = ", ".join(book.id for book in found)
    raise BookUnknown(f"there is no price book {name!r}; of this name there are: {there}")


@cache
def _all() -> dict[tuple[str, int], PriceBook]:
    found: dict[tuple[str, int], PriceBook] = {}
    for entry in sorted(files(__name__).iterdir(), key=lambda one: one.name):
        if entry.name.endswith(".yaml"):
            book = parse(_read(entry.read_text(encoding="utf-8"), entry.name), entry.name)
            found[book.name, book.version] = book
    return found


def _read(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BookInvalid(f"price book {where} is not YAML: {error}") from None
