"""Alembic migrations; `alembic check` in the tests keeps them equal to `tables`."""
