"""Tokens: 64 characters, seen once, hashed at rest."""

from __future__ import annotations

import stat

import pytest

from fakecloud import tokens
from fakecloud.errors import StartError


@pytest.fixture
def authority(cloud):
    return tokens.Authority(cloud.database, cloud.clock)


def test_a_token_has_64_letters_and_digits_and_is_never_the_same():
    secrets = {tokens.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(s) == 64 and s.isalnum() and s.isascii() for s in secrets)


def test_a_token_opens_its_project_and_no_other_string_does(authority):
    secret = authority.create("shop", "for the shop")
    assert authority.find(secret).project == "shop"
    assert authority.find(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None
    assert authority.find("") is None


def test_a_token_is_remembered_for_a_minute(authority, cloud):
    secret = authority.create("shop", "")
    assert authority.remembered(secret) is None
    authority.find(secret)
    cloud.clock.advance(59)
    assert authority.remembered(secret).project == "shop"
    cloud.clock.advance(2)
    assert authority.remembered(secret) is None


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
