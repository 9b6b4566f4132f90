"""Certificates: what customers bring, who uses it, and how long it is good for.

A key comes in and never goes out: it is sealed in the database and given to the data plane only.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from fakecloud.access.quotas import Quotas
from fakecloud.clock import Clock
from fakecloud.domain import outcomes, pem, rules
from fakecloud.domain.sealing import Seal
from fakecloud.errors import InUse, NameInUse
from fakecloud.model import CertificateChain, LoadBalancer, Spec
from fakecloud.requests.desk import Desk
from fakecloud.resources import Certificate
from fakecloud.store import certificates as rows
from fakecloud.store import load_balancers
from fakecloud.store.database import Connection, Database

RENEWED: Final = "system.certificate"
"""The operation of a load balancer that is given the new content of a certificate."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate, the names of the load balancers that use it, and whether it is new."""

    certificate: Certificate
    used_by: list[str]
    is_new: bool = False


class Certificates(Desk[Certificate]):
    """The customer's desk for certificates. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock, quotas: Quotas, seal: Seal) -> None:
        """Write to `database`; count by `quotas`; seal keys by `seal`."""
        super().__init__(database, clock, quotas, rows.rows)
        self._seal = seal

    def create(self, project: str, name: str, brought: pem.KeyPair, labels: dict[str, str]) -> Kept:
        """Create a certificate; again with the same changes nothing.

        Raises: NameInUse, QuotaExceeded.
        """
        with self._database.write() as connection:
            current = rows.find(connection, project, name, for_update=True)
            if current is None:
                return self._made(connection, project, name, brought, labels)
            if not self._is(current, brought) or current.labels != labels:
                raise NameInUse(f"{name} exists with another content; PUT renews it")
            return _kept(connection, current)

    def put(self, project: str, name: str, brought: pem.KeyPair, labels: dict[str, str]) -> Kept:
        """Create or replace a certificate.

        Load balancers that use it get the new content at once. Raises: QuotaExceeded.
        """
        with self._database.write() as connection:
            current = rows.find(connection, project, name, for_update=True)
            if current is None:
                return self._made(connection, project, name, brought, labels)
            same = self._is(current, brought)
            if same and current.labels == labels:
                return _kept(connection, current)
            saved = self._change(
                connection, current, **self._fields(project, brought), labels=labels
            )
            if not same:
                self._renew(connection, saved)
            return _kept(connection, saved)

    def find(self, project: str, name: str) -> Kept:
        """Return the certificate of that name or id, and who uses it. Raises: NotFound."""
        with self._database.read() as connection:
            return _kept(connection, self._find(connection, project, name))

    def delete(self, project: str, name: str, *, force: bool = False) -> None:
        """Delete a certificate. Raises: NotFound, InUse while a load balancer names it.

        force: also then, for users that are on their way out with it.
        """
        with self._database.write() as connection:
            found = self._find(connection, project, name, for_update=True)
            users = [lb.name for lb in _users(connection, found)]
            if users and not force:
                raise InUse(
                    f"{found.name} is used by {', '.join(users[:5])}; take it out of their tls first"
                )
            self._remove(connection, found)

    def chains(self, project: str, spec: Spec) -> tuple[CertificateChain, ...]:
        """Return what the data plane needs for `spec`, with keys.

        One that is gone is left out. Raises: Transient when a key can't be opened.
        """
        names = rules.certificates_of(spec)
        if not names:
            return ()
        with self._database.read() as connection:
            found = rows.named(connection, project, names)
        return tuple(
            CertificateChain(
                name=one.name,
                pem=one.chain + self._open(one),
                fingerprint=pem.sha1(pem.leaf_of(one.chain)),
            )
            for one in sorted(found, key=lambda one: one.name)
        )

    def review(self) -> int:
        """Tell load balancers of certificates that end or ended; return how many were told."""
        with self._database.read() as connection:
            if not rows.living(connection):
                return 0
            users = [
                lb.pk for lb in load_balancers.living(connection) if rules.certificates_of(lb.spec)
            ]
        return sum(self._review(pk) for pk in users)

    def _review(self, pk: int) -> bool:
        with self._database.write() as connection:
            lb = load_balancers.get(connection, pk)
            if lb is None or not lb.was_active or lb.deleted_at is not None:
                return False
            now = self._now()
            ends = rows.expiries(connection, lb.project, rules.certificates_of(lb.spec))
            told = outcomes.with_certificates(lb, ends, now)
            if [(c.type, c.status, c.reason) for c in told.conditions] == [
                (c.type, c.status, c.reason) for c in lb.conditions
            ]:
                return False
            load_balancers.save(connection, told, now)
            return True

    def _renew(self, connection: Connection, certificate: Certificate) -> None:
        now, wall = self._now(), self._clock.wall()
        for lb in _users(connection, certificate):
            again = outcomes.lost(lb, wall)
            if again is not None:
                load_balancers.begin(connection, again, RENEWED, now)

    def _made(
        self,
        connection: Connection,
        project: str,
        name: str,
        brought: pem.KeyPair,
        labels: dict[str, str],
    ) -> Kept:
        fields = self._fields(project, brought)
        made = self._add(connection, project, name, labels=labels, **fields)
        return Kept(certificate=made, used_by=[], is_new=True)

    def _fields(self, project: str, brought: pem.KeyPair) -> dict[str, Any]:
        return {
            "chain": brought.chain,
            "sealed_key": self._seal.close(brought.key, project),
            "hosts": brought.hosts,
            "not_before": brought.not_before,
            "not_after": brought.not_after,
            "fingerprint": brought.sha256,
        }

    def _is(self, current: Certificate, brought: pem.KeyPair) -> bool:
        return current.chain == brought.chain and self._open(current) == brought.key

    def _open(self, certificate: Certificate) -> str:
        return self._seal.open(certificate.sealed_key, certificate.project)

    def _now(self) -> datetime:
        return self._clock.now()


def _kept(connection: Connection, certificate: Certificate) -> Kept:
    users = [lb.name for lb in _users(connection, certificate)]
    return Kept(certificate=certificate, used_by=users)


def _users(connection: Connection, certificate: Certificate) -> list[LoadBalancer]:
    project = load_balancers.living(connection, certificate.project)
    return [lb for lb in project if certificate.name in rules.certificates_of(lb.spec)]
