"""The command line client against a cloud of canned answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
from typer.testing import CliRunner, Result

from fakecloud import __main__ as program
from fakecloud.cli import client

LB: dict[str, Any] = {
    "name": "web",
    "labels": {"namespace": "shop", "service": "web"},
    "annotations": {},
    "spec": {"listeners": [{"name": "http", "port": 80, "protocol": "tcp"}]},
    "status": {
        "state": "ACTIVE",
        "operating_state": "DEGRADED",
        "addresses": [{"family": "ipv4", "ip": "127.77.0.1", "pool": "default"}],
        "last_error": None,
        "targets": [
            {"ip": "127.0.3.1", "port": 1, "health": "healthy", "reason": "http_200", "since": "s"},
            {"ip": "127.0.3.2", "port": 1, "health": "unhealthy", "reason": "x\x1b", "since": "s"},
        ],
    },
}
REPORT = {
    "from": "A",
    "to": "B",
    "currency": "USD",
    "price_book": "aws-nlb-us-east-1@1",
    "complete_until": "B",
    "groups": [{"key": {"namespace": None}, "amount": "1.3725", "monthly_run_rate": "16.425"}],
    "total": "1.3725",
    "monthly_run_rate": "16.425",
}

Handler = Callable[[httpx2.Request], httpx2.Response]


class Cloud:
    """Answers by method and path; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[httpx2.Response | Exception]] = {}
        self.asked: list[httpx2.Request] = []

    def on(self, call: str, *answers: Any) -> None:
        """Answer `call` ("GET /path") by each in turn; a plain value is JSON with status 200."""
        made = [
            one if isinstance(one, httpx2.Response | Exception) else httpx2.Response(200, json=one)
            for one in answers
        ]
        self.answers[call] = made

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        path = request.url.raw_path.decode().partition("?")[0]
        answers = self.answers.get(f"{request.method} {path}")
        if not answers:
            return problem(404, "route_not_found", f"no endpoint {path}")
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def problem(status: int, code: str, detail: str) -> httpx2.Response:
    return httpx2.Response(status, json={"code": code, "detail": detail, "status": status})


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    found = Cloud()
    for name in ("FAKECLOUD_URL", "FAKECLOUD_TOKEN_FILE", "FAKECLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FAKECLOUD_TOKEN", "t0ken")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    client = partial(httpx2.Client, transport=httpx2.MockTransport(found.handle))
    monkeypatch.setattr(httpx2, "Client", client)
    return found


def run(*words: str) -> Result:
    return CliRunner().invoke(program.whole(), list(words))


def test_list_is_an_aligned_table_of_all_pages(cloud: Cloud) -> None:
    second = {**LB, "name": "a-much-longer-name", "labels": {}}
    cloud.on(
        "GET /v1/load-balancers",
        {"items": [LB], "next_page_token": "more", "resource_version": "7"},
        {"items": [second], "next_page_token": None, "resource_version": "7"},
    )
    lines = run("lb", "list").stdout.splitlines()
    assert lines[0].split() == [
        "NAME", "STATE", "HEALTH", "ADDRESSES", "PORTS", "TARGETS", "NAMESPACE", "SERVICE",
        "LOCALHOST",
    ]  # fmt: skip
    assert lines[1].split() == [
        "web", "ACTIVE", "DEGRADED", "127.77.0.1", "80/tcp", "1/2", "shop", "web",
    ]  # fmt: skip
    assert {line.index("ACTIVE") for line in lines[1:]} == {lines[0].index("STATE")}
    assert cloud.asked[1].url.params["page_token"] == "more"
    assert cloud.asked[0].headers["authorization"] == "Bearer t0ken"


def test_list_as_json_and_csv(cloud: Cloud) -> None:
    page = {"items": [LB], "next_page_token": None, "resource_version": "7"}
    cloud.on("GET /v1/load-balancers", page, page)
    assert json.loads(run("lb", "list", "-o", "json").stdout) == [LB]
    csv = run("lb", "list", "-o", "csv").stdout
    assert csv.splitlines()[1] == "web,ACTIVE,DEGRADED,127.77.0.1,80/tcp,1/2,shop,web,"


def test_get_shows_targets_and_no_control_characters(cloud: Cloud) -> None:
    cloud.on("GET /v1/load-balancers/web", LB)
    result = run("lb", "get", "web")
    assert "unhealthy" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_name_is_one_path_segment(cloud: Cloud) -> None:
    """Otherwise `lb delete ../x?y` would reach other endpoints."""
    cloud.on("GET /v1/load-balancers/..%2Foperations%3Fx", LB)
    assert run("lb", "get", "../operations?x").exit_code == 0


def test_an_empty_name_is_refused(cloud: Cloud) -> None:
    result = run("lb", "get", "")
    assert (result.exit_code, cloud.asked) == (2, [])


def test_delete_waits_for_the_operation(cloud: Cloud) -> None:
    cloud.on("DELETE /v1/load-balancers/web", {"id": "op_1", "done": False})
    cloud.on("GET /v1/operations/op_1", {"id": "op_1", "done": True})
    result = run("lb", "delete", "web")
    assert (result.exit_code, result.stdout) == (0, "web: deleted\n")


def test_delete_without_waiting(cloud: Cloud) -> None:
    cloud.on("DELETE /v1/load-balancers/web", {"id": "op_1", "done": False})
    assert run("lb", "delete", "web", "--wait", "0").stdout == "web: is being deleted\n"


def test_watch_prints_a_line_per_change(cloud: Cloud) -> None:
    frames = [
        {"type": "ADDED", "resource_version": "1", "kind": "load_balancer", "object": LB},
        {"type": "BOOKMARK", "resource_version": "2", "kind": None, "object": None},
    ]
    text = "".join(json.dumps(frame) + "\n" for frame in frames)
    cloud.on("GET /v1/watch", httpx2.Response(200, text=text), httpx2.Response(200, text=text))
    assert run("lb", "watch").stdout == "ADDED     web  ACTIVE  DEGRADED  127.77.0.1\n"
    assert len(run("lb", "watch", "-o", "json").stdout.splitlines()) == 2
    assert dict(cloud.asked[0].url.params) == {"kinds": "load_balancer", "initial": "true"}


def test_cost_report_as_table_with_total(cloud: Cloud) -> None:
    cloud.on("GET /v1/cost-report", REPORT)
    result = run("cost", "report", "--group-by", "namespace", "--from", "2026-11-01T00:00:00Z")
    assert result.stdout.splitlines() == [
        "NAMESPACE  COST USD  PER MONTH (730 H)",
        "-            1.3725             16.425",
        "total        1.3725             16.425",
        "",
        "A to B, prices of aws-nlb-us-east-1@1",
    ]
    params = cloud.asked[0].url.params
    assert dict(params) == {"from": "2026-11-01T00:00:00Z", "group_by": "namespace"}


def test_cost_report_as_csv_is_the_clouds(cloud: Cloud) -> None:
    cloud.on("GET /v1/cost-report", httpx2.Response(200, text="namespace,amount\nshop,1.00\n"))
    assert run("cost", "report", "-o", "csv").stdout == "namespace,amount\nshop,1.00\n"
    assert cloud.asked[0].url.params["format"] == "csv"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        pytest.param(
            problem(404, "not_found", "no load balancer 'web'"),
            "no load balancer 'web' (not_found)",
            id="problem",
        ),
        pytest.param(httpx2.Response(502, text="<html>"), "HTTP 502", id="no problem document"),
        pytest.param(httpx2.Response(200, text="<html>"), "is not a fakecloud", id="other server"),
        pytest.param(
            httpx2.ConnectError("Connection refused"), "start it with `fakecloud serve`", id="down"
        ),
        pytest.param(httpx2.ReadTimeout(""), "ReadTimeout", id="timeout"),
    ],
)
def test_failures_are_one_line_and_exit_1(
    cloud: Cloud, answer: httpx2.Response | Exception, line: str
) -> None:
    cloud.on("GET /v1/load-balancers/web", answer)
    result = run("lb", "get", "web")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert line in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_refused_watch_is_one_line(cloud: Cloud) -> None:
    cloud.on("GET /v1/watch", problem(410, "watch_expired", "list again"))
    result = run("lb", "watch")
    assert (result.exit_code, result.stderr) == (1, "fakecloud: list again (watch_expired)\n")


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff\xfe"])
def test_a_missing_or_bad_token_file_is_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    monkeypatch.delenv("FAKECLOUD_TOKEN")
    path = tmp_path / "fakecloud" / "admin.token"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    result = run("lb", "list")
    assert (result.exit_code, cloud.asked) == (1, [])
    assert str(path) in result.stderr


@pytest.mark.parametrize("token", ["two words", "t\u00f6ken", "a\nb"])
def test_a_bad_token_in_the_environment_is_one_line(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("FAKECLOUD_TOKEN", token)
    result = run("lb", "list")
    assert (result.exit_code, cloud.asked) == (1, [])
    assert "FAKECLOUD_TOKEN" in result.stderr


def test_the_state_directorys_token_is_the_default(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FAKECLOUD_TOKEN")
    (tmp_path / "fakecloud").mkdir()
    (tmp_path / "fakecloud" / "admin.token").write_text("fromfile\n")
    cloud.on("GET /v1/load-balancers/web", LB)
    assert run("lb", "get", "web", "--url", "http://127.0.0.1:9").exit_code == 0
    assert cloud.asked[0].headers["authorization"] == "Bearer fromfile"
    assert str(cloud.asked[0].url) == "http://127.0.0.1:9/v1/load-balancers/web"


@pytest.mark.parametrize("url", ["nowhere", "http://[::1", "ftp://x", ""])
def test_a_bad_url_is_one_line(cloud: Cloud, url: str) -> None:
    result = run("lb", "list", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("fakecloud: ")
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("words", [("lb", "get"), ("lb", "list", "-o", "xml"), ("lb", "sell")])
def test_wrong_usage_is_exit_2(cloud: Cloud, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("lb", "list"),
        ("lb", "get"),
        ("lb", "watch"),
        ("lb", "delete"),
        ("cost", "report"),
        *itertools.product(("budget", "webhook"), ("put", "list", "get", "delete")),
    ],
)
def test_help_has_an_example(words: tuple[str, ...]) -> None:
    assert f"Example: fakecloud {' '.join(words)}" in run(*words, "--help").stdout


BUDGET: dict[str, Any] = {
    "name": "shop",
    "scope": {"namespace": "shop"},
    "amount": "150.00",
    "currency": "USD",
    "period": "month",
    "kind": "hard",
    "status": {
        "spent": "90.00",
        "forecast": "160.5",
        "fired": [{"threshold": 50, "basis": "actual", "amount": "75.00", "at": "A"}],
    },
}


def test_a_budget_is_put_and_shown(cloud: Cloud) -> None:
    cloud.on("PUT /v1/budgets/shop", BUDGET)
    words = ("--amount", "150", "--kind", "hard", "--scope", "namespace=shop", "--threshold", "50")
    shown = run("budget", "put", "shop", *words, "-o", "csv")
    assert json.loads(cloud.asked[0].content) == {
        "amount": "150", "currency": "USD", "period": "month", "basis": "actual", "kind": "hard",
        "scope": {"namespace": "shop"}, "thresholds": [50],
    }  # fmt: skip
    assert shown.stdout.splitlines() == [
        "name,scope,period,kind,spent,forecast,amount,used,fired",
        "shop,namespace=shop,month,hard,90.00 USD,160.5 USD,150.00 USD,60 %,50 %",
    ]
    assert run("budget", "put", "shop", "--amount", "1", "--scope", "shop").exit_code == 2


def test_a_webhooks_secret_and_deliveries_are_shown(cloud: Cloud, tmp_path: Path) -> None:
    hook = {"name": "ops", "url": "https://ops/", "enabled": True, "created_at": "A"}
    cloud.on("PUT /v1/webhooks/ops", hook | {"secret": "whsec_x"})
    (tmp_path / "secret").write_text("whsec_y\n")
    target = ("--target", "https://ops/", "--secret-file", str(tmp_path / "secret"))
    assert '"secret": "whsec_x"' in run("webhook", "put", "ops", *target, "-o", "json").stdout
    assert json.loads(cloud.asked[0].content)["secret"] == "whsec_y"
    sent = {"id": "msg_1", "type": "budget.threshold_passed", "status": "FAILED", "attempts": 6,
            "answer": "HTTP 500", "created_at": "A"}  # fmt: skip
    cloud.on("GET /v1/webhooks/ops", hook | {"deliveries": [sent]})
    assert "HTTP 500" in run("webhook", "get", "ops").stdout
    cloud.on("GET /v1/webhooks", {"items": [hook]})
    assert "https://ops/" in run("webhook", "list").stdout


def test_a_typed_name_is_one_segment_of_the_path():
    assert client.path("budgets", "shop/../x?y") == "/v1/budgets/shop%2F..%2Fx%3Fy"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_what_a_path_understands_otherwise_is_no_name(name):
    with pytest.raises(typer.BadParameter, match="is not the name of a load balancer"):
        client.path("load-balancers", name, "the name of a load balancer")
