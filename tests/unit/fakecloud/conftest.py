"""A small cloud on each of the two databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes import postgresql
from tests.fakes.small_cloud import SmallCloud


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with postgresql.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cloud.db"
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    return server.database()


@pytest.fixture
def cloud(database_url) -> Iterator[SmallCloud]:
    small = SmallCloud(database_url)
    yield small
    small.close()
