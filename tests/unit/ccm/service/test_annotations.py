"""The typed table of annotations: what is read, what is refused, what is guessed."""

from __future__ import annotations

import pytest

from ccm import errors
from ccm.service import annotations
from tests import reference


def test_the_reference_is_up_to_date():
    assert reference.FILE.read_text("utf-8") == reference.render(), "run: python -m tests.reference"


def test_names_are_distinct_and_every_default_is_a_value_that_can_be_written():
    assert len({one.name for one in annotations.TABLE}) == len(annotations.TABLE)
    for one in annotations.TABLE:
        if one.default not in (None, "", ()) and not one.default_words:
            assert one.kind.read(str(one.default)) == one.default, one.name


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("fail-open", "T", True),
        ("idle-timeout", "90", 90),
        ("idle-timeout", "2m", 120),
        ("idle-timeout", "90000ms", 90),
        ("http-ports", "80, web", ("80", "web")),
        ("addresses", "fd00:0:0::9,127.77.0.9", ("fd00::9", "127.77.0.9")),
        ("labels", "team=web, stage=", (("team", "web"), ("stage", ""))),
        ("hostname", "web.example.com", "web.example.com"),
        ("algorithm", " source_hash ", "source_hash"),
    ],
)
def test_values_that_are_taken(name, text, value):
    found = annotations.read({f"fakecloud.dev/{name}": text})
    assert found.given == {f"fakecloud.dev/{name}": value}
    assert found.advice == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fail-open", "yes"),
        ("idle-timeout", "0s"),
        ("idle-timeout", "1500ms"),
        ("idle-timeout", "-5"),
        ("max-connections", "4e4"),
        ("max-connections", "40001"),
        ("max-connections", "٣"),
        ("http-ports", ""),
        ("http-ports", "80;443"),
        ("addresses", "10.0.0.1,10.0.0.2"),
        ("addresses", "10.0.0.0/8"),
        ("labels", "team"),
        ("labels", "a=1,a=2"),
        ("hostname", "localhost"),
        ("hostname", "a b.example.com"),
        ("health-check-path", "/x y"),
        ("health-check-path", "/x\nserver evil 1.2.3.4"),
        ("share", "a b"),
    ],
)
def test_b_10_malformed_values_refuse_with_what_they_must_be(name, text):
    with pytest.raises(errors.Rejected, match=f"fakecloud.dev/{name} must be") as caught:
        annotations.read({f"fakecloud.dev/{name}": text})
    assert caught.value.reason == "InvalidAnnotation"


@pytest.mark.parametrize("name", [one.name for one in annotations.TABLE])
def test_b_10_a_refusal_is_short_however_long_the_value(name):
    said = ""
    try:
        annotations.read({name: "a" * 70_000})
    except errors.Rejected as rejected:
        said = str(rejected)
    assert len(said) < 1024, "the event would be cut off before the remedy"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("fakecloud.dev/idle-timout", "fakecloud.dev/idle-timeout"),
        ("fakecloud.dev/proxyprotocol", "fakecloud.dev/proxy-protocol"),
        ("fakecloud.dev/zzz", "docs/annotations.md"),
    ],
)
def test_unknown_names_get_the_nearest(name, meant):
    (advice,) = annotations.read({name: "x"}).advice
    assert advice.reason == "UnknownAnnotation"
    assert meant in advice.text


def test_annotations_of_nobody_here_are_left_alone():
    assert annotations.read({"example.com/x": "1", "kubectl.kubernetes.io/y": "2"}).advice == ()
