"""Price books: what a provider asks, since when, and says who.

A book is a YAML document, checked as a whole and never changed once published: a new price is a
new version. A figure that nobody verified is graded "?" and is not a price: what would need it
is unpriced, never free.
"""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from fakecloud.billing import money
from fakecloud.billing.quantities import MICRO, Dimension, Tier
from fakecloud.errors import BookInvalid

Meter = Literal[
    "alive",  # time that a load balancer is billed
    "rules",  # time times its listeners
    "ipv4",  # time times its public IPv4 addresses
    "ipv4_idle",  # time of a reserved address that nothing uses
    "bytes",  # in and out
    "bytes_in",
    "bytes_out",
    "requests",
    "capacity",  # the fullest dimension of each hour
]
Grade = Literal["A", "B", "?"]
TIME_METERS: Final = frozenset({"alive", "rules", "ipv4", "ipv4_idle"})
UNITS: Final = {
    "Hours": 1,
    "Months": 1,
    "Unit-Hours": 1,
    "GB": 10**9,
    "GiB": 2**30,
    "TB": 10**12,
    "1000000 Requests": 10**6,
}
"""How much of its meter one pricing unit is; time is counted by the functions themselves."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
_Decimal = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a book: a word that isn't known in it is refused."""


class _Rate(_Part, frozen=True, tag_field="kind"):
    """How a charge comes of a reading; books tell rates apart by `kind`."""


class Source(_Part, frozen=True, kw_only=True):
    """Where a figure was read, when, and how sure it is: A the provider's page, B a third party."""

    url: _Text
    read: date
    grade: Grade


class Cap(_Part, frozen=True, kw_only=True):
    """The most that a load balancer costs in a UTC month."""

    amount: _Decimal


class LinearRate(_Rate, frozen=True, kw_only=True, tag="linear"):
    """By time or quantity; `min_seconds` once there is any."""

    min_seconds: _Count = 0
    cap: Cap | None = None


class StartedHourRate(_Rate, frozen=True, kw_only=True, tag="started_hour"):
    """Each started hour as a whole, counted from the resource's start."""

    cap: Cap | None = None


class MonthlyRate(_Rate, frozen=True, kw_only=True, tag="monthly"):
    """A price of the month, in proportion to its time."""


class IncludedRate(_Rate, frozen=True, kw_only=True, tag="included"):
    """What goes beyond `quantity` units in a month, of each resource or of the whole account."""

    quantity: _Decimal
    per: Literal["resource_month", "account_month"] = "resource_month"


class TierBound(_Part, frozen=True, kw_only=True):
    """Up to this many units of the month at this price; without `up_to`: all above."""

    price: _Decimal
    up_to: _Decimal | None = None


class GraduatedRate(_Rate, frozen=True, kw_only=True, tag="graduated"):
    """By tiers of the account's month."""

    tiers: Annotated[list[TierBound], msgspec.Meta(min_length=1, max_length=20)]


class PackageRate(_Rate, frozen=True, kw_only=True, tag="package"):
    """The account's first `first` cost the price together, each more costs `extra`."""

    first: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    extra: _Decimal


class DimensionSize(_Part, frozen=True, kw_only=True):
    """So much of a meter in an hour fills a unit: connections a second, or at once, or bytes."""

    meter: Literal["new_connections", "active_connections", "bytes", "requests"]
    per_unit: Annotated[int, msgspec.Meta(ge=1, le=10**15)]


class CapacityRate(_Rate, frozen=True, kw_only=True, tag="capacity"):
    """Units of the dimension that is used most, hour by hour."""

    dimensions: Annotated[list[DimensionSize], msgspec.Meta(min_length=1, max_length=10)]


Rate = (
    LinearRate
    | StartedHourRate
    | MonthlyRate
    | IncludedRate
    | GraduatedRate
    | PackageRate
    | CapacityRate
)


class Sku(_Part, frozen=True, kw_only=True):
    """One thing that is charged. `plan`: only of load balancers of this provider's plan."""

    id: _Id
    meter: Meter
    unit: _Text
    price: _Decimal | None
    rate: Rate
    description: _Text
    source: Source
    plan: _Id | None = None
    note: str = ""

    @property
    def price_micros(self) -> int:
        """Return the price in micro-units of the currency. Only of a SKU that has one."""
        assert self.price is not None
        return money.micros(self.price)

    @property
    def priced(self) -> bool:
        """Say whether there is a figure that somebody verified."""
        return self.price is not None and self.source.grade != "?"

    @property
    def rate_kind(self) -> str:
        """Return how it is rated, by the name that books use."""
        return _kind(type(self.rate))

    @property
    def cap_pico(self) -> int | None:
        """Return the most of a month in pico-units; None: no cap."""
        cap = self.rate.cap if isinstance(self.rate, LinearRate | StartedHourRate) else None
        return None if cap is None else money.micros(cap.amount) * MICRO

    def tiers(self) -> list[Tier]:
        """Return the tiers of a graduated price, bounds in micro-units."""
        assert isinstance(self.rate, GraduatedRate)
        return [
            Tier(
                up_to=None if one.up_to is None else money.micros(one.up_to),
                price_micros=money.micros(one.price),
            )
            for one in self.rate.tiers
        ]

    def dimensions(self) -> list[Dimension]:
        """Return what fills a capacity unit, each by the total of an hour."""
        assert isinstance(self.rate, CapacityRate)
        hourly = {"new_connections": 3600, "active_connections": 3_600_000_000, "requests": 3600}
        return [
            Dimension(meter=one.meter, per_unit=one.per_unit * hourly.get(one.meter, 1))
            for one in self.rate.dimensions
        ]


class Provider(_Part, frozen=True, kw_only=True):
    """Whose prices they are."""

    name: _Text
    region: _Text


class PriceBook(_Part, frozen=True, kw_only=True):
    """The prices of one provider and region.

    applies_to: whom a new version reaches; the others keep their price until they are resized
    (`new_and_resized`) or for ever (`new`). bill_from, bill_until: which moments of a load
    balancer begin and end its bill. topology: how many of the provider's things a load balancer
    is. plans: our types as the provider's plans. illustrative: prices that no provider asks.
    """

    name: _Id
    version: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    provider: Provider
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}$")]
    effective_from: datetime
    skus: Annotated[list[Sku], msgspec.Meta(min_length=1, max_length=200)]
    applies_to: Literal["all", "new", "new_and_resized"] = "all"
    bill_from: Literal["active", "created"] = "active"
    bill_until: Literal["delete_requested", "deleted"] = "delete_requested"
    topology: Literal["one_lb", "rule_per_port", "rule_per_protocol"] = "one_lb"
    addresses_per_lb: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    plans: dict[str, str] = {}
    illustrative: bool = False
    note: str = ""

    @property
    def id(self) -> str:
        """Return name and version, e.g. aws-nlb-us-east-1@1."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the content, whatever the order of its fields was."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    @property
    def oldest_source(self) -> date:
        """Return when the figure that was read longest ago was read."""
        return min(sku.source.read for sku in self.skus)

    def of_plan(self, lb_type: str) -> list[Sku]:
        """Return the SKUs of a load balancer of our type `lb_type`."""
        plan = self.plans.get(lb_type)
        return [sku for sku in self.skus if sku.plan is None or sku.plan == plan]


def parse(document: Any, where: str) -> PriceBook:
    """Return the checked price book of a YAML document.

    Prices are decimal strings, quoted in YAML so that they are never floats.
    Raises: BookInvalid that names the book `where` and what is wrong with it.
    """
    try:
        book = msgspec.convert(document, PriceBook)
        _check(book)
    except (msgspec.ValidationError, ValueError) as error:
        raise BookInvalid(f"price book {where}: {error}") from None
    return book


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a price book."""
    return msgspec.json.schema(PriceBook)


def _check(book: PriceBook) -> None:
    if book.effective_from.tzinfo is None:
        raise ValueError("effective_from has no time zone; put a Z at its end")
    seen: set[tuple[str, str | None]] = set()
    for sku in book.skus:
        if (sku.id, sku.plan) in seen:
            raise ValueError(f"skus has {sku.id} twice for the same plan")
        seen.add((sku.id, sku.plan))
        _check_sku(sku)
        if sku.plan is not None and sku.plan not in book.plans.values():
            raise ValueError(f"{sku.id}: plan {sku.plan} is none of plans")
    if not any(sku.meter in ("alive", "rules") for sku in book.skus):
        raise ValueError("no SKU is for a load balancer's time: meter alive or rules")


def _kind(rate: type[_Rate]) -> str:
    return str(rate.__struct_config__.tag)


def _check_sku(sku: Sku) -> None:
    if sku.unit not in UNITS:
        raise ValueError(f"{sku.id}: unit {sku.unit!r} is not one of {', '.join(UNITS)}")
    allowed = _RATES[sku.meter]
    if type(sku.rate) not in allowed:
        kinds = ", ".join(_kind(one) for one in allowed)
        raise ValueError(f"{sku.id}: meter {sku.meter} takes rate.kind {kinds}")
    if isinstance(sku.rate, GraduatedRate):
        bounds = [tier.up_to for tier in sku.tiers()]
        if bounds[-1] is not None or None in bounds[:-1]:
            raise ValueError(f"{sku.id}: only the last tier has no up_to, and it must be there")
        numbers = [bound for bound in bounds if bound is not None]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"{sku.id}: the tiers' up_to must grow")
    if sku.price is None and sku.source.grade != "?":
        raise ValueError(f"{sku.id}: without a price its grade must be '?'")


_TIMED: Final = (LinearRate, StartedHourRate, MonthlyRate)
_COUNTED: Final = (LinearRate, IncludedRate, GraduatedRate)
_RATES: Final[dict[str, tuple[type[_Rate], ...]]] = {
    "alive": _TIMED,
    "rules": (LinearRate, StartedHourRate, PackageRate),
    "ipv4": _TIMED,
    "ipv4_idle": _TIMED,
    "bytes": _COUNTED,
    "bytes_in": _COUNTED,
    "bytes_out": _COUNTED,
    "requests": _COUNTED,
    "capacity": (CapacityRate,),
}
