"""The FastAPI application from its parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline

from fakecloud.api import (
    actions,
    addresses,
    admin,
    audit,
    billing,
    budgets,
    catalogues,
    certificates,
    chaos,
    clock,
    costs,
    description,
    insight,
    instances,
    load_balancers,
    networks,
    opencost,
    operations,
    problems,
    profiles,
    projects,
    quotas,
    rates,
    routes,
    service,
    tokens,
    waste,
    watch,
)
from fakecloud.api.context import Cloud
from fakecloud.api.disturbance import Disturbance
from fakecloud.api.envelope import Envelope
from fakecloud.api.guard import Guard
from fakecloud.api.heads import Heads
from fakecloud.api.puts import Puts
from fakecloud.api.reads import Reads

_DESCRIPTION = """
A small cloud on your own machine: load balancers that are real HAProxy processes, and what they
cost. Authorize with the token of the file `admin.token`. Every error is a
[problem document](https://www.rfc-editor.org/rfc/rfc9457) whose `code` never changes.
"""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create(cloud: Cloud, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the application that serves `cloud`; `lifespan` runs what lives beside it."""
    app = FastAPIOffline(
        title="fakecloud",
        version=version("fakecloud"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be no problem document
    )
    app.state.cloud = cloud
    v1 = APIRouter(prefix="/v1")
    for part in (
        load_balancers,
        actions,
        insight,
        operations,
        watch,
        billing,
        costs,
        rates,
        waste,
        budgets,
        projects,
        tokens,
        quotas,
        audit,
        chaos,
        clock,
        profiles,
        addresses,
        instances,
        networks,
        routes,
        certificates,
        catalogues,
        admin,
    ):
        v1.include_router(part.router)
    app.include_router(v1)
    app.include_router(service.router)
    app.include_router(opencost.router)
    app.add_middleware(Puts, cloud=cloud)
    app.add_middleware(Reads, cloud=cloud)
    app.add_middleware(Heads)
    app.add_middleware(Guard)
    app.add_middleware(Envelope, cloud=cloud)
    app.add_middleware(Disturbance)  # the outermost: the last one added
    problems.install(app)
    plain = app.openapi
    app.openapi = cache(lambda: description.complete(plain()))  # type: ignore[method-assign]
    return app
