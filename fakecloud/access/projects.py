"""Projects: made, listed, and deleted when they are empty."""

from __future__ import annotations

from fakecloud.clock import Clock
from fakecloud.errors import InUse, NameInUse, NotFound
from fakecloud.resources import Project
from fakecloud.store import projects as rows
from fakecloud.store.database import Database


class Projects:
    """The register of tenants. Every method may raise Unavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Write to `database`."""
        self._database = database
        self._clock = clock

    def create(self, id: str, description: str) -> Project:
        """Make a project. Raises: NameInUse."""
        project = Project(
            id=id, description=description, suspended=False, created_at=self._clock.now()
        )
        with self._database.write() as connection:
            if rows.get(connection, id) is not None:
                raise NameInUse(f"there is a project {id!r} already")
            rows.add(connection, project)
        return project

    def find(self, id: str) -> Project:
        """Return a project. Raises: NotFound."""
        with self._database.read() as connection:
            project = rows.get(connection, id)
        if project is None:
            raise NotFound(f"there is no project {id!r}")
        return project

    def page(self, after: str, limit: int) -> list[Project]:
        """Return up to `limit` projects with an id above `after`."""
        with self._database.read() as connection:
            return rows.page(connection, after=after, limit=limit)

    def delete(self, id: str) -> None:
        """Delete an empty project. Raises: NotFound, InUse."""
        with self._database.write() as connection:
            if rows.get(connection, id) is None:
                raise NotFound(f"there is no project {id!r}")
            held = rows.holds(connection, id)
            if held is not None:
                raise InUse(f"project {id!r} still has {held}; delete them first")
            rows.remove(connection, id)
