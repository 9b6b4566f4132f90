"""The Lease by which one of several instances leads, as client-go does it, but bounded.

Another holder's lease is over when it hasn't changed for its duration by *this* machine's
monotonic clock; clocks of others are never trusted. Every call is shorter than the renew
deadline, and a server that hangs can't keep us leading: `hold()` ends at the deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec
import structlog

from ccm import clock as clocks
from ccm import errors, settings
from ccm.kube import objects
from ccm.kube import transport as transports

_log = structlog.get_logger()
_lease_decoder = msgspec.json.Decoder(objects.Lease)


class Elector:
    """Takes, holds and gives back one Lease. identity: unique per process."""

    def __init__(
        self,
        transport: transports.Transport,
        lease: settings.LeaseSettings,
        identity: str,
        clock: clocks.Clock,
        rng: random.Random | None = None,
        on_slow_path: Callable[[], None] = lambda: None,
    ) -> None:
        """on_slow_path: called when a renewal finds that somebody else has written the Lease."""
        self._transport = transport
        self._lease = lease
        self._identity = identity
        self._clock = clock
        self._rng = rng or random.Random()
        self._on_slow_path = on_slow_path
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{lease.namespace}/leases"
        self._seen: tuple[str | None, ...] | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._held: objects.Lease | None = None

    @property
    def fence(self) -> tuple[str, int] | None:
        """Return (UID, transitions) of the held Lease: grows with every change of leader."""
        if self._held is None:
            return None
        return self._held.metadata.uid, self._held.spec.lease_transitions or 0

    @property
    def knows_leader(self) -> bool:
        """Return whether the Lease was read at least once."""
        return self._seen is not None

    def seconds_since_renewal(self) -> float:
        """Return the age of the last renewal; 0 if nothing is held."""
        return self._clock.monotonic() - self._renewed_at if self._held else 0.0

    async def acquire(self) -> None:
        """Return when this instance leads; that may take for ever."""
        was_told = False
        while not await self._attempt():
            if not was_told and self._seen:
                _log.info("leadership_awaited", holder=self._seen[0], lease=self._lease.name)
                was_told = True
            await self._clock.sleep(self._lease.retry_period_s * self._rng.uniform(1.0, 1.2))
        _log.info("leadership_acquired", identity=self._identity, fence=self.fence)

    async def hold(self) -> None:
        """Renew for as long as that works. Raises: LeaseLost, at the renew deadline at latest."""
        while True:
            await self._clock.sleep(self._lease.retry_period_s)
            left_s = self._renewed_at + self._lease.renew_deadline_s - self._clock.monotonic()
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    while not await self._attempt():
                        await self._clock.sleep(self._lease.retry_period_s)
            except TimeoutError:
                self._held = None
                raise errors.LeaseLost(
                    f"lease {self._lease.namespace}/{self._lease.name} could not be renewed "
                    f"within {self._lease.renew_deadline_s:g} s"
                ) from None

    def check(self) -> None:
        """Return if this instance may write now. Raises: LeaseLost.

        A process that was paused past its deadline finds out here, before it writes and before
        `hold` has had its turn.
        """
        if self._held is None or self._clock.monotonic() >= (
            self._renewed_at + self._lease.renew_deadline_s
        ):
            raise errors.LeaseLost(
                f"lease {self._lease.namespace}/{self._lease.name} was not renewed in time"
            )

    async def release(self) -> None:
        """Give the lease back so that a successor need not wait; only after all writers stopped."""
        held, self._held = self._held, None
        if held is None:
            return
        now = clocks.micro_time(self._clock.now())
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
        try:
            await self._patch(held, spec, timeout_s=2.0)
            _log.info("leadership_released", lease=self._lease.name)
        except errors.KubeError as error:
            _log.warning("leadership_not_released", error=str(error))

    async def _attempt(self) -> bool:
        try:
            return await self._take_or_renew()
        except (errors.KubeError, msgspec.MsgspecError) as error:
            _log.warning("lease_attempt_failed", error=str(error))
            return False

    async def _take_or_renew(self) -> bool:
        asked_at = self._clock.monotonic()
        if self._held is not None and await self._renew(self._held, asked_at):
            return True
        current = await self._read()
        if current is None:
            self._keep(await self._create(), asked_at)
            return True
        self._note(current, asked_at)
        holder = current.spec.holder_identity
        is_ours = holder == self._identity
        if holder and not is_ours and not self._is_over(current):
            if self._held is not None:
                self._held = None
                raise errors.LeaseLost(
                    f"lease {self._lease.namespace}/{self._lease.name} was taken by {holder}"
                )
            return False
        self._keep(await self._patch(current, self._spec(current, is_ours)), asked_at)
        return True

    async def _renew(self, held: objects.Lease, asked_at: float) -> bool:
        """Renew in one request; return False if the Lease isn't as we left it."""
        try:
            renewed = await self._patch(held, self._spec(held, True))
        except (errors.KubeConflict, errors.KubeNotFound):
            self._on_slow_path()  # somebody else's write, or ours whose answer was lost
            return False
        self._keep(renewed, asked_at)
        return True

    def _note(self, lease: objects.Lease, at: float) -> None:
        seen = (lease.spec.holder_identity, lease.spec.renew_time, lease.metadata.resource_version)
        if seen != self._seen:
            self._seen, self._seen_at = seen, at

    def _is_over(self, lease: objects.Lease) -> bool:
        duration_s = lease.spec.lease_duration_seconds or self._lease.duration_s
        return self._clock.monotonic() >= self._seen_at + duration_s

    def _keep(self, lease: objects.Lease, asked_at: float) -> None:
        self._held = lease
        self._renewed_at = asked_at
        self._note(lease, asked_at)

    def _spec(self, current: objects.Lease, is_ours: bool) -> dict[str, object]:
        now = clocks.micro_time(self._clock.now())
        spec: dict[str, object] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._lease.duration_s)),
            "renewTime": now,
        }
        if not is_ours:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = (current.spec.lease_transitions or 0) + 1
        return spec

    async def _read(self) -> objects.Lease | None:
        try:
            body = await self._transport.request(
                "GET", f"{self._path}/{self._lease.name}", timeout_s=self._call_timeout_s
            )
        except errors.KubeNotFound:
            return None
        return _lease_decoder.decode(body)

    async def _create(self) -> objects.Lease:
        now = clocks.micro_time(self._clock.now())
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._lease.duration_s)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._lease.name, "namespace": self._lease.namespace},
            "spec": spec,
        }
        answer = await self._transport.request(
            "POST", self._path, body=body, timeout_s=self._call_timeout_s
        )
        return _lease_decoder.decode(answer)

    async def _patch(
        self, current: objects.Lease, spec: dict[str, object], timeout_s: float | None = None
    ) -> objects.Lease:
        # A patch, not a PUT: fields that this version doesn't know survive.
        body = {
            "metadata": {"resourceVersion": current.metadata.resource_version},
            "spec": spec,
        }
        answer = await self._transport.request(
            "PATCH",
            f"{self._path}/{self._lease.name}",
            params={"fieldManager": settings.FIELD_MANAGER},
            body=body,
            content_type=transports.MERGE_PATCH,
            timeout_s=timeout_s or self._call_timeout_s,
        )
        return _lease_decoder.decode(answer)

    @property
    def _call_timeout_s(self) -> float:
        return self._lease.renew_deadline_s / 2
