"""Frozen values of what customers have besides load balancers, and of who they are."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from fakecloud.model import Family


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that a customer brought. `sealed_key` is of use to nobody but the cloud.

    chain: PEM, leaf first; fingerprint: SHA-256 of the leaf; hosts: for whom the leaf is.
    """

    id: str
    project: str
    name: str
    labels: dict[str, str]
    chain: str
    sealed_key: str
    hosts: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str
    resource_version: int
    created_at: datetime
    updated_at: datetime


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: the project that a token opens, and what it may do there."""

    id: str
    project: str
    description: str
    scopes: frozenset[str]
    prefix: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def may(self, scope: str) -> bool:
        """Say whether the token has `scope`; `admin` has all."""
        return scope in self.scopes or "admin" in self.scopes


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: nothing in one project is seen from another."""

    id: str
    description: str
    suspended: bool
    created_at: datetime


class ReservedAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address that a customer keeps. `load_balancer`: the name of the one that uses it."""

    id: str
    project: str
    name: str
    labels: dict[str, str]
    ip: str
    family: Family
    pool: str
    load_balancer: str | None
    resource_version: int
    created_at: datetime
    updated_at: datetime


class InstanceAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One address of an instance, of a type that Kubernetes knows for nodes."""

    type: Literal["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"]
    address: str


class InstanceWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer says about an instance."""

    type: str = "standard-2"
    region: str = "local-1"
    zone: str = "local-1a"
    addresses: tuple[InstanceAddress, ...] = ()
    labels: dict[str, str] = {}
    power_state: Literal["running", "stopped"] = "running"


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A machine, as the cloud's compute service lists it."""

    id: str
    project: str
    name: str
    type: str
    region: str
    zone: str
    addresses: tuple[InstanceAddress, ...]
    labels: dict[str, str]
    power_state: Literal["running", "stopped"]
    resource_version: int
    created_at: datetime
    updated_at: datetime

    @property
    def wish(self) -> InstanceWish:
        """Return what the customer said."""
        return InstanceWish(
            type=self.type,
            region=self.region,
            zone=self.zone,
            addresses=self.addresses,
            labels=self.labels,
            power_state=self.power_state,
        )
