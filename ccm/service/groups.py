"""Services that share a load balancer: one look at a group does for all of its members.

Only this composes the document, so that no two workers write one load balancer. A member that
left stays on record until its ports are closed; then its own look lets its finalizer go.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ccm import errors
from ccm import settings as settings_
from ccm.cloud import documents
from ccm.kube import objects
from ccm.kube.workers import Outcome
from ccm.service import asking, desired, ownership, ports, publishing, reports, sharing
from ccm.service.memories import Memories
from ccm.service.ports import Verdict


class Groups:
    """Brings the Services of one group and their load balancer together."""

    def __init__(
        self,
        kube: ports.Kube,
        cloud: ports.Cloud,
        owner: ownership.Ownership,
        asking_: asking.Asking,
        publishing_: publishing.Publishing,
        reports_: reports.Reports,
        memories: Memories,
        settings: settings_.Settings,
        plan: Callable[[objects.Service], desired.Plan],
    ) -> None:
        self._kube = kube
        self._cloud = cloud
        self._owner = owner
        self._asking = asking_
        self._publishing = publishing_
        self._reports = reports_
        self._memories = memories
        self._settings = settings
        self._plan = plan

    async def reconcile(self, key: str) -> Outcome:
        """Do what can be done now for the group. Raises: RetryAfter, KubeError, CloudError."""
        name = sharing.name_of(key, self._owner)
        observed = self._cloud.observed(name)
        present = ownership.members_of(observed) if observed else {}
        group = sharing.gather(await self._wanting(key), present)
        for member, rejected in group.refused:
            await self._refuse(member.service, rejected.reason, str(rejected))
        if not group.members:
            return await self._remove(key, name, observed)
        try:
            return await self._serve(key, name, group.members, observed)
        except (errors.CloudRefused, errors.Rejected) as refused:
            reason = refused.reason if isinstance(refused, errors.Rejected) else refused.code
            for member in group.members:
                await self._refuse(member.service, reason, str(refused), has_part=True)
            return Outcome(Verdict.REFUSED, self._settings.reprobe_s)
        except errors.CloudError as failed:
            for member in group.members:
                memory = self._memories.of(member.service)
                await self._reports.cloud_failed(member.service, memory, failed)
            raise

    async def _wanting(self, key: str) -> list[sharing.Member]:
        """Return who wants to share and could be served; tell the others why not."""
        found = []
        for service in self._kube.sharing(key):
            if not self._owner.wants(service):
                continue
            memory = self._memories.of(service)
            try:
                plan = self._plan(service)
            except errors.Rejected as rejected:
                await self._refuse(service, rejected.reason, str(rejected))
            else:
                self._reports.advise(service, memory, plan.advice)
                found.append(sharing.Member(service, plan))
        return found

    async def _serve(
        self,
        key: str,
        name: str,
        members: list[sharing.Member],
        observed: documents.LoadBalancer | None,
    ) -> Outcome:
        memory = self._memories.of_group(key)
        document = self._document(key, members, observed)
        if self._asking.was_refused(memory, document):
            return Outcome(Verdict.REFUSED, self._settings.reprobe_s)
        members = [await self._begin(one) for one in members]
        present = ownership.members_of(observed) if observed else {}

        def tell(_: documents.LoadBalancer | None) -> None:
            for one in members:
                if present.get(one.service.key) != one.service.metadata.uid:
                    memory_of_one = self._memories.of(one.service)
                    self._reports.begin(one.service, memory_of_one, moves_nodes_only=False)

        observed = await self._asking.bring(key, name, document, memory, tell)
        outcomes = []
        for one in members:
            of_one = self._memories.of(one.service)
            outcomes.append(
                await self._publishing.publish(key, one.service, of_one, one.plan, observed)
            )
            await self._leave_own(one, observed)
        if observed.is_applied and self._document(key, members, observed) != document:
            return Outcome(Verdict.WAITING, 0.05)  # who has left is struck off the record now
        return next((one for one in outcomes if one.recheck_s is not None), outcomes[0])

    def _document(
        self,
        key: str,
        members: list[sharing.Member],
        observed: documents.LoadBalancer | None,
    ) -> documents.Document:
        """Return the document, with the former members on record while their ports may be open."""
        document = sharing.compose(key, members, self._owner)
        listed = {one.service.key: one.service.metadata.uid for one in members}
        if observed and not (observed.is_applied and observed.spec == document.spec):
            listed = ownership.members_of(observed) | listed
        noted = document.annotations | {ownership.MEMBERS: ownership.write_members(listed)}
        return msgspec.structs.replace(document, annotations=noted)

    async def _begin(self, one: sharing.Member) -> sharing.Member:
        """Return the member with our finalizer on it, before the cloud hears of it."""
        return sharing.Member(await self._publishing.begin(one.service), one.plan)

    async def _leave_own(self, one: sharing.Member, shared: documents.LoadBalancer) -> None:
        """Delete the load balancer that a member had for itself, once the shared one serves."""
        own = self._cloud.observed(ownership.load_balancer_name(one.service.metadata.uid))
        if own is None or not self._owner.owns(own) or own.status.state == "DELETING":
            return
        if shared.is_applied:
            await self._cloud.delete(own.name)

    async def _refuse(
        self, service: objects.Service, reason: str, text: str, *, has_part: bool = False
    ) -> None:
        """Say why, and publish no address that the Service has no part in."""
        own = self._cloud.observed(ownership.load_balancer_name(service.metadata.uid))
        memory = self._memories.of(service)
        is_served = has_part or (own is not None and own.status.state != "DELETING")
        await self._reports.refuse(service, memory, reason, text, is_served=is_served)

    async def _remove(
        self, key: str, name: str, observed: documents.LoadBalancer | None
    ) -> Outcome:
        """Delete the load balancer that nobody shares any more."""
        self._memories.drop(key)
        self._asking.forget(key)
        if observed is None or not self._owner.owns(observed):
            return Outcome(Verdict.REMOVED)
        if observed.status.state != "DELETING":
            await self._cloud.delete(name)
        return Outcome(Verdict.WAITING, self._settings.recheck_s)
