"""The OpenAPI document: FastAPI's, and what holds for all routes, said once.

Which problems a route can answer follows from what it is: one with a token can refuse it, one
with a body can find it too large. A route declares only what is its own (`replies.refused`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from fakecloud.api import problems, schemas
from fakecloud.errors import InjectedFault, Problem

_REF: Final = "#/components/{}/{}"
_COMMON: Final = ("X-Request-Id", "Fakecloud-Time", "Fakecloud-Version")
_LIMITS: Final = ("RateLimit", "RateLimit-Policy")
_AGAIN: Final = "Retry-After"
_PROGRESS: Final = "get_v1_operations__id__get"
_TEXT: Final = {"type": "string"}
HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-Id": {
        "description": "the caller's id of the request, or a new one; the server's log has it",
        "required": True,
        "schema": _TEXT | {"pattern": "^[A-Za-z0-9_-]{1,64}$"},
    },
    "Fakecloud-Time": {
        "description": "business time, which `/v1/clock` can move",
        "required": True,
        "schema": _TEXT | {"format": "date-time"},
    },
    "Fakecloud-Version": {"description": "of the server", "required": True, "schema": _TEXT},
    "RateLimit": {"description": "what is left, where requests are limited", "schema": _TEXT},
    "RateLimit-Policy": {"description": "the limit, where there is one", "schema": _TEXT},
    "Retry-After": {
        "description": "seconds after which it is worth asking again",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "how to authenticate",
        "required": True,
        "schema": _TEXT | {"const": "Bearer"},
    },
    "ETag": {
        "description": "generation and resource version, for `If-Match` and `If-None-Match`",
        "required": True,
        "schema": _TEXT | {"pattern": r'^"\d+\.\d+"$'},
    },
    "Location": {"description": "where it is", "required": True, "schema": _TEXT},
    "Operation-Location": {
        "description": "the progress of the work on it",
        "required": True,
        "schema": _TEXT,
    },
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's document (changed in place) with problems, headers and links of each route.

    A response that is a reference loses the description that FastAPI puts beside it.
    """
    components = document["components"]
    components["schemas"] |= _problem_schemas()
    components["headers"] = HEADERS
    components["responses"] = dict(_refusals())
    links = _Links(document)
    for path, item in document["paths"].items():
        for operation in item.values():
            answers = operation["responses"]
            is_checked = "security" in operation  # it takes a token, and what comes with one
            for status in _refusable(operation) if is_checked else ():
                answers.setdefault(str(status), {"$ref": _refusal(status)})
            for status, answer in answers.items():
                if "$ref" in answer:
                    answers[status] = {"$ref": answer["$ref"]}
                else:
                    _describe(answer, path, status, links, is_checked=is_checked)
            operation["responses"] = dict(sorted(answers.items()))
    return document


def _problem_schemas() -> dict[str, Any]:
    _, made = models_json_schema(
        [(schemas.Problem, "serialization")], ref_template=_REF.format("schemas", "{model}")
    )
    found: dict[str, Any] = made["$defs"]
    return found


def _refusal(status: int | str) -> str:
    return _REF.format("responses", "Problem" if status == "default" else f"Problem{status}")


def _refusals() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the components that say which problems a status can mean."""
    any_problem = {"$ref": _REF.format("schemas", "Problem")}
    yield (
        "Problem",
        {
            "description": "any problem: `code` says which, `detail` what to do",
            "headers": _headers(*_COMMON, _AGAIN),
            "content": {problems.MEDIA_TYPE: {"schema": any_problem}},
        },
    )
    by_status: defaultdict[int, list[type[Problem]]] = defaultdict(list)
    for kind in problems.catalogue():
        by_status[kind.status].append(kind)
    for status, kinds in sorted(by_status.items()):
        names = {kind.code: kind.title for kind in kinds}
        codes = sorted({*names, InjectedFault.code})
        narrower = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
        yield (
            f"Problem{status}",
            {
                "description": "; ".join(f"`{code}`: {names[code]}" for code in sorted(names)),
                "headers": _headers(
                    *_COMMON,
                    *_LIMITS,
                    *([_AGAIN] if any(kind.retryable for kind in kinds) else []),
                    *(["WWW-Authenticate"] if status == 401 else []),
                ),
                "content": {problems.MEDIA_TYPE: {"schema": {"allOf": [any_problem, narrower]}}},
            },
        )


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": _REF.format("headers", name)} for name in names}


def _refusable(operation: dict[str, Any]) -> set[int]:
    """Return the statuses of problems that an operation of this shape can answer."""
    places = {(one["in"], one["name"]) for one in operation.get("parameters", [])}
    found = {400, 401, 403, 404, 429, 500, 503}  # a parameter, the token, X-Project, its limit
    if "requestBody" in operation:
        found |= {413, 415, 422}
    if ("header", "idempotency-key") in places:
        found |= {409, 422}
    if ("header", "if-match") in places:
        found |= {412}
    return found


def _describe(
    answer: dict[str, Any], path: str, status: str, links: _Links, *, is_checked: bool
) -> None:
    """Add headers and links to an answer that is no problem, by what it returns."""
    names = [*_COMMON, *(_LIMITS if is_checked else ())]
    shown = _schema_names(answer)
    begun = status in ("201", "202")
    if "LoadBalancer" in shown:
        names += ["ETag", *(["Location"] if begun else [])]
    if {"LoadBalancer", "Operation"} & set(shown) and begun:
        names += ["Operation-Location", _AGAIN]
    answer["headers"] = _headers(*sorted(names))
    found = links.of(path, status, shown)
    if found:
        answer["links"] = found


def _schema_names(answer: dict[str, Any]) -> list[str]:
    """Return the names of the components that the answer's JSON can be."""
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    choices = schema.get("anyOf", [schema])
    return [one["$ref"].rpartition("/")[2] for one in choices if "$ref" in one]


class _Links:
    """What can be asked next, for people and for tools that follow links."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Put every link there is among the components of `document`."""
        self._schemas = document["components"]["schemas"]
        self._on_items: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        made = document["components"]["links"] = {
            name: {"operationId": _PROGRESS, "parameters": {"id": f"$response.body#/{pointer}"}}
            for name, pointer in (("Progress", "id"), ("ProgressOfIt", "status/operation"))
        }
        for path, item in document["paths"].items():
            collection, opened, rest = path.partition("/{")
            if not opened or "{" in rest:
                continue
            parameter = rest.partition("}")[0]
            for id in (operation["operationId"] for operation in item.values()):
                self._on_items[collection].append((id, parameter))
                made[id] = {
                    "operationId": id,
                    "parameters": {parameter: f"$response.body#/{parameter}"},
                }

    def of(self, path: str, status: str, shown: list[str]) -> dict[str, Any]:
        """Return the links of an answer: to the item just made, and to the work on it."""
        if status not in ("200", "201", "202"):
            return {}
        found: list[str | None] = []
        for name in shown:
            has = self._schemas[name].get("properties", {})
            on_it = self._on_items[path.partition("/{")[0]]
            found += [id for id, parameter in on_it if ":" not in path and parameter in has]
            if status != "200":
                found += [{"LoadBalancer": "ProgressOfIt", "Operation": "Progress"}.get(name)]
        return {name: {"$ref": _REF.format("links", name)} for name in found if name is not None}
