"""What can be asked of the cloud, noun by noun, and the watch stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from ccm import errors, streams
from ccm.cloud import answers, documents
from ccm.cloud import connection as connections

HEARTBEAT_S: Final = 1
"""How often the cloud is asked to say something on the stream."""
STREAM_IDLE_S: Final = 4.0
"""Longer silence is a stalled stream: it is opened again, so that drift is repaired within 5 s."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One line of the watch stream; type ADDED | MODIFIED | DELETED | BOOKMARK.

    OPEN, the first of each stream, is ours: the cloud has accepted the watch.
    """

    type: str
    resource_version: str | int = ""
    kind: str = ""
    object: msgspec.Raw = msgspec.Raw(b"null")

    def load_balancer(self) -> documents.LoadBalancer:
        """Return the load balancer that the frame carries. Raises: msgspec.MsgspecError."""
        return _load_balancer_decoder.decode(self.object)


class _Page(msgspec.Struct):
    items: tuple[documents.LoadBalancer, ...] = ()
    next_page_token: str | None = None


class _RoutePage(msgspec.Struct):
    items: tuple[documents.Route, ...] = ()
    next_page_token: str | None = None


class _DetailStatus(msgspec.Struct):
    targets: tuple[documents.TargetHealth, ...] = ()
    operation: str = ""


class _Detail(msgspec.Struct):
    status: _DetailStatus


class _MadeToken(msgspec.Struct):
    secret: str | None


_made_token_decoder = msgspec.json.Decoder(_MadeToken)
_detail_decoder = msgspec.json.Decoder(_Detail)
_operation_decoder = msgspec.json.Decoder(documents.Operation)
_load_balancer_decoder = msgspec.json.Decoder(documents.LoadBalancer)
_instance_decoder = msgspec.json.Decoder(documents.Instance)
_page_decoder = msgspec.json.Decoder(_Page)
_route_decoder = msgspec.json.Decoder(documents.Route)
_route_page_decoder = msgspec.json.Decoder(_RoutePage)
_frame_decoder = msgspec.json.Decoder(Frame)
_rates_decoder = msgspec.json.Decoder(documents.Rates)
_encoder = msgspec.json.Encoder()


class Client:
    """What can be asked of one cloud. Every request may raise CloudError."""

    def __init__(self, connection: connections.Connection) -> None:
        self._connection = connection
        self.url = connection.url

    async def get(self, name: str) -> documents.LoadBalancer | None:
        """Return the load balancer, None if the cloud has none of that name."""
        response = await self._connection.send("GET", _path(name))
        if answers.is_absent(response):
            return None
        return answers.decode(_load_balancer_decoder, answers.checked(response))

    async def inspect(self, name: str) -> documents.Inspection | None:
        """Return all that the cloud tells of a load balancer, None if there is none."""
        response = await self._connection.send("GET", _path(name))
        if answers.is_absent(response):
            return None
        body = answers.checked(response)
        status = answers.decode(_detail_decoder, body).status
        operation = None
        if status.operation:
            answer = await self._connection.send(
                "GET", f"/operations/{quote(status.operation, safe='')}"
            )
            if not answers.is_absent(answer):
                operation = answers.decode(_operation_decoder, answers.checked(answer))
        found = answers.decode(_load_balancer_decoder, body)
        return documents.Inspection(found, status.targets, operation)

    async def list(self) -> tuple[documents.LoadBalancer, ...]:
        """Return all load balancers of the project."""
        pages = self._connection.pages("/load-balancers", _page_decoder)
        return tuple([one async for page in pages for one in page.items])

    async def routes(self) -> tuple[documents.Route, ...]:
        """Return all routes of the project."""
        pages = self._connection.pages("/routes", _route_page_decoder)
        return tuple([one async for page in pages for one in page.items])

    async def put_network(
        self, name: str, ranges: Collection[str], labels: Mapping[str, str], fence: str = ""
    ) -> None:
        """Create the network, or change its ranges."""
        path = f"/networks/{quote(name, safe='')}"
        body = _encoder.encode({"ranges": list(ranges), "labels": labels})
        answers.checked(await self._connection.send("PUT", path, content=body, fence=fence))

    async def delete_network(self, name: str) -> None:
        """Delete the network; none is fine."""
        await self._connection.delete(f"/networks/{quote(name, safe='')}")

    async def put_route(
        self, name: str, document: documents.RouteDocument, fence: str = ""
    ) -> documents.Route:
        """Create the route or lead it elsewhere; return it as it is now, PENDING at first."""
        path = f"/routes/{quote(name, safe='')}"
        response = await self._connection.send(
            "PUT", path, content=_encoder.encode(document), fence=fence
        )
        return answers.decode(_route_decoder, answers.checked(response))

    async def delete_route(self, name: str, fence: str = "") -> None:
        """Delete the route; none is fine."""
        await self._connection.delete(f"/routes/{quote(name, safe='')}", fence)

    async def put(
        self, name: str, document: documents.Document, fence: str = ""
    ) -> documents.LoadBalancer:
        """Ask for `document`; return the load balancer as it is now, usually not ACTIVE yet.

        fence: whose leadership this is written under; the cloud refuses an older one's writes.
        """
        content = _encoder.encode(document)
        response = await self._connection.send("PUT", _path(name), content=content, fence=fence)
        return answers.decode(_load_balancer_decoder, answers.checked(response))

    async def delete(self, name: str, fence: str = "") -> bool:
        """Ask for deletion. Return False if there is nothing to delete any more."""
        return await self._connection.delete(_path(name), fence)

    async def instance(self, name: str) -> documents.Instance | None:
        """Return the instance of that name or id; None only if the cloud says there is none.

        Whatever else goes wrong is a CloudError: that it can't be told must not look like "gone".
        """
        response = await self._connection.send("GET", f"/instances/{quote(name, safe='')}")
        if answers.is_absent(response):
            return None
        return answers.decode(_instance_decoder, answers.checked(response))

    async def put_inventory(
        self, cluster_uid: str, services: Collection[str], lease_s: int, fence: str = ""
    ) -> None:
        """Say which Services a cluster has, by their UIDs, and for how long that is believed."""
        body = {"services": list(services), "lease_s": lease_s}
        path = f"/clusters/{quote(cluster_uid, safe='')}/inventory"
        content = _encoder.encode(body)
        answers.checked(await self._connection.send("PUT", path, content=content, fence=fence))

    async def rates(self) -> documents.Rates:
        """Return what load balancers cost in an hour."""
        response = await self._connection.send("GET", "/costs/rates")
        return answers.decode(_rates_decoder, answers.checked(response))

    async def ensure_project(self, project: str) -> None:
        """Make the project if there is none; needs an administrator's token."""
        path = f"/projects/{quote(project, safe='')}"
        if not answers.is_absent(response := await self._connection.send("GET", path)):
            answers.checked(response)
            return
        answers.checked(
            await self._connection.send(
                "POST", "/projects", content=_encoder.encode({"id": project})
            )
        )

    async def make_token(self, description: str) -> str:
        """Return the secret of a new token with a controller's rights."""
        body = _encoder.encode({"scopes": ["ccm"], "description": description})
        answer = await self._connection.send("POST", "/tokens", content=body)
        secret = answers.decode(_made_token_decoder, answers.checked(answer)).secret
        if secret is None:
            raise errors.CloudBusy("no_secret", "the cloud shows no secret of the new token")
        return secret

    async def watch(self, since: str | None, kinds: str = "load_balancer") -> AsyncIterator[Frame]:
        """Yield OPEN, then frames of `kinds` until the connection ends.

        since None: the present state first, as ADDED frames up to the first BOOKMARK.
        Raises: CloudWatchExpired if `since` is too old; CloudError.
        """
        params = {"kinds": kinds, "heartbeat": f"{HEARTBEAT_S}s"}
        params |= {"initial": "true"} if since is None else {"since": since}
        splitter = streams.LineSplitter()
        async for chunk in self._connection.stream("/watch", params, idle_s=STREAM_IDLE_S):
            if not chunk:
                yield Frame("OPEN")
            for line in splitter.feed(chunk):
                yield _frame(line)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connection.aclose()


def _frame(line: bytes) -> Frame:
    frame: Frame = answers.decode(_frame_decoder, line)
    if frame.type == "ERROR":
        raise answers.frame_error(bytes(frame.object))
    return frame


def _path(name: str) -> str:
    return f"/load-balancers/{quote(name, safe='')}"
