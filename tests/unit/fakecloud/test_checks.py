"""What an answer of a target means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fakecloud import model
from fakecloud.domain import checks

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
CHECK = model.HealthCheck(rise=2, fall=3, interval_s=2)
UNKNOWN = checks.ProbeResult(None, "not_probed", START)


def answers(*oks: bool) -> list[bool | None]:
    """Return `healthy` after each of a row of answers, the first to an unknown target."""
    result, contrary, seen = UNKNOWN, 0, []
    for turn, ok in enumerate(oks):
        reason = "http_200" if ok else "http_503"
        now = START + timedelta(seconds=turn)
        result, contrary = checks.judge(result, contrary, ok, reason, CHECK, now)
        seen.append(result.healthy)
    return seen


@pytest.mark.parametrize(
    ("oks", "healthy"),
    [
        pytest.param((True,), (True,), id="first answer decides: healthy"),
        pytest.param((False,), (False,), id="first answer decides: unhealthy"),
        pytest.param((True, False, False, False), (True, True, True, False), id="fall"),
        pytest.param((False, True, True), (False, False, True), id="rise"),
        pytest.param(
            (True, False, False, True, False, False), (True,) * 6, id="an agreeing answer resets"
        ),
    ],
)
def test_health_changes_after_rise_or_fall(
    oks: tuple[bool, ...], healthy: tuple[bool, ...]
) -> None:
    assert tuple(answers(*oks)) == healthy


def test_since_moves_with_health_and_reason_with_the_last_agreeing_answer() -> None:
    down, _ = checks.judge(UNKNOWN, 0, False, "timeout", CHECK, START)
    later = START + timedelta(seconds=4)
    still_down, _ = checks.judge(down, 0, False, "connection_refused", CHECK, later)
    assert still_down == checks.ProbeResult(False, "connection_refused", START)
    doubted, contrary = checks.judge(still_down, 0, True, "http_200", CHECK, later)
    assert (doubted, contrary) == (still_down, 1)


@pytest.mark.parametrize(
    ("interval_s", "contrary", "delay"), [(2, 0, 2.0), (2, 1, 0.5), (10, 2, 2.5), (1, 1, 0.25)]
)
def test_doubt_shortens_the_delay(interval_s: int, contrary: int, delay: float) -> None:
    assert checks.delay_s(model.HealthCheck(interval_s=interval_s), contrary) == delay


@pytest.mark.parametrize(
    ("data", "head"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            checks.Head(200, 38, 5),
            id="length",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", checks.Head(204, 27, 0), id="no content"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", checks.Head(200, 19, None), id="until close"),
        pytest.param(
            b"HTTP/1.1 503 X\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n",
            checks.Head(503, 56, None),
            id="close",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", checks.Head(200, 38, None), id="1.0"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            checks.Head(200, 47, None),
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            checks.Head(200, 63, 0),
            id="interim",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1e9\r\n\r\n",
            checks.Head(200, 40, None),
            id="odd length",
        ),
        pytest.param(b"HT", None, id="first bytes"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", None, id="half a head"),
    ],
)
def test_head_is_parsed(data: bytes, head: checks.Head | None) -> None:
    assert checks.parse_head(data) == head


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1200 OK \r\n\r\n", b"HTTP/2"]
)
def test_other_protocols_are_refused(data: bytes) -> None:
    with pytest.raises(checks.BadResponse):
        checks.parse_head(data)


def test_path_can_not_add_a_header() -> None:
    check = model.HealthCheck(protocol="http", path="/a b\r\nX-Evil: 1\r\n\r\nGET /\u00e9")
    text = checks.request(model.ProbeKey(ip="::1", port=81, check=check))
    lines = text.decode("ascii").split("\r\n")
    assert lines[0] == "GET /a%20b%0D%0AX-Evil:%201%0D%0A%0D%0AGET%20/%C3%A9 HTTP/1.1"
    assert lines[1] == "Host: [::1]:81"
    assert text.count(b"\r\n\r\n") == 1
