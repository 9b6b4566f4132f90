"""What a list may be asked: `filter`, `label_selector`, `order_by` and `fields`, on documents.

Pure: text to value, and value applied to a document of the API. Every parser raises InvalidFilter
or InvalidParameter that says where the text stops making sense and what would.

    filter          state="ACTIVE" AND labels.env!="test"        AIP-160 without nesting
    label_selector  env=prod,tier in (web,api),!legacy           the grammar of Kubernetes
    order_by        name desc                                    AIP-132, one field
    fields          name,status.state,status.addresses           AIP-157, a comma list of paths

Sources: https://google.aip.dev/160, https://google.aip.dev/132, https://google.aip.dev/157,
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ (read 2026-11-23).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from fakecloud.errors import InvalidFilter, InvalidParameter

MOST_TERMS: Final = 20
MOST_PATHS: Final = 50
MOST_TEXT: Final = 2000

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_TERM = re.compile(
    r"\s*(?P<field>[A-Za-z_][\w./-]*?)\s*(?P<op>!=|=)\s*"
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[\w.:/-]+))\s*'
)
_AND = re.compile(r"AND(?=\s)")
_EXISTS = re.compile(rf"\s*(?P<not>!?)\s*(?P<key>{_WORD})\s*(?=,|$)")
_EQUALS = re.compile(rf"\s*(?P<key>{_WORD})\s*(?P<op>==|!=|=)\s*(?P<value>(?:{_WORD})?)\s*(?=,|$)")
_SET = re.compile(
    rf"\s*(?P<key>{_WORD})\s+(?P<op>in|notin)\s*\((?P<values>[A-Za-z0-9._/, -]*)\)\s*(?=,|$)"
)
_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One term of a filter: the field as it was written, its path, `=` or `!=`, and the value."""

    field: str
    path: tuple[str, ...]
    equal: bool
    value: str


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Terms that must all hold. An absent field equals nothing, so `!=` holds for it."""

    terms: tuple[Comparison, ...] = ()

    def matches(self, document: Mapping[str, Any]) -> bool:
        """Say whether every term holds for `document`."""
        return all((_text(_at(document, t.path)) == t.value) is t.equal for t in self.terms)


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement of a selector. `values` empty: the key's presence alone is asked for."""

    key: str
    op: Literal["in", "notin", "exists", "absent"]
    values: tuple[str, ...] = ()


class Selector(msgspec.Struct, frozen=True, kw_only=True):
    """Requirements on labels that must all hold."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether every requirement holds; `!=` and `notin` hold where the key is absent."""
        return all(_holds(one, labels) for one in self.requirements)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The field that a list is sorted by, and whether it descends."""

    field: str
    descending: bool = False


class Mask(msgspec.Struct, frozen=True, kw_only=True):
    """Which parts of a document are wanted, as paths. A path through a list goes into each item."""

    paths: tuple[tuple[str, ...], ...]

    def apply(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the wanted parts of `document`, in its order; what isn't there stays absent."""
        return _project(document, self.paths)


def parse_filter(text: str | None, fields: Mapping[str, tuple[str, ...]]) -> Filter:
    """Return the filter that `text` says. `fields`: known names and their paths in the document.

    A name that ends in `.` (such as `labels.`) stands for every key of that object.
    Raises: InvalidFilter.
    """
    if text is None or not text.strip():
        return Filter()
    _short(text, "filter")
    terms: list[Comparison] = []
    at = 0
    while True:
        match = _TERM.match(text, at)
        if match is None:
            raise _unclear("filter", text, at, 'a term such as state="ACTIVE" or labels.env!="x"')
        terms.append(_comparison(match, fields))
        at = match.end()
        if at == len(text):
            break
        joint = _AND.match(text, at)
        if joint is None:
            raise _unclear("filter", text, at, "AND between two terms; OR and () are not known")
        at = joint.end()
    if len(terms) > MOST_TERMS:
        raise InvalidFilter(f"filter has {len(terms)} terms; at most {MOST_TERMS}")
    return Filter(terms=tuple(terms))


def parse_selector(text: str | None) -> Selector:
    """Return the label selector that `text` says. Raises: InvalidFilter."""
    if text is None or not text.strip():
        return Selector()
    _short(text, "label_selector")
    found: list[Requirement] = []
    at = 0
    while True:
        match = _SET.match(text, at) or _EXISTS.match(text, at) or _EQUALS.match(text, at)
        if match is None:
            raise _unclear("label_selector", text, at, "k=v, k!=v, k, !k, k in (a,b), k notin (a)")
        found.append(_requirement(match))
        at = match.end()
        if at == len(text):
            break
        at += 1  # the comma
    if len(found) > MOST_TERMS:
        raise InvalidFilter(f"label_selector has {len(found)} parts; at most {MOST_TERMS}")
    return Selector(requirements=tuple(found))


def parse_order(text: str | None, fields: tuple[str, ...]) -> Order:
    """Return the order that `text` says, by the first of `fields` if None.

    Raises: InvalidParameter.
    """
    if text is None:
        return Order(field=fields[0])
    field, _, direction = text.strip().partition(" ")
    direction = direction.strip().lower()
    if field not in fields or direction not in ("", "asc", "desc"):
        raise InvalidParameter(
            f"order_by={text[:100]!r} is not one of {', '.join(fields)}, perhaps with ' desc'"
        )
    return Order(field=field, descending=direction == "desc")


def parse_fields(text: str | None, roots: tuple[str, ...]) -> Mask | None:
    """Return the mask that `text` says, None for the whole document. `roots`: its first names.

    Raises: InvalidParameter.
    """
    if text is None or not text.strip():
        return None
    words = [word.strip() for word in text.split(",")]
    if len(words) > MOST_PATHS:
        raise InvalidParameter(f"fields has {len(words)} paths; at most {MOST_PATHS}")
    paths: list[tuple[str, ...]] = []
    for word in words:
        # What follows labels. or annotations. is one key, which may itself have dots.
        root, dot, key = word.partition(".")
        free = root in ("labels", "annotations") and bool(dot)
        if not (free and key) and not _PATH.fullmatch(word):
            raise InvalidParameter(f"fields: {word[:100]!r} is not a path such as status.state")
        path = (root, key) if free else tuple(word.split("."))
        if root not in roots:
            raise InvalidParameter(f"fields: {root[:100]!r} is not one of {', '.join(roots)}")
        paths.append(path)
    return Mask(paths=tuple(paths))


def _comparison(match: re.Match[str], fields: Mapping[str, tuple[str, ...]]) -> Comparison:
    field = match["field"]
    path = fields.get(field)
    if path is None:
        head, dot, key = field.partition(".")
        path = (*fields[head + dot], key) if head + dot in fields and key else None
    if path is None:
        known = ", ".join(name + "KEY" if name.endswith(".") else name for name in fields)
        raise InvalidFilter(f"filter: there is no field {field[:100]!r}; there are: {known}")
    quoted = match["quoted"]
    value = match["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return Comparison(field=field, path=path, equal=match["op"] == "=", value=value)


def _requirement(match: re.Match[str]) -> Requirement:
    key, groups = match["key"], match.groupdict()
    if "not" in groups:
        return Requirement(key=key, op="absent" if match["not"] else "exists")
    if "values" in groups:
        values = tuple(value.strip() for value in match["values"].split(","))
        return Requirement(key=key, op="in" if match["op"] == "in" else "notin", values=values)
    op: Literal["in", "notin"] = "notin" if match["op"] == "!=" else "in"
    return Requirement(key=key, op=op, values=(match["value"],))


def _holds(one: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(one.key)
    if one.op in ("exists", "absent"):
        return (value is not None) is (one.op == "exists")
    return (value in one.values) is (one.op == "in")


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _project(document: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    whole = {path[0] for path in paths if len(path) == 1}
    deeper: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        if path[0] not in whole:
            deeper.setdefault(path[0], []).append(path[1:])
    found: dict[str, Any] = {}
    for name, value in document.items():
        if name in whole:
            found[name] = value
        elif name in deeper:
            rest = tuple(deeper[name])
            if isinstance(value, Mapping):
                found[name] = _project(value, rest)
            elif isinstance(value, list | tuple):
                found[name] = [_project(v, rest) for v in value if isinstance(v, Mapping)]
    return found


def _short(text: str, name: str) -> None:
    if len(text) > MOST_TEXT:
        raise InvalidFilter(f"{name} has {len(text)} characters; at most {MOST_TEXT}")


def _unclear(name: str, text: str, at: int, expected: str) -> InvalidFilter:
    return InvalidFilter(
        f"{name}: at character {at} {text[at : at + 30]!r} is not understood; write {expected}"
    )
