"""Budgets and webhooks over the API and both databases."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fakecloud.billing import budgets, events
from fakecloud.billing.quantities import DAY_US
from tests.unit.fakecloud.test_waste import World

DAY = 86_400
SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url)
    yield world
    world.cloud.close()


def put(world: World, name: str = "all", status: int = 201, **more: object) -> dict[str, object]:
    found: dict[str, object] = world.ask(
        "PUT", f"/v1/budgets/{name}", {"amount": "1", "period": "day"} | more, status
    )
    return found


def hear(world: World) -> None:
    world.ask("PUT", "/v1/webhooks/ops", {"url": "http://ops/hook", "secret": SECRET}, 201)


def told(world: World) -> list[dict[str, object]]:
    """Deliver everything; return what was told."""
    before = len(world.cloud.post.sent)
    while world.cloud.spending.webhooks.step():
        pass
    return [json.loads(body)["data"] for _, _, body in world.cloud.post.sent[before:]]


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        ("day", "2026-11-23T12:00", "2026-11-23", "2026-11-24"),
        ("week", "2026-11-23T00:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-22T23:59", "2026-11-16", "2026-11-23"),
        ("month", "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        ("month", "2024-02-29T00:00", "2024-02-01", "2024-03-01"),
    ],
)
def test_periods_are_of_utc_and_weeks_begin_on_monday(period, at, start, end):
    def us(text: str) -> int:
        return events.seconds_us(datetime.fromisoformat(text).replace(tzinfo=UTC))

    assert budgets.window(period, us(at)) == (us(start), us(end))


def test_no_more_periods_are_looked_at_than_asked():
    found = list(budgets.windows("day", 0, 1000 * DAY_US, 62))
    assert len(found) == 62
    assert found[-1] == (1000 * DAY_US, 1001 * DAY_US)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))


def test_a_threshold_is_told_once_in_a_period(world: World) -> None:
    """Five load balancers are 0.1125 as they begin, and 0.1375 for every hour after."""
    for number in range(5):
        world.put(f"lb-{number}")
    hear(world)
    put(world, amount="0.2")
    world.cloud.spending.budgets.step()
    assert [one["threshold"] for one in told(world)] == []
    world.cloud.system.advance(1)
    world.cloud.spending.budgets.step()
    assert [one["threshold"] for one in told(world)] == [50]
    world.cloud.system.advance(2 * 3600)
    world.cloud.spending.budgets.step()
    assert {one["threshold"] for one in told(world)} == {80, 100}
    world.cloud.spending.budgets.step()
    assert told(world) == []
    status = world.ask("GET", "/v1/budgets/all")["status"]
    assert status["exceeded"]
    assert [one["threshold"] for one in status["fired"]] == [50, 80, 100]


def test_a_jump_of_the_clock_skips_no_period(world: World) -> None:
    world.put("web")
    hear(world)
    put(world, amount="0.5", thresholds=[100])
    world.cloud.system.advance(3 * DAY)
    world.cloud.spending.budgets.step()
    days = {str(one["from"])[:10] for one in told(world)}
    assert len(days) == 2  # the two whole days; 0.66 each


def test_a_scope_counts_only_what_has_its_labels(world: World) -> None:
    world.put("k8s-a", "a")
    world.put("mine")
    put(world, "all")
    put(world, "kind", scope={"cluster": "kind"})
    put(world, "other", scope={"cluster": "other"})
    world.cloud.system.advance(3600)
    world.cloud.spending.budgets.step()
    spent = {
        one["name"]: float(one["status"]["spent"])
        for one in world.ask("GET", "/v1/budgets")["items"]
    }
    assert spent["all"] == pytest.approx(2 * spent["kind"])
    assert spent["other"] == 0


def test_a_hard_budget_refuses_new_load_balancers_until_its_period_ends(world: World) -> None:
    world.put("k8s-a", "a")
    world.cloud.system.advance(2 * 3600)
    put(world, amount="0.05", kind="hard", scope={"cluster": "kind"})
    body = {
        "labels": {"cluster": "kind"},
        "spec": {
            "listeners": [{"name": "x", "protocol": "tcp", "port": 80, "target_group": "x"}],
            "target_groups": [{"name": "x", "targets": []}],
        },
    }
    refused = world.ask("PUT", "/v1/load-balancers/more", body, 402)
    assert refused["code"] == "budget_exceeded"
    assert refused["budget"] == "all"
    world.put("elsewhere")
    world.ask("PUT", "/v1/budgets/all", {"amount": "5", "period": "day", "kind": "hard"}, 200)
    world.ask("PUT", "/v1/load-balancers/more", body, 201)
    put(world, "tight", amount="0.01", kind="hard", scope={"cluster": "kind"})
    world.ask("PUT", "/v1/load-balancers/again", body, 402)
    world.cloud.system.advance(DAY)  # nobody has evaluated since
    world.ask("PUT", "/v1/load-balancers/again", body, 201)


def test_a_forecast_is_what_is_there_to_the_periods_end(world: World) -> None:
    world.put("web")
    hear(world)
    put(world, amount="15", period="month", basis="forecast", thresholds=[100])
    found = world.ask("GET", "/v1/budgets/all")["status"]
    assert float(found["spent"]) < 0.1
    assert bool(found["fired"]) is (float(found["forecast"]) >= 15)


def test_news_are_signed_and_sent_again_and_given_up(world: World) -> None:
    world.put("web")
    world.cloud.system.advance(3600)
    hear(world)
    put(world, amount="0.01", thresholds=[100])
    world.cloud.post.answers = ["no route", 500, 302, 500, 500, 500, 500]
    webhooks = world.cloud.spending.webhooks
    for pause in (5, 30, 300, 1800, 7200):
        assert webhooks.step()
        assert not webhooks.step()
        world.cloud.system.advance(pause - 1)
        assert not webhooks.step()
        world.cloud.system.advance(1)
    assert webhooks.step()
    world.cloud.system.advance(DAY)
    assert not webhooks.step()
    sent = world.cloud.post.sent
    assert len(sent) == 6
    assert len({headers["webhook-id"] for _, headers, _ in sent}) == 1
    _, headers, body = sent[-1]
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(b"k" * 24, text, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    (one,) = world.ask("GET", "/v1/webhooks/ops")["deliveries"]
    assert (one["status"], one["attempts"], one["answer"]) == ("FAILED", 6, "HTTP 500")


def test_a_secret_is_seen_once(world: World) -> None:
    path = "/v1/webhooks/ops"
    made = world.ask("PUT", path, {"url": "https://ops/hook"}, 201)
    assert made["secret"].startswith("whsec_")
    again = world.ask("PUT", path, {"url": "https://ops/other"})
    assert again["secret"] is None
    shown = [world.ask("GET", path), world.ask("GET", "/v1/webhooks")]
    assert made["secret"] not in json.dumps(shown)
    with world.cloud.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT secret FROM webhook").scalars().all()
    assert made["secret"] not in rows


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "http://", "http://u:p@x/", "file:///etc/passwd", "http://x:y/", "http://a b/"],
)
def test_other_urls_are_refused(world: World, url: str) -> None:
    world.ask("PUT", "/v1/webhooks/ops", {"url": url}, 422)


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "0"},
        {"amount": "-1"},
        {"amount": "1e9"},
        {"amount": "0.0000001"},
        {"period": "year"},
        {"thresholds": []},
        {"currency": "EUR"},
        {"more": 1},
    ],
)
def test_wrong_budgets_are_refused(world: World, wrong: dict[str, object]) -> None:
    world.put("web")
    world.cloud.system.advance(10)
    status = 400 if "currency" in wrong else 422
    put(world, status=status, **wrong)
    world.ask("GET", "/v1/budgets/all", status=404)


def test_a_hard_budget_over_everything_suspends_the_project(world: World) -> None:
    """T16: listeners stop, the address and the bill stay; the next period goes on by itself."""
    world.put("web")
    world.cloud.system.advance(10)
    before = world.ask("GET", "/v1/load-balancers/web")
    put(world, amount="0.01", kind="hard")
    assert world.ask("GET", "/v1/budgets/all")["status"]["exceeded"]
    body = {"spec": before["spec"] | {"source_ranges": ["10.0.0.0/8"]}, "labels": {}}
    for method, path, wish in (
        ("PUT", "/v1/load-balancers/more", body),
        ("PUT", "/v1/load-balancers/web", body),
        ("PUT", "/v1/load-balancers/web", {"spec": before["spec"], "labels": {"a": "b"}}),
        ("POST", "/v1/addresses", {"name": "spare", "family": "ipv4"}),
        (
            "PUT",
            "/v1/instances/node-1",
            {"addresses": [{"type": "InternalIP", "address": "127.0.3.1"}]},
        ),
        ("PUT", "/v1/networks/pods", {"ranges": ["10.1.0.0/16"]}),
    ):
        refused = world.ask(method, path, wish, 402)
        assert (refused["code"], refused["budget"]) == ("project_suspended", "all")
    world.ask("PUT", "/v1/load-balancers/web", {"spec": before["spec"]}, 200)  # nothing changes
    world.steps()
    stopped = world.ask("GET", "/v1/load-balancers/web")["status"]
    assert (stopped["state"], stopped["operating_state"]) == ("ACTIVE", "SUSPENDED")
    assert stopped["addresses"] == before["status"]["addresses"]
    (said,) = [one for one in stopped["conditions"] if one["type"] == "BillingOK"]
    assert (said["status"], said["reason"]) == ("False", "ProjectSuspended")
    assert not world.cloud.nodes[0].host.desired[stopped["id"]].spec.admin_up
    spent = world.ask("GET", "/v1/budgets/all")["status"]["spent"]
    world.cloud.system.advance(3600)
    world.cloud.spending.budgets.step()
    assert float(world.ask("GET", "/v1/budgets/all")["status"]["spent"]) > float(spent)
    assert world.ask("POST", "/v1/admin:check")["violations"] == []
    world.cloud.system.advance(12 * 3600 - 10)  # midnight
    world.cloud.spending.budgets.step()
    world.steps()
    going = world.ask("GET", "/v1/load-balancers/web")["status"]
    assert (going["state"], going["operating_state"]) == (
        "ACTIVE",
        before["status"]["operating_state"],
    )
    assert [one for one in going["conditions"] if one["type"] == "BillingOK"] == []


def test_a_budget_that_is_raised_or_deleted_lets_the_project_go_on_at_once(world: World) -> None:
    world.put("web")
    world.cloud.system.advance(10)
    world.put("gone")
    put(world, amount="0.01", kind="hard")
    world.ask("DELETE", "/v1/load-balancers/gone", status=202)
    put(world, amount="100", kind="hard", status=200)
    world.steps()
    assert world.ask("GET", "/v1/load-balancers/web")["status"]["operating_state"] == "ONLINE"
    put(world, amount="0.01", kind="hard", status=200)
    world.ask("DELETE", "/v1/budgets/all", status=204)
    world.steps()
    assert world.ask("GET", "/v1/load-balancers/web")["status"]["operating_state"] == "ONLINE"
    world.ask("GET", "/v1/load-balancers/gone", status=404)


def test_what_is_spent_already_is_told_as_the_budget_is_made(world: World) -> None:
    world.put("web")
    world.cloud.system.advance(10)
    made = put(world, amount="0.01", thresholds=[50, 100])
    assert [one["threshold"] for one in made["status"]["fired"]] == [50, 100]
