"""Listeners on the stand-ins' addresses, kept in step with Services and EndpointSlices."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from tests.cluster import echo, kubeapi, proxying, work

Json = dict[str, Any]
Place = tuple[str, str, int]
"""Node, protocol and port."""

_log = logging.getLogger("tests.cluster")
_RETRY_S = 0.1
_SERVICE_LABEL = "kubernetes.io/service-name"


class Host(Protocol):
    """What forwarding needs to know of a node."""

    address: str
    proxy_healthy: bool


@dataclass(slots=True)
class _Open:
    """An open port: its listener and what answers there (None: a health check)."""

    listener: echo.Listener
    backend: echo.Backend | None


class Forwarder:
    """Opens and closes the nodePorts and healthCheckNodePorts of every Service on every node.

    A port without an endpoint to send to is closed: a client is refused, as kube-proxy does for
    policy Cluster (for Local it drops, which a process can't).
    """

    def __init__(self, api: kubeapi.KubeApi, hosts: Mapping[str, Host]) -> None:
        self._api = api
        self._hosts = hosts
        self._services: dict[str, Json] = {}
        self._slices: dict[str, dict[str, Json]] = defaultdict(dict)
        self._proxied: dict[str, proxying.Proxied] = {}
        self._open: dict[str, dict[Place, _Open]] = {}
        self._work = work.Work(self._step)

    async def run(self) -> None:
        """Work for ever, then close every port."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._api.follow("/api/v1/services", _Services(self)))
                group.create_task(
                    self._api.follow("/apis/discovery.k8s.io/v1/endpointslices", _Slices(self))
                )
                group.create_task(self._work.run())
        finally:
            for places in self._open.values():
                for each in places.values():
                    each.listener.close()
            self._open.clear()

    def nodes_changed(self) -> None:
        """Look at every Service again after a node came or went."""
        for key in self._services:
            self._work.add(key)

    def set_services(self, services: dict[str, Json]) -> None:
        """Take all Services there are, by key."""
        changed = set(self._services) | set(services)
        self._services = services
        for key in changed:
            self._work.add(key)

    def set_service(self, key: str, service: Json | None) -> None:
        """Take one Service, or None for one that is gone."""
        if service is None:
            self._services.pop(key, None)
        else:
            self._services[key] = service
        self._work.add(key)

    def set_slices(self, slices: list[Json]) -> None:
        """Take all EndpointSlices there are."""
        changed = set(self._slices)
        self._slices.clear()
        for each in slices:
            key = _slice_service(each)
            if key:
                self._slices[key][each["metadata"]["name"]] = each
        for key in changed | set(self._slices):
            self._work.add(key)

    def set_slice(self, slice_: Json, *, gone: bool) -> None:
        """Take one EndpointSlice."""
        key = _slice_service(slice_)
        if not key:
            return
        if gone:
            self._slices[key].pop(slice_["metadata"]["name"], None)
            if not self._slices[key]:
                del self._slices[key]
        else:
            self._slices[key][slice_["metadata"]["name"]] = slice_
        self._work.add(key)

    async def _step(self, key: str) -> None:
        service = self._services.get(key)
        wanted: dict[Place, tuple[proxying.Endpoint, ...] | None] = {}
        plan = None
        if service is not None:
            plan = proxying.proxied(service, self._slices.get(key, {}).values())
            self._proxied[key] = plan
            wanted = self._wanted(plan)
        else:
            self._proxied.pop(key, None)
        places = self._open.setdefault(key, {})
        for place in places.keys() - wanted.keys():
            places.pop(place).listener.close()
        if plan is not None:
            for place, endpoints in wanted.items():
                if place[0] in self._hosts:  # it may go while another port is opened
                    await self._serve(key, plan, place, endpoints)
        if not places:
            self._open.pop(key, None)

    def _wanted(self, plan: proxying.Proxied) -> dict[Place, tuple[proxying.Endpoint, ...] | None]:
        """Return the ports to have open, with their endpoints (None: the health check)."""
        wanted: dict[Place, tuple[proxying.Endpoint, ...] | None] = {}
        for node in self._hosts:
            for port in plan.ports:
                endpoints = plan.endpoints_on(port, node)
                if endpoints and port.protocol in ("TCP", "UDP"):
                    wanted[node, port.protocol, port.number] = endpoints
            if plan.health_port:
                wanted[node, "TCP", plan.health_port] = None
        return wanted

    async def _serve(
        self,
        key: str,
        plan: proxying.Proxied,
        place: Place,
        endpoints: tuple[proxying.Endpoint, ...] | None,
    ) -> None:
        places = self._open[key]
        there = places.get(place)
        if there is None:
            try:
                there = places[place] = await self._listen(key, plan, place, endpoints)
            except OSError as error:  # often: a Service that is going has the port still
                _log.warning("%s: cannot listen on %s: %s", key, place, error)
                self._work.add_later(key, _RETRY_S)
                return
        if there.backend is not None and endpoints is not None:
            there.backend.change(endpoints, sticky=plan.sticky)
            there.listener.refresh()

    async def _listen(
        self,
        key: str,
        plan: proxying.Proxied,
        place: Place,
        endpoints: tuple[proxying.Endpoint, ...] | None,
    ) -> _Open:
        node, protocol, number = place
        address = self._hosts[node].address
        if endpoints is None:
            health = functools.partial(self._health, key, node)
            listener = await echo.listen_tcp(
                address, number, functools.partial(echo.HealthConnection, health)
            )
            return _Open(listener, None)
        name = next(
            port.name for port in plan.ports if (port.protocol, port.number) == (protocol, number)
        )
        backend = echo.Backend(key, name, node, endpoints)
        if protocol == "UDP":
            return _Open(await echo.listen_udp(address, number, backend), backend)
        echoing = functools.partial(echo.EchoConnection, backend)
        return _Open(await echo.listen_tcp(address, number, echoing), backend)

    def _health(self, key: str, node: str, path: str) -> tuple[HTTPStatus, dict[str, str], bytes]:
        """Answer a healthCheckNodePort as kube-proxy's service_health.go does, on any path."""
        plan, host = self._proxied.get(key), self._hosts.get(node)
        ready = plan.ready_on(node) if plan is not None else 0
        healthy = host is not None and host.proxy_healthy
        namespace, _, name = key.partition("/")
        body = {
            "service": {"namespace": namespace, "name": name},
            "localEndpoints": ready,
            "serviceProxyHealthy": healthy,
        }
        headers = {
            "X-Content-Type-Options": "nosniff",
            "X-Load-Balancing-Endpoint-Weight": str(ready),
        }
        status = HTTPStatus.OK if ready and healthy else HTTPStatus.SERVICE_UNAVAILABLE
        return status, headers, json.dumps(body).encode()


class _Services:
    """Follows Services on behalf of a Forwarder."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def replaced(self, objects: list[Json]) -> None:
        self._forwarder.set_services({_key(each): each for each in objects})

    def changed(self, event: str, item: Json) -> None:
        self._forwarder.set_service(_key(item), None if event == "DELETED" else item)


class _Slices:
    """Follows EndpointSlices on behalf of a Forwarder."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def replaced(self, objects: list[Json]) -> None:
        self._forwarder.set_slices(objects)

    def changed(self, event: str, item: Json) -> None:
        self._forwarder.set_slice(item, gone=event == "DELETED")


def _key(item: Json) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _slice_service(slice_: Json) -> str:
    metadata = slice_["metadata"]
    name = (metadata.get("labels") or {}).get(_SERVICE_LABEL, "")
    return f"{metadata['namespace']}/{name}" if name else ""
