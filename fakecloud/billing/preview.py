"""What manifests would cost before anybody applies them.

A Service of type LoadBalancer becomes the load balancer that the controller would make of it,
and is rated for a month of 730 hours beside everything that is there already. So the difference
is the true one also where the first five rules cost the same as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from fakecloud.billing import money, projection
from fakecloud.billing.prices import PriceBook
from fakecloud.billing.usage import Attribution, Span
from fakecloud.errors import FieldError, ValidationFailed

MOST_MANIFESTS: Final = 2000
Where = tuple[str, str]  # namespace, name


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A load balancer that manifests ask for."""

    namespace: str
    name: str
    ports: int
    protocols: int
    ipv4: int


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one load balancer, in pico-units a month."""

    change: Literal["add", "change", "remove", "keep"]
    namespace: str
    service: str
    before_pico: int
    after_pico: int


def planned(manifests: Iterable[Any]) -> list[Planned]:
    """Return the load balancers of manifests, of lists of them too; everything else is skipped.

    Raises: ValidationFailed that names the manifest and the field.
    """
    found: dict[Where, Planned] = {}
    for pointer, manifest in _flat(manifests):
        if manifest.get("kind") != "Service" or not _is_version_1(manifest):
            continue
        spec = _object(manifest.get("spec", {}), f"{pointer}/spec")
        if spec.get("type") != "LoadBalancer":
            continue
        one = _service(manifest, spec, pointer)
        found[one.namespace, one.name] = one
    return list(found.values())


def items(
    there: Sequence[tuple[str, Span]],
    people: Mapping[str, Attribution],
    wanted: Sequence[Planned],
    book: PriceBook,
    *,
    whole: bool,
) -> list[Item]:
    """Return what each load balancer costs before and after.

    there: (resource, span) of what is there now. whole: the manifests are everything, so what
    isn't in them goes; otherwise it stays. All `after` add up to the bill after it.
    """
    now = {resource: _where(people[span.attribution]) for resource, span in there}
    asked = {(one.namespace, one.name): one for one in wanted}
    kept = [
        (resource, span)
        for resource, span in there
        if now[resource] not in asked and not (whole and now[resource] is not None)
    ]
    type = next((span.type for _, span in there if span.type), "lb-s")
    made = [(f"{one.namespace}/{one.name}", _span(one, type)) for one in wanted]
    before = _costs(there, book)
    after = _costs([*kept, *made], book)
    by_place: defaultdict[Where, list[str]] = defaultdict(list)
    for resource, where in now.items():
        by_place[where or ("", resource)].append(resource)
    found = []
    for place in sorted(by_place.keys() | asked.keys()):
        was = sum(before.get(resource, 0) for resource in by_place.get(place, ()))
        will = sum(after.get(resource, 0) for resource in by_place.get(place, ()))
        will += after.get("/".join(place), 0) if place in asked else 0
        stays = any(resource in dict(kept) for resource in by_place.get(place, ()))
        found.append(
            Item(
                change=_change(place in by_place, place in asked, stays, was == will),
                namespace=place[0],
                service=place[1],
                before_pico=was,
                after_pico=will,
            )
        )
    return found


def document(found: Sequence[Item], book: PriceBook) -> dict[str, Any]:
    """Return the answer's document; amounts are of a month of 730 hours, without traffic."""
    before = sum(item.before_pico for item in found)
    after = sum(item.after_pico for item in found)
    count = {
        kind: sum(item.change == kind for item in found) for kind in ("add", "change", "remove")
    }
    return {
        "currency": book.currency,
        "price_book": book.id,
        "summary": {
            "added": count["add"],
            "changed": count["change"],
            "removed": count["remove"],
            "monthly_before": money.text(before),
            "monthly_after": money.text(after),
            "delta": money.text(after - before),
        },
        "items": [
            {
                "change": item.change,
                "namespace": item.namespace,
                "service": item.service,
                "monthly_before": money.text(item.before_pico),
                "monthly_after": money.text(item.after_pico),
                "delta": money.text(item.after_pico - item.before_pico),
            }
            for item in found
            if item.change != "keep"
        ],
        "traffic": "not included: it isn't known before",
    }


def _change(
    is_there: bool, is_asked: bool, stays: bool, same: bool
) -> Literal["add", "change", "remove", "keep"]:
    if not is_there:
        return "add"
    if not is_asked and not stays:
        return "remove"
    return "keep" if same else "change"


def _costs(of: Sequence[tuple[str, Span]], book: PriceBook) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for line in projection.bill(projection.month_of(of), book):
        found[line.resource] += line.billed_pico
    return found


def _where(of: Attribution) -> Where | None:
    namespace, service = of.labels.get("namespace"), of.labels.get("service")
    return (namespace, service) if namespace and service else None


def _span(one: Planned, type: str) -> Span:
    return Span(
        start_us=0,
        end_us=1,
        attribution=f"{one.namespace}/{one.name}",
        type=type,
        ports=one.ports,
        protocols=one.protocols,
        ipv4=one.ipv4,
    )


def _flat(manifests: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    count = 0
    for index, manifest in enumerate(manifests):
        if manifest is None:
            continue  # an empty document between two ---
        outer = _object(manifest, f"/manifests/{index}")
        inside = outer.get("items") if str(outer.get("kind", "")).endswith("List") else None
        for number, one in enumerate(inside if isinstance(inside, list) else [outer]):
            pointer = f"/manifests/{index}" + ("" if inside is None else f"/items/{number}")
            count += 1
            if count > MOST_MANIFESTS:
                raise _wrong("/manifests", f"there are more than {MOST_MANIFESTS}")
            yield pointer, _object(one, pointer)


def _service(manifest: dict[str, Any], spec: dict[str, Any], pointer: str) -> Planned:
    metadata = _object(manifest.get("metadata", {}), f"{pointer}/metadata")
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise _wrong(f"{pointer}/metadata/name", "a Service has a name")
    ports = spec.get("ports", [])
    if not isinstance(ports, list) or not ports:
        raise _wrong(f"{pointer}/spec/ports", "a Service has ports")
    protocols = {
        str(_object(port, f"{pointer}/spec/ports").get("protocol", "TCP")) for port in ports
    }
    families = spec.get("ipFamilies") or ["IPv4"]
    dual = spec.get("ipFamilyPolicy") in ("PreferDualStack", "RequireDualStack")
    return Planned(
        namespace=str(metadata.get("namespace") or "default"),
        name=name,
        ports=len(ports),
        protocols=len(protocols),
        ipv4=1 if dual or "IPv4" in families else 0,
    )


def _is_version_1(manifest: dict[str, Any]) -> bool:
    return bool(manifest.get("apiVersion", "v1") == "v1")


def _object(value: Any, pointer: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(pointer, "must be an object")
    return value


def _wrong(pointer: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        f"{pointer}: {message}", errors=(FieldError(pointer, "invalid_manifest", message),)
    )
