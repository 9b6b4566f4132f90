"""One database of each kind for the machine of billing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes import postgresql
from tests.property import billing_world


@pytest.fixture(scope="session")
def databases() -> Iterator[None]:
    """Have SQLite, and PostgreSQL where there is one, for `billing_world.DATABASES`."""
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with postgresql.running() as server:
        made = billing_world.Databases(server.database())
        billing_world.DATABASES.append(made)
        yield
        billing_world.DATABASES.remove(made)
        made.close()
