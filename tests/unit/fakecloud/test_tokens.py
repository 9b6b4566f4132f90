"""Tokens: 64 characters, seen once, hashed at rest, good for some things and some time."""

from __future__ import annotations

import stat
from datetime import timedelta

import pytest
from sqlalchemy import select

from fakecloud.access import projects, quotas, tokens
from fakecloud.domain import scopes
from fakecloud.errors import NotFound, QuotaExceeded, StartError, TokenExpired, TokenRevoked
from fakecloud.store import tokens as rows
from fakecloud.tables import access as tables

VIEWER = scopes.PRESETS["viewer"]


@pytest.fixture
def authority(cloud):
    projects.Projects(cloud.database, cloud.clock).create("shop", "")
    return tokens.Authority(cloud.database, cloud.clock)


def stored(cloud, id: str):
    with cloud.database.read() as connection:
        return rows.get(connection, "shop", id)


def test_a_token_has_64_letters_and_digits_and_is_never_the_same():
    secrets = {tokens.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(s) == 64 and s.isalnum() and s.isascii() for s in secrets)


def test_a_token_opens_its_project_and_no_other_string_does(authority):
    _, secret = authority.create("shop", "for the shop", VIEWER)
    assert authority.find(secret).project == "shop"
    assert authority.find(secret).scopes == VIEWER
    assert authority.find(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None
    assert authority.find("") is None


def test_a_token_is_remembered_no_longer_than_it_may_be_wrong(authority, cloud):
    """Alone on a database: a minute. Where another server may revoke it: under a second."""
    _, secret = authority.create("shop", "", VIEWER)
    assert authority.remembered(secret) is None
    authority.find(secret)
    cloud.clock.advance(59 if cloud.database.is_sqlite else 0.8)
    assert authority.remembered(secret).project == "shop"
    cloud.clock.advance(2 if cloud.database.is_sqlite else 0.2)
    assert authority.remembered(secret) is None


def test_a_revoked_token_opens_nothing(authority, cloud):
    token, secret = authority.create("shop", "", VIEWER)
    authority.find(secret)
    authority.revoke("shop", token.id)
    authority.forget()
    assert authority.remembered(secret) is None
    with pytest.raises(TokenRevoked, match="was revoked; ask for a new one"):
        authority.find(secret)
    with pytest.raises(NotFound):
        authority.revoke("shop", token.id)


def test_a_look_that_began_before_the_revocation_is_not_remembered(authority, cloud, monkeypatch):
    token, secret = authority.create("shop", "", VIEWER)
    look = rows.find

    def slow(connection, prefix, hash):
        found = look(connection, prefix, hash)
        authority.revoke("shop", token.id)
        authority.forget()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(rows, "find", slow)
        authority.find(secret)
    assert authority.remembered(secret) is None


def test_another_server_hears_of_a_revocation_within_a_second(authority, cloud):
    if cloud.database.is_sqlite:
        pytest.skip("a SQLite file has one server only")
    other = tokens.Authority(cloud.database, cloud.clock)
    token, secret = authority.create("shop", "", VIEWER)
    assert other.find(secret) is not None
    authority.revoke("shop", token.id)
    cloud.clock.advance(1)
    assert other.remembered(secret) is None
    with pytest.raises(TokenRevoked):
        other.find(secret)


def test_a_token_expires_by_business_time_remembered_or_not(authority, cloud):
    until = cloud.clock.now() + timedelta(seconds=10)
    _, secret = authority.create("shop", "", VIEWER, until)
    authority.find(secret)
    cloud.clock.advance(9.9 if cloud.database.is_sqlite else 0.5)
    assert authority.remembered(secret) is not None
    cloud.clock.advance(10)
    with pytest.raises(TokenExpired):
        authority.find(secret)
    if cloud.database.is_sqlite:
        with pytest.raises(TokenExpired, match="expired at 2026-11-23T10:00:10"):
            authority.remembered(secret)


def test_nobody_may_be_project_of_another(authority, cloud):
    token, _ = authority.create("shop", "", VIEWER)
    with pytest.raises(NotFound):
        authority.revoke("default", token.id)
    with pytest.raises(NotFound, match="there is no project 'elsewhere'"):
        authority.create("elsewhere", "", VIEWER)


def test_the_last_use_is_written_by_housekeeping_only(authority, cloud):
    token, secret = authority.create("shop", "", VIEWER)
    authority.find(secret)
    cloud.clock.advance(0.5)
    authority.remembered(secret)
    assert stored(cloud, token.id).last_used_at is None
    authority.save_use()
    assert stored(cloud, token.id).last_used_at == cloud.clock.now()


def test_tokens_are_counted_as_long_as_they_open_something(cloud):
    limited = tokens.Authority(cloud.database, cloud.clock, quotas.Quotas({"tokens": 2}))
    first, _ = limited.create("default", "", VIEWER)
    limited.create("default", "", VIEWER)
    with pytest.raises(QuotaExceeded, match="2 of at most 2 tokens") as refusal:
        limited.create("default", "", VIEWER)
    assert refusal.value.extra == {"metric": "tokens", "limit": 2, "in_use": 2}
    limited.revoke("default", first.id)
    limited.create("default", "", VIEWER)
    with cloud.database.read() as connection:
        used = connection.execute(select(tables.quota.c.used)).scalar_one()
        assert used == rows.count(connection, "default") == 2


def test_tokens_of_the_same_prefix_are_told_apart(authority, cloud):
    """Eight characters find the candidates, the whole hash decides."""
    one, other = "fcSAME00" + "a" * 56, "fcSAME00" + "b" * 56
    authority.add(one, "shop", "one", VIEWER)
    authority.add(other, "shop", "other", VIEWER)
    assert authority.find(one).description == "one"
    assert authority.find(other).description == "other"
    assert authority.find("fcSAME00" + "c" * 56) is None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["viewer", "chaos"], VIEWER | {"chaos"}),
        (["admin"], {"admin"}),
        (["lb:read"], {"lb:read"}),
    ],
)
def test_presets_and_scopes_mix(names, found):
    assert scopes.expand(names) == found


def test_an_unknown_scope_is_named():
    with pytest.raises(ValueError, match="'lb:fly' is no scope; there are admin, audit:read"):
        scopes.expand(["lb:fly"])


def test_every_preset_is_made_of_scopes():
    assert all(preset <= scopes.ALL for preset in scopes.PRESETS.values())


def test_the_first_token_is_in_a_private_file_and_works(authority, cloud, tmp_path):
    path = tmp_path / "new" / "admin.token"
    tokens.ensure_admin(authority, cloud.database, path)
    secret = path.read_text().strip()
    assert len(secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert authority.find(secret).project == "default"


def test_a_token_that_is_there_is_kept_made_valid_and_made_private(authority, cloud, tmp_path):
    path = tmp_path / "admin.token"
    path.write_text("x" * 64 + "\n")
    path.chmod(0o644)
    tokens.ensure_admin(authority, cloud.database, path)
    assert path.read_text() == "x" * 64 + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert authority.find("x" * 64).project == "default"


def test_something_else_in_its_place_is_not_overwritten(authority, cloud, tmp_path):
    path = tmp_path / "admin.token"
    path.write_text("old")
    with pytest.raises(StartError, match="holds something that is not a token"):
        tokens.ensure_admin(authority, cloud.database, path)
    assert path.read_text() == "old"


def test_the_first_token_stays_at_later_starts(authority, cloud, tmp_path):
    path = tmp_path / "admin.token"
    tokens.ensure_admin(authority, cloud.database, path)
    first = path.read_text()
    tokens.ensure_admin(authority, cloud.database, path)
    assert path.read_text() == first


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_token_itself_is_nowhere_in_the_database(authority, cloud, tmp_path):
    path = tmp_path / "admin.token"
    tokens.ensure_admin(authority, cloud.database, path)
    secret = path.read_text().strip().encode()
    cloud.close()
    files = list(tmp_path.glob("cloud.db*"))
    assert files
    for file in files:
        assert secret not in file.read_bytes()
        assert secret[:12] not in file.read_bytes()


def test_a_place_that_cannot_be_written_is_one_line(authority, cloud, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="can't write the token there: Not a directory"):
        tokens.ensure_admin(authority, cloud.database, tmp_path / "file" / "admin.token")


def test_a_token_exists_only_once_its_file_is_written(authority, cloud, tmp_path):
    """A crash between the two would otherwise lock everybody out for good."""
    with pytest.raises(StartError):
        tokens.ensure_admin(authority, cloud.database, tmp_path)  # a directory
    path = tmp_path / "admin.token"
    tokens.ensure_admin(authority, cloud.database, path)
    assert authority.find(path.read_text().strip()) is not None
