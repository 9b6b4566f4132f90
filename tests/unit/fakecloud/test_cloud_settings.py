"""Settings: options over environment over defaults, and where the server may listen."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakecloud import settings
from fakecloud.errors import StartError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    import os

    for name in os.environ:
        if name.startswith("FAKECLOUD_"):
            monkeypatch.delenv(name)


def test_state_goes_below_xdg_state_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    loaded = settings.load()
    assert loaded.database_url == f"sqlite:///{tmp_path}/fakecloud/fakecloud.db"
    assert loaded.admin_token_file == tmp_path / "fakecloud" / "admin.token"


def test_an_option_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("FAKECLOUD_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("FAKECLOUD_WORKERS", "7")
    loaded = settings.load(listen="127.0.0.1:2", workers=None)
    assert (loaded.listen, loaded.workers) == ("127.0.0.1:2", 7)


def test_pools_of_the_environment_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("FAKECLOUD_POOL", "a=loopback:127.1.0.0/16,b=loopback:127.2.0.0/16")
    assert settings.load().pool == ("a=loopback:127.1.0.0/16", "b=loopback:127.2.0.0/16")


def test_several_pool_options_are_kept():
    assert settings.load(pool=["a=loopback:127.1.0.0/16", "b=x"]).pool == (
        "a=loopback:127.1.0.0/16",
        "b=x",
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"workers": 0}, "--workers"),
        ({"workers": "many"}, "--workers"),
        ({"lease_s": 0}, "--lease-s"),
        ({"log_level": "loud"}, "--log-level"),
        ({"event_history": 5}, "--event-history"),
        ({"unheard_of": 1}, "--unheard-of"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_option(options, named):
    with pytest.raises(StartError) as refusal:
        settings.load(**options)
    assert str(refusal.value).startswith(f"{named}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8440", ("127.0.0.1", 8440)),
        ("127.9.9.9:0", ("127.9.9.9", 0)),
        ("localhost:80", ("localhost", 80)),
        ("[::1]:8440", ("::1", 8440)),
    ],
)
def test_loopback_needs_no_protection(listen, expected):
    assert settings.load(listen=listen).address() == expected


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("8440", "is not HOST:PORT"),
        ("127.0.0.1:", "is not HOST:PORT"),
        ("127.0.0.1:http", "is not HOST:PORT"),
        ("127.0.0.1:65536", "is not HOST:PORT"),
        ("127.0.0.1:\u00b2", "is not HOST:PORT"),
        ("example.com:80", "is not an IP address"),
        ("0.0.0.0:8440", "give --tls-cert and --tls-key, or say --insecure-listen"),
        ("[::]:8440", "leaves this machine"),
        (":8440", "is not HOST:PORT"),
    ],
)
def test_what_cannot_be_listened_on_is_refused_with_the_remedy(listen, reason):
    with pytest.raises(StartError) as refusal:
        settings.load(listen=listen).address()
    assert reason in str(refusal.value)


def test_leaving_loopback_is_possible_when_said_or_encrypted():
    everywhere = "0.0.0.0:8440"
    assert settings.load(listen=everywhere, insecure_listen=True).address()[0] == "0.0.0.0"
    tls = {"tls_cert": Path("c.pem"), "tls_key": Path("k.pem")}
    assert settings.load(listen=everywhere, **tls).address() == ("0.0.0.0", 8440)


@pytest.mark.parametrize("given", ["tls_cert", "tls_key"])
def test_half_of_a_certificate_is_refused(given):
    with pytest.raises(StartError, match="--tls-cert and --tls-key belong together"):
        settings.load(listen="0.0.0.0:8440", **{given: Path("x.pem")}).address()
