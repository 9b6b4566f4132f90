"""What every list takes: filter, label selector, order, fields, pages and `min_rv`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from fastapi import Query
from starlette.responses import Response

from fakecloud import errors
from fakecloud.api import replies, waiting
from fakecloud.api.context import CloudParts
from fakecloud.domain import filters
from fakecloud.store.listings import ORDERS, Key, Page

BATCH: Final = 500
SCAN_MOST: Final = 10_000
"""Rows looked at for one page; a filter that matches little gets a short page and a token."""

_TOKEN: Final = Annotated[
    list[
        Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9._-]{1,63}$")]
        | Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    ],
    msgspec.Meta(min_length=2, max_length=3),
]
Found = list[tuple[Key, dict[str, Any]]]
Fetch = Callable[[Page], Found]
T = TypeVar("T")


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of list can be asked.

    fields: names for `filter` and their paths in the document. roots: first names for `fields`.
    columns: paths whose equality the database can check, and their columns.
    """

    table: str
    fields: Mapping[str, tuple[str, ...]]
    roots: tuple[str, ...]
    columns: Mapping[tuple[str, ...], str] = {}

    @property
    def orders(self) -> tuple[str, ...]:
        """Return the fields that it can be sorted by; the first is the default."""
        return tuple(ORDERS[self.table])


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a page, understood."""

    kind: Kind
    filter: filters.Filter
    selector: filters.Selector
    order: filters.Order
    mask: filters.Mask | None
    page_size: int
    after: Key | None
    digest: str

    @property
    def page(self) -> Page:
        """Return the first rows to look at, with all that the database can check itself."""
        narrow = [t for t in self.filter.terms if t.equal]
        labels = [r for r in self.selector.requirements if r.op == "in" and len(r.values) == 1]
        return Page(
            order=self.order.field,
            descending=self.order.descending,
            after=self.after,
            limit=self.page_size + 1 if not self._picky else BATCH,
            columns=tuple(
                (self.kind.columns[t.path], t.value) for t in narrow if t.path in self.kind.columns
            ),
            labels=(
                *((r.key, r.values[0]) for r in labels),
                *((t.path[1], t.value) for t in narrow if t.path[0] == "labels"),
            ),
        )

    @property
    def paths(self) -> tuple[tuple[str, ...], ...] | None:
        """Return the parts of a document that the answer depends on, None for all."""
        if self.mask is None:
            return None
        labels = (("labels",),) if self.selector.requirements else ()
        return (*self.mask.paths, *(term.path for term in self.filter.terms), *labels)

    @property
    def _picky(self) -> bool:
        return bool(self.filter.terms or self.selector.requirements)

    def matches(self, document: Mapping[str, Any]) -> bool:
        """Say whether a document is among what is asked for."""
        return self.filter.matches(document) and self.selector.matches(document.get("labels") or {})

    def collect(self, fetch: Fetch) -> tuple[list[dict[str, Any]], Key | None]:
        """Return the items of the page and the key to go on after, None at the end."""
        items: list[dict[str, Any]] = []
        page, seen, last = self.page, 0, self.after
        while True:
            found = fetch(page)
            for key, document in found:
                if self.matches(document):
                    if len(items) == self.page_size:
                        return items, last
                    items.append(document if self.mask is None else self.mask.apply(document))
                last = key
            seen += len(found)
            if len(found) < page.limit:
                return items, None
            if seen >= SCAN_MOST:
                return items, last
            page = msgspec.structs.replace(page, after=last)

    def read(
        self,
        fetch: Callable[[Page], tuple[int, list[tuple[Key, T]]]],
        document: Callable[[T], dict[str, Any]],
    ) -> Response:
        """Return the page as a response: `fetch` reads, and says the version it read at first."""
        versions: list[int] = []

        def documented(page: Page) -> Found:
            version, found = fetch(page)
            versions.append(version)
            return [(key, document(one)) for key, one in found]

        items, last = self.collect(documented)
        return self.answer(items, last, versions[0])

    def answer(self, items: list[dict[str, Any]], last: Key | None, version: int) -> Response:
        """Return the page as a response."""
        token = None if last is None else replies.encode_token((self.digest, *last))
        return replies.json(
            {"items": items, "next_page_token": token, "resource_version": str(version)}
        )


FilterText = Annotated[
    str | None,
    Query(alias="filter", max_length=2000, description='`field="x" AND labels.k!="v"`'),
]
SelectorText = Annotated[
    str | None,
    Query(max_length=2000, description="`k=v,k!=v,k,!k,k in (a,b),k notin (a)`"),
]
OrderText = Annotated[str | None, Query(max_length=100, description="a field, perhaps `desc`")]
FieldsText = Annotated[
    str | None, Query(max_length=2000, description="only these parts: `name,status.state`")
]
MinVersion = Annotated[
    int | None,
    Query(ge=0, lt=1 << 63, description="answer from this resource_version on; waits 2 s at most"),
]
View = Annotated[
    Literal["basic", "full"] | None,
    Query(description="basic: without spec, annotations, conditions and targets"),
]


def asking(kind: Kind) -> Callable[..., Awaitable[Asked]]:
    """Return the dependency that reads the parameters of a list of `kind`."""

    async def asked(
        cloud: CloudParts,
        filter_text: FilterText = None,
        label_selector: SelectorText = None,
        order_by: OrderText = None,
        fields: FieldsText = None,
        page_size: replies.PageSize = 100,
        page_token: replies.PageToken = None,
        min_rv: MinVersion = None,
    ) -> Asked:
        """Return what is asked. Raises: InvalidFilter, InvalidParameter, InvalidPageToken."""
        order = filters.parse_order(order_by, kind.orders)
        made = Asked(
            kind=kind,
            filter=filters.parse_filter(filter_text, kind.fields),
            selector=filters.parse_selector(label_selector),
            order=order,
            mask=filters.parse_fields(fields, kind.roots),
            page_size=page_size,
            after=None,
            digest=_digest(kind.table, filter_text, label_selector, order),
        )
        if page_token is not None:
            after = _decode(page_token, made.digest, ORDERS[kind.table][order.field])
            made = msgspec.structs.replace(made, after=after)
        if min_rv is not None:
            await waiting.for_version(cloud, min_rv)
        return made

    return asked


def _decode(token: str, digest: str, names: tuple[str, ...]) -> Key:
    """Return the key of a page token of this very list. Raises: InvalidPageToken."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        made_for, *key = msgspec.json.decode(raw, type=_TOKEN)
    except (ValueError, msgspec.MsgspecError):
        made_for, key = "", []
    shape = [str if name in ("name", "id") else int for name in names]
    if made_for != digest or [type(part) for part in key] != shape:
        raise errors.InvalidPageToken(
            "page_token is not one that this list gave out for this filter, label_selector and "
            "order_by; start without it"
        )
    return tuple(key)


def _digest(table: str, filter_text: str | None, selector: str | None, order: filters.Order) -> str:
    said = f"{table}\0{filter_text or ''}\0{selector or ''}\0{order.field} {order.descending}"
    return hashlib.blake2s(said.encode("utf-8", "replace"), digest_size=6).hexdigest()


def fields_of(roots: tuple[str, ...], *paths: str) -> dict[str, tuple[str, ...]]:
    """Return names for `filter`: each path by its whole name, and `status.x` also as `x`."""
    found: dict[str, tuple[str, ...]] = {root: (root,) for root in roots}
    for path in paths:
        parts = tuple(path.split("."))
        found[path] = parts
        found.setdefault(parts[-1], parts)
    return found


LOAD_BALANCERS: Final = Kind(
    table="load_balancer",
    fields={
        **fields_of(
            ("name",),
            *("status.state", "status.operating_state", "status.id", "status.operation"),
            *("status.generation", "status.observed_generation"),
            *("spec.type", "spec.region", "spec.admin_up", "spec.deletion_protection"),
        ),
        "labels.": ("labels",),
        "annotations.": ("annotations",),
    },
    roots=("name", "labels", "annotations", "spec", "status"),
    columns={
        ("name",): "name",
        ("status", "state"): "state",
        ("status", "operating_state"): "operating_state",
        ("status", "id"): "id",
        ("status", "operation"): "operation",
    },
)
BASIC: Final = filters.Mask(
    paths=(
        ("name",),
        ("labels",),
        *(
            ("status", name)
            for name in (
                *("id", "state", "operating_state", "addresses", "generation"),
                *("observed_generation", "resource_version", "operation"),
                *("created_at", "updated_at"),
            )
        ),
    )
)
