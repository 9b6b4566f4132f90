"""Stored answers count for 48 hours of wall time, and are then forgotten."""

from __future__ import annotations

import pytest

from fakecloud.store import idempotency

ANSWER = idempotency.Answer(fingerprint="f", status=201, headers={"etag": '"1.2"'}, body="{}")


@pytest.fixture
def kept(cloud):
    with cloud.database.write() as connection:
        idempotency.keep(connection, "default", "a", ANSWER, cloud.clock.wall())
    return cloud


def find(cloud, project: str = "default", key: str = "a") -> idempotency.Answer | None:
    with cloud.database.read() as connection:
        since = cloud.clock.wall() - idempotency.KEEP
        return idempotency.find(connection, project, key, since)


def test_a_key_is_the_projects_own(kept):
    assert find(kept) == ANSWER
    assert find(kept, project="shop") is None
    assert find(kept, key="b") is None


def test_an_answer_counts_for_two_days(kept):
    kept.clock.advance(48 * 3600)
    assert find(kept) == ANSWER
    kept.clock.advance(1)
    assert find(kept) is None
    with kept.database.write() as connection:
        idempotency.keep(connection, "default", "a", ANSWER, kept.clock.wall())
    assert find(kept) == ANSWER, "the old one is no obstacle"


def test_housekeeping_forgets_only_what_no_longer_counts(kept):
    kept.clock.advance(48 * 3600)
    with kept.database.write() as connection:
        idempotency.keep(connection, "default", "b", ANSWER, kept.clock.wall())
        assert idempotency.forget(connection, kept.clock.wall() - idempotency.KEEP) == 0
    kept.clock.advance(1)
    with kept.database.write() as connection:
        assert idempotency.forget(connection, kept.clock.wall() - idempotency.KEEP) == 1
    assert find(kept, key="b") == ANSWER
