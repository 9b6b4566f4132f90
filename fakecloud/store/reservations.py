"""Addresses that customers keep, whether a load balancer uses them or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from fakecloud.billing import events as billing
from fakecloud.billing.events import Kind
from fakecloud.domain import documents
from fakecloud.model import Address
from fakecloud.resources import ReservedAddress
from fakecloud.store import billing_events, events, listings
from fakecloud.tables.cloud import address, load_balancer
from fakecloud.tables.cloud import reserved_address as table

_OWN = ("id", "project", "name", "labels", "ip", "resource_version", "created_at", "updated_at")


def _value(values: Mapping[str, Any], held: Mapping[str, Any]) -> ReservedAddress:
    place = held[values["ip"]]
    return msgspec.convert(
        {**values, "family": place.family, "pool": place.pool, "load_balancer": place.name},
        ReservedAddress,
    )


def _held(connection: Connection, ips: list[str]) -> dict[str, Any]:
    """Return pool, family and the user's name of these addresses, by ip."""
    rows = connection.execute(
        select(address.c.ip, address.c.pool, address.c.family, load_balancer.c.name)
        .outerjoin(load_balancer, address.c.load_balancer_id == load_balancer.c.id)
        .where(address.c.ip.in_(ips))
    )
    return {row.ip: row for row in rows}


def find(connection: Connection, project: str, name: str) -> ReservedAddress | None:
    """Return the reserved address of that name, id or ip, None if the project has none."""
    row = connection.execute(
        select(*(table.c[column] for column in _OWN)).where(
            table.c.project == project,
            or_(table.c.name == name, table.c.id == name, table.c.ip == name),
        )
    ).first()
    if row is None:
        return None
    return _value(dict(zip(_OWN, row, strict=True)), _held(connection, [row.ip]))


def listing(
    connection: Connection, project: str, page: listings.Page
) -> list[tuple[listings.Key, ReservedAddress]]:
    """Return a page of reserved addresses of a project with their keys."""
    found = listings.find(connection, table, project, page, _OWN)
    values = [(key, dict(zip(_OWN, row, strict=True))) for key, row in found]
    held = _held(connection, [one["ip"] for _, one in values])
    return [(key, _value(one, held)) for key, one in values]


def owner(connection: Connection, ip: str) -> str | None:
    """Return the project that has `ip` reserved."""
    project: str | None = connection.execute(
        select(table.c.project).where(table.c.ip == ip)
    ).scalar_one_or_none()
    return project


def among(connection: Connection, ips: list[str]) -> frozenset[str]:
    """Return those of `ips` that are reserved."""
    return frozenset(connection.execute(select(table.c.ip).where(table.c.ip.in_(ips))).scalars())


def living(connection: Connection, project: str) -> list[ReservedAddress]:
    """Return every reserved address of a project."""
    return _found(connection, table.c.project == project)


def everyones(connection: Connection) -> list[ReservedAddress]:
    """Return every reserved address there is."""
    return _found(connection, true())


def _found(connection: Connection, condition: ColumnElement[bool]) -> list[ReservedAddress]:
    columns = (table.c[name] for name in _OWN)
    rows = connection.execute(select(*columns).where(condition).order_by(table.c.id)).all()
    held = _held(connection, [row.ip for row in rows])
    return [_value(dict(zip(_OWN, row, strict=True)), held) for row in rows]


def add(connection: Connection, reserved: ReservedAddress) -> ReservedAddress:
    """Reserve a free address, with its event; return it with its resource version."""
    version = events.next_version(connection)
    reserved = msgspec.structs.replace(reserved, resource_version=version)
    place = Address(family=reserved.family, ip=reserved.ip, pool=reserved.pool)
    upsert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    values = {
        "ip": place.ip,
        "pool": place.pool,
        "family": place.family,
        "load_balancer_id": None,
        "given_at": reserved.created_at,
        "released_at": None,
        "reserved": True,
    }
    connection.execute(
        upsert(address)
        .values(values)
        .on_conflict_do_update(index_elements=[address.c.ip], set_=values)
    )
    own = {name: getattr(reserved, name) for name in _OWN} | {"created_version": version}
    connection.execute(insert(table).values(own))
    _record(connection, reserved, "ADDED")
    billing_events.append(
        connection, [billing.of_address(reserved, Kind.CREATED, reserved.created_at)]
    )
    return reserved


def touched(connection: Connection, ips: Collection[str], now: datetime) -> None:
    """Record that these reserved addresses are used by somebody else, or by nobody, than before."""
    for reserved in _found(connection, table.c.ip.in_(ips)):
        changed = _newer(connection, reserved, now)
        connection.execute(
            update(table)
            .where(table.c.id == changed.id)
            .values(resource_version=changed.resource_version, updated_at=now)
        )
        _record(connection, changed, "MODIFIED")
        billing_events.append(connection, [billing.of_address(changed, Kind.CHANGED, now)])


def _newer(connection: Connection, reserved: ReservedAddress, now: datetime) -> ReservedAddress:
    version = events.next_version(connection)
    return msgspec.structs.replace(reserved, resource_version=version, updated_at=now)


def _record(connection: Connection, reserved: ReservedAddress, type: str) -> None:
    events.append(
        connection,
        resource_version=reserved.resource_version,
        project=reserved.project,
        type=type,
        kind="address",
        object_id=reserved.id,
        document=documents.reserved_address(reserved),
        at=reserved.updated_at,
    )


def remove(connection: Connection, reserved: ReservedAddress, now: datetime) -> None:
    """Give the reservation up, with its event; the address rests before somebody gets it."""
    connection.execute(delete(table).where(table.c.id == reserved.id))
    gone = _newer(connection, reserved, now)
    _record(connection, gone, "DELETED")
    billing_events.append(connection, [billing.of_address(gone, Kind.DELETED, now)])
    connection.execute(
        update(address).where(address.c.ip == reserved.ip).values(reserved=False, released_at=now)
    )


def counts(connection: Connection, rested_since: datetime) -> dict[tuple[str, str], dict[str, int]]:
    """Return by (pool, family) how many addresses are used, reserved unused, and resting."""
    used = address.c.load_balancer_id.is_not(None)
    kinds = {
        "used": used,
        "reserved": ~used & address.c.reserved,
        "resting": ~used & ~address.c.reserved & (address.c.released_at > rested_since),
    }
    found: dict[tuple[str, str], dict[str, int]] = {}
    for kind, condition in kinds.items():
        rows = connection.execute(
            select(address.c.pool, address.c.family, func.count())
            .where(condition)
            .group_by(address.c.pool, address.c.family)
        )
        for pool, family, number in rows:
            found.setdefault((pool, family), {})[kind] = number
    return found
