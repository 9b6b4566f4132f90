"""The audit record: appended, chained, and nothing else."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import delete, text, update

from fakecloud.errors import Unavailable
from fakecloud.store import audit
from fakecloud.tables.access import audit as table
from fakecloud.tables.access import audit_floor


def entry(cloud, path: str = "/v1/load-balancers/web", project: str = "default") -> audit.Entry:
    return audit.Entry(
        at=cloud.clock.now(),
        project=project,
        token_id="tok_1",
        client="127.0.0.1",
        method="PUT",
        path=path,
        status=201,
        code=None,
        request_id="req_1",
        body_sha256="0" * 64,
    )


@pytest.fixture
def kept(cloud):
    """A record of four changes, one of another project."""
    for number, project in enumerate(["default", "shop", "default", "default"]):
        with cloud.database.write() as connection:
            audit.append(connection, entry(cloud, f"/v1/{number}", project))
    return cloud


def broken(cloud) -> int | None:
    with cloud.database.read() as connection:
        return audit.broken(connection)


def test_records_are_chained_and_counted(kept):
    with kept.database.read() as connection:
        records = audit.page(connection, None, after=0, limit=10)
    assert [one.seq for one in records] == [1, 2, 3, 4]
    assert records[0].previous == audit.FIRST
    assert [one.previous for one in records[1:]] == [one.hash for one in records[:-1]]
    assert broken(kept) is None


def test_a_project_reads_its_own(kept):
    with kept.database.read() as connection:
        first = audit.page(connection, "default", after=0, limit=2)
        rest = audit.page(connection, "default", after=first[-1].seq, limit=2)
    assert [one.path for one in first + rest] == ["/v1/0", "/v1/2", "/v1/3"]


@pytest.mark.parametrize("change", [update(table).values(status=500), delete(table)], ids=str)
def test_the_database_refuses_to_change_it(kept, change):
    with pytest.raises(Unavailable, match="audit is append-only"), kept.database.write() as c:
        c.execute(change)
    assert broken(kept) is None


def unlocked(cloud, *statements: str) -> None:
    """Do what only somebody with the database in hand could."""
    with cloud.database.engine.begin() as connection:
        if cloud.database.is_sqlite:
            for name in ("audit_no_update", "audit_no_delete"):
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "first_wrong"),
    [
        ("UPDATE audit SET path = '/v1/9' WHERE seq = 2", 2),
        ("UPDATE audit SET seq = 9 WHERE seq = 4", 4),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 1", 1),
    ],
)
def test_whoever_gets_past_that_is_found_out(kept, statement, first_wrong):
    unlocked(kept, statement)
    assert broken(kept) == first_wrong


def test_every_field_is_under_the_hash(cloud):
    one = entry(cloud)
    base = audit._hash(1, audit.FIRST, one)
    for name in audit.Entry.__struct_fields__:
        other = msgspec.structs.replace(one, **{name: "x" if name != "status" else 1})
        assert audit._hash(1, audit.FIRST, other) != base, name


def test_the_oldest_go_and_the_chain_goes_on(kept):
    with kept.database.write() as connection:
        assert audit.trim(connection, 4) == 0
        assert audit.trim(connection, 1) == 3
        assert audit.trim(connection, 1) == 0
    assert broken(kept) is None
    with kept.database.write() as connection:
        audit.append(connection, entry(kept, "/v1/next"))
    with kept.database.read() as connection:
        assert [one.seq for one in audit.page(connection, None, after=0, limit=9)] == [4, 5]
    assert broken(kept) is None
    unlocked(kept, "DELETE FROM audit WHERE seq = 4")
    assert broken(kept) == 4


def test_a_record_that_lost_all_before_it_still_follows_them(kept):
    with kept.database.write() as connection:
        audit.trim(connection, 0)
        audit.append(connection, entry(kept))
    with kept.database.read() as connection:
        (record,) = audit.page(connection, None, after=0, limit=9)
    assert record.seq == 5
    assert record.previous != audit.FIRST
    assert broken(kept) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (delete(table).where(table.c.seq == 4), "audit is append-only"),
        (update(audit_floor).values(seq=1), "only rises"),
        (delete(audit_floor), "only rises"),
    ],
    ids=str,
)
def test_only_what_was_trimmed_can_go(kept, change, says):
    with kept.database.write() as connection:
        audit.trim(connection, 2)
    with pytest.raises(Unavailable, match=says), kept.database.write() as connection:
        connection.execute(change)
    assert broken(kept) is None


def test_what_was_changed_and_disturbed_is_part_of_the_chain(kept):
    full = msgspec.structs.replace(entry(kept), diff_sha256="1" * 64, fault_id="flt_1")
    with kept.database.write() as connection:
        audit.append(connection, full)
    assert broken(kept) is None
    unlocked(kept, "UPDATE audit SET fault_id = NULL WHERE seq = 5")
    assert broken(kept) == 5
