"""Who may do what, once, and what is written down about it: on both databases."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from typer.testing import CliRunner, Result

from fakecloud import __main__ as program
from fakecloud.api import context, mutations
from fakecloud.store import audit, events
from fakecloud.store import tokens as token_rows
from tests.fakes import postgresql
from tests.flows.conftest import CLOCK, Running, document, eventually
from tests.flows.test_refusals import refused

pytestmark = pytest.mark.haproxy

GOOD = document([{"ip": "127.0.9.1", "port": 9000}])
LB = "/v1/load-balancers/web"
PATCH = {"content-type": "application/merge-patch+json"}
OPEN = {"/v1/types", "/v1/regions", "/v1/profiles", "/v1/profiles/{name}", "/v1/clock"}
"""What every token may read: it is the same for all."""


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def life(request, tmp_path_factory, network) -> Iterator[Running]:
    """One cloud for the module on each database."""
    if request.param == "postgresql" and postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with ExitStack() as stack:
        options: dict[str, object] = {}
        if request.param == "postgresql":
            options["database"] = stack.enter_context(postgresql.running()).database()
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-"))
        made = Running(tmp_path_factory.mktemp("requests"), Path(runtime), network, **options)
        made.start()
        stack.callback(made.stop)
        stack.callback(made.clear)
        yield made


@pytest.fixture
def cloud(life) -> Iterator[Running]:
    yield life
    life.clear()


@pytest.fixture
def token(cloud) -> Iterator[Callable[..., httpx2.Client]]:
    """Return a function that makes a token and gives a client with it."""
    clients: list[httpx2.Client] = []

    def make(*scopes: str, **more: Any) -> httpx2.Client:
        headers = more.pop("headers", {})
        made = cloud.http.post("/v1/tokens", json={"scopes": scopes, **more}, headers=headers)
        assert made.status_code == 201, made.text
        bearer = {"authorization": f"Bearer {made.json()['secret']}"}
        clients.append(httpx2.Client(base_url=cloud.url, headers=bearer, timeout=10))
        clients[-1].id = made.json()["id"]
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def records(cloud: Running, **headers: str) -> list[dict[str, Any]]:
    """Return the whole audit record."""
    found: list[dict[str, Any]] = []
    page: str | None = None
    while True:
        asked = {"page_size": 100} | ({"page_token": page} if page else {})
        answer = cloud.http.get("/v1/audit", params=asked, headers=headers).json()
        found += answer["items"]
        page = answer["next_page_token"]
        if page is None:
            return found


def in_use(cloud: Running, metric: str) -> int:
    items = cloud.http.get("/v1/quotas").json()["items"]
    return next(one["in_use"] for one in items if one["metric"] == metric)


# Tokens and projects


@pytest.mark.parametrize(
    ("preset", "method", "path", "scope"),
    [
        ("viewer", "PUT", LB, "lb:write"),
        ("viewer", "PATCH", LB, "lb:write"),
        ("viewer", "DELETE", LB, "lb:write"),
        ("ccm", "GET", "/v1/cost-report", "billing:read"),
        ("ccm", "GET", "/v1/tokens", "token:admin"),
        ("ccm", "POST", "/v1/chaos/faults", "chaos"),
        ("tester", "GET", "/v1/audit", "audit:read"),
        ("tester", "POST", "/v1/projects", "project:admin"),
        ("chaos", "GET", LB, "lb:read"),
        ("chaos", "GET", "/v1/operations", "op:read"),
        ("chaos", "GET", "/v1/watch", "watch"),
    ],
)
def test_a_token_may_do_what_its_scopes_say(cloud, token, preset, method, path, scope):
    body = {} if method in ("GET", "DELETE") else {"json": GOOD}
    found = refused(token(preset).request(method, path, **body), 403, "scope_missing")
    assert repr(scope) in found["detail"]


def test_the_presets_are_enough_for_their_work(cloud, token):
    ccm, viewer = token("ccm"), token("viewer")
    assert ccm.put(LB, json=GOOD).status_code == 201
    assert viewer.get(LB).status_code == viewer.get("/v1/cost-report").status_code == 200
    assert token("tester").get("/v1/chaos/faults").status_code == 200
    assert ccm.delete(LB).status_code == 202


def test_nobody_gives_what_he_has_not(cloud, token):
    maker = token("token:admin", "lb:read")
    assert maker.post("/v1/tokens", json={"scopes": ["lb:read"]}).status_code == 201
    for more in (["lb:write"], ["admin"], ["viewer"]):
        refused(maker.post("/v1/tokens", json={"scopes": more}), 403, "scope_missing")


def test_a_revoked_token_is_of_no_use_at_once(cloud, token):
    one = token("viewer")
    assert one.get("/v1/load-balancers").status_code == 200
    assert cloud.http.delete(f"/v1/tokens/{one.id}").status_code == 204
    refused(one.get("/v1/load-balancers"), 401, "token_revoked")
    refused(cloud.http.delete(f"/v1/tokens/{one.id}"), 404, "not_found")
    assert cloud.http.get(f"/v1/tokens/{one.id}").json()["revoked_at"]
    assert one.id not in {t["id"] for t in cloud.http.get("/v1/tokens").json()["items"]}


def test_an_expired_token_is_of_no_use(cloud, token):
    soon = (CLOCK.now() + timedelta(seconds=0.5)).isoformat()
    one = token("viewer", expires_at=soon)
    assert one.get("/v1/load-balancers").status_code == 200
    eventually(lambda: one.get("/v1/load-balancers").status_code == 401, 3)
    refused(one.get("/v1/load-balancers"), 401, "token_expired")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["lb:fly"]}, "/scopes"),
        ({"scopes": ["viewer"], "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"scopes": ["viewer"], "expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
        ({"scopes": ["viewer"], "expires_at": "9999-12-31T23:59:59-10:00"}, "/expires_at"),
        ({"scopes": ["viewer"], "description": "a\u0000b"}, "/description"),
        ({"scopes": ["viewer"], "project": "x"}, "/project"),
    ],
)
def test_a_wrong_token_is_named(cloud, body, pointer):
    found = refused(cloud.http.post("/v1/tokens", json=body), 422, "validation_failed")
    assert [one["pointer"] for one in found["errors"]] == [pointer]


def test_a_secret_is_seen_once_and_stored_nowhere(cloud):
    key = {"idempotency-key": "make-one"}
    made = cloud.http.post("/v1/tokens", json={"scopes": ["viewer"]}, headers=key)
    again = cloud.http.post("/v1/tokens", json={"scopes": ["viewer"]}, headers=key)
    secret = made.json()["secret"]
    assert made.headers["cache-control"] == "no-store"
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == made.json() | {"secret": None}
    shown = cloud.http.get(f"/v1/tokens/{made.json()['id']}").text
    assert secret not in shown + cloud.http.get("/v1/tokens").text
    assert secret[:8] in shown


def test_projects_do_not_see_each_other(cloud, token):
    """What another project has looks exactly like what isn't there."""
    assert cloud.http.post("/v1/projects", json={"id": "shop"}).status_code == 201
    there = {"x-project": "shop"}
    shop = token("ccm", "token:admin", "audit:read", headers=there)
    try:
        cloud.put("web", GOOD)
        operation = cloud.get("web")["status"]["operation"]
        for path in (LB, f"/v1/operations/{operation}", f"/v1/tokens/{shop.id}x"):
            refused(shop.get(path), 404, "not_found")
        refused(shop.delete(LB), 404, "not_found")
        assert shop.get("/v1/load-balancers").json()["items"] == []
        assert shop.put(LB, json=GOOD).status_code == 201, "names are each project's own"
        assert shop.get(LB).json()["status"]["id"] != cloud.get("web")["status"]["id"]
        seen = [
            one.json()["status"]["id"] for one in (cloud.http.get(LB, headers=there), shop.get(LB))
        ]
        assert seen[0] == seen[1]
        mine = {one["path"] for one in shop.get("/v1/audit").json()["items"]}
        assert mine == {"/v1/tokens", LB}
        # Only an administrator is told of other projects, and of their absence.
        other = refused(shop.get(LB, headers={"x-project": "default"}), 404, "not_found")
        absent = refused(shop.get(LB, headers={"x-project": "absent"}), 404, "not_found")
        assert other["detail"].replace("default", "absent") == absent["detail"]
        refused(cloud.http.get(LB, headers={"x-project": "absent"}), 404, "not_found")
        refused(cloud.http.delete("/v1/projects/shop"), 409, "in_use")
    finally:
        shop.delete(LB)
        eventually(lambda: shop.get(LB).status_code == 404)
        cloud.http.delete(f"/v1/tokens/{shop.id}", headers=there)
    assert cloud.http.delete("/v1/projects/shop").status_code == 204
    refused(cloud.http.get(LB, headers=there), 404, "not_found")


def test_a_project_is_made_once(cloud):
    assert cloud.http.post("/v1/projects", json={"id": "once"}).status_code == 201
    refused(cloud.http.post("/v1/projects", json={"id": "once"}), 409, "name_in_use")
    found = [one["id"] for one in cloud.http.get("/v1/projects").json()["items"]]
    assert found == ["default", "once"]
    pages = cloud.http.get("/v1/projects", params={"page_size": 1}).json()
    rest = {"page_size": 1, "page_token": pages["next_page_token"]}
    assert cloud.http.get("/v1/projects", params=rest).json()["items"][0]["id"] == "once"
    assert cloud.http.delete("/v1/projects/once").status_code == 204
    refused(cloud.http.get("/v1/projects/once"), 404, "not_found")


def test_authorisation_is_from_memory_once_it_is_warm(cloud, token, monkeypatch):
    """A read asks the database for the resource, never again for who asks."""
    one = token("viewer")
    looks: list[str] = []
    find = token_rows.find
    monkeypatch.setattr(token_rows, "find", lambda *a: looks.append("") or find(*a))
    for _ in range(20):
        assert one.get("/v1/load-balancers").status_code == 200
    assert 1 <= len(looks) <= 2, "PostgreSQL: once a second"


# Every route declares what it needs


def routes(app: FastAPI) -> list[RouteContext]:
    """Return every route of the API, with what the routers around it add."""
    found = list(iter_route_contexts(app.routes))
    return [route for route in found if route.path.startswith("/v1/")]


def depends(dependant: Any) -> Iterator[Any]:
    """Yield everything that a route depends on."""
    for inner in dependant.dependencies:
        yield inner.call
        yield from depends(inner)


def test_every_route_says_which_scope_it_needs(cloud):
    found = routes(cloud.app)
    assert len(found) > 20
    for route in found:
        needed = set(depends(route.dependant))
        assert context.caller in needed, f"{route.path} asks nobody who is calling"
        if route.path not in OPEN or route.methods != {"GET"}:
            assert any(isinstance(one, context.Needs) for one in needed), route.path


def test_every_change_is_a_mutation(cloud):
    """Whoever changes something without the wrapper has no key, no record, no transaction."""
    changes = [one for one in routes(cloud.app) if one.methods & {"PUT", "POST", "PATCH", "DELETE"}]
    assert len(changes) >= 9
    reading = {"/v1/load-balancers:batchGet", "/v1/operations:batchGet", "/v1/costs/preview"}
    reading |= {"/v1/admin:check", "/v1/admin:export", "/v1/snapshots/{id}:restore"}
    for route in changes:
        if route.path not in reading:
            assert mutations._mutation in set(depends(route.dependant)), route.path


# Idempotency keys


def test_a_repetition_gets_the_first_answer_and_does_nothing(cloud):
    key = {"idempotency-key": '"first"'}
    made = cloud.put("web", GOOD, headers=key)
    before = in_use(cloud, "load_balancers"), len(records(cloud))
    again = cloud.put("web", GOOD, headers={"idempotency-key": "first"})
    assert made.status_code == again.status_code == 201
    assert made.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in made.headers
    for name in ("etag", "location", "operation-location"):
        assert made.headers[name] == again.headers[name]
    assert again.headers["x-request-id"] != made.headers["x-request-id"]
    assert (in_use(cloud, "load_balancers"), len(records(cloud))) == before


def test_a_repetition_after_the_end_still_gets_its_answer(cloud):
    """The natural retry of DELETE is 404 by then; with the key it is what was lost."""
    cloud.put("web", GOOD)
    key = {"idempotency-key": "gone"}
    gone = cloud.http.delete(LB, headers=key)
    eventually(lambda: cloud.http.get(LB).status_code == 404)
    again = cloud.http.delete(LB, headers=key)
    assert (again.status_code, again.json()) == (202, gone.json())


@pytest.mark.parametrize(
    "change",
    [
        lambda http, key: http.put(LB, json=document([], port=81), headers=key),
        lambda http, key: http.put("/v1/load-balancers/other", json=GOOD, headers=key),
        lambda http, key: http.delete(LB, headers=key),
        lambda http, key: http.put(LB, json=GOOD, headers={**key, "if-match": '"1"'}),
    ],
    ids=["body", "path", "method", "if-match"],
)
def test_a_key_is_for_one_request(cloud, change, request):
    key = {"idempotency-key": f"one-{request.node.name}"}
    cloud.put("web", GOOD, headers=key)
    before = cloud.get("web")["status"]["generation"]
    refused(change(cloud.http, key), 422, "idempotency_key_reused")
    assert cloud.get("web")["status"]["generation"] == before


def test_the_same_meaning_is_the_same_request(cloud):
    """Order of keys and white space are no difference."""
    key = {"idempotency-key": "order", "content-type": "application/json"}
    made = cloud.http.put(
        LB, content=b'{"labels": {}, "spec": {"listeners": [], "target_groups": []}}', headers=key
    )
    again = cloud.http.put(
        LB, content=b'{"spec":{"target_groups":[],"listeners":[]},"labels":{}}', headers=key
    )
    assert made.status_code == again.status_code == 201, again.text
    assert again.headers["idempotency-replayed"] == "true"


def test_a_refusal_is_not_kept(cloud):
    """What was wrong may be right by the next time."""
    key = {"idempotency-key": "later"}
    refused(cloud.http.delete(LB, headers=key), 404, "not_found")
    cloud.put("web", GOOD)
    assert cloud.http.delete(LB, headers=key).status_code == 202


@pytest.mark.parametrize("key", ["", '"', '""', '"a"b"', "x" * 256, "a\tb", "é".encode("latin-1")])
def test_an_unusable_key_is_refused(cloud, key):
    answer = cloud.put("web", GOOD, headers={"idempotency-key": key})
    refused(answer, 400, "idempotency_key_invalid")
    refused(cloud.http.get(LB), 404, "not_found")


def test_an_escaped_key_is_the_plain_one(cloud):
    cloud.put("web", GOOD, headers={"idempotency-key": r'"a\"b\\c"'})
    again = cloud.put("web", GOOD, headers={"idempotency-key": r'a"b\c'})
    assert again.headers["idempotency-replayed"] == "true"


def test_of_many_at_once_one_is_done(cloud):
    """Nobody sees another answer, and there is one load balancer, one address, one record."""
    before = len(records(cloud))
    key = {"idempotency-key": "rush"}

    def put(_number: int) -> httpx2.Response:
        return cloud.put("web", GOOD, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(put, range(8)))
    done = [one for one in answers if one.status_code == 201]
    waiting = [one for one in answers if one.status_code == 409]
    assert len(done) + len(waiting) == 8
    assert {one.json()["code"] for one in waiting} <= {"idempotency_in_progress"}
    assert len({one.text for one in done}) == 1
    assert sum("idempotency-replayed" not in one.headers for one in done) == 1
    assert len(records(cloud)) == before + 1


def test_a_writer_in_the_way_is_no_second_execution(cloud):
    """PostgreSQL: with a key the answer is that one may be under way, without it a plain 503."""
    if cloud.app.state.cloud.database.is_sqlite:
        pytest.skip("writers of SQLite are all in this process")
    url = cloud.app.state.cloud.database.url.set(drivername="postgresql")
    with ThreadPoolExecutor(2) as pool, psycopg.connect(url.render_as_string(False)) as slow:
        slow.execute("SELECT value FROM version FOR UPDATE")
        keyed = pool.submit(cloud.put, "web", GOOD, headers={"idempotency-key": "slow"})
        plain = pool.submit(cloud.put, "web", GOOD)
        found = refused(keyed.result(), 409, "idempotency_in_progress")
        assert found["retryable"]
        refused(plain.result(), 503, "unavailable")
    assert cloud.put("web", GOOD, headers={"idempotency-key": "slow"}).status_code == 201


class Undone(Exception):
    """Ends a transaction that was only to be in the way."""


def test_requests_of_one_commit_have_a_record_each_but_for_what_was_already_so(cloud):
    """The hash of a record is of the request's own events; an unchanged one leaves none."""
    cloud.put("same", GOOD)
    start = len(records(cloud))
    names = ("first", "a", "same", "b", "c")
    app = cloud.app.state.cloud
    with ThreadPoolExecutor(len(names)) as pool:
        with suppress(Undone), app.database.write() as connection:
            events.next_version(connection)
            asked = {}
            for n, name in enumerate(names):
                asked[name] = pool.submit(cloud.put, name, GOOD)
                eventually(lambda n=n: app.writer._writing and len(app.writer._waiting) == n)
            raise Undone
        answers = {name: future.result() for name, future in asked.items()}
    assert [one.status_code for one in answers.values()] == [201, 201, 200, 201, 201]
    found = {one["path"].rpartition("/")[2]: one for one in records(cloud)[start:]}
    assert found.keys() == {"first", "a", "b", "c"}
    for name, record in found.items():
        assert record["request_id"] == answers[name].headers["x-request-id"]
    assert len({one["diff_sha256"] for one in found.values()} - {None}) == len(found)


def test_a_plain_put_is_answered_as_any_other(cloud):
    """It takes a shorter way through the server than one with a condition, for instance."""
    created = [
        cloud.put("plain", GOOD),
        cloud.put("special", GOOD, headers={"if-none-match": "*"}),
    ]
    again = [cloud.put("plain", GOOD), cloud.put("special", GOOD, headers={"if-match": "*"})]
    for plain, special in (created, again):
        assert plain.status_code == special.status_code
        assert set(plain.headers) == set(special.headers)
        shown, other = plain.json(), special.json()
        assert shown.keys() == other.keys()
        assert (shown["labels"], shown["spec"]) == (other["labels"], other["spec"])
        assert shown["status"].keys() == other["status"].keys()
    kinds = ("method", "status", "token_id", "client", "body_sha256")
    last = [[one[kind] for kind in kinds] for one in records(cloud)[-2:]]
    assert last[0] == last[1]


@pytest.mark.parametrize("path", ["/v1/load-balancers/With_Case", "/v1/load-balancers/a/b"])
def test_a_plain_put_to_no_place_is_refused_by_the_handler(cloud, path):
    answer = cloud.http.put(path, json=GOOD)
    assert answer.status_code in (400, 404, 405), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("fence", ["lease", "cluster/lease:-1", f"cluster/lease:{'9' * 30}"])
def test_an_unusable_fence_is_refused_whichever_way_the_request_takes(cloud, fence):
    """A plain PUT passes another door than the rest; the token is known after the first."""
    assert cloud.put("fenced", GOOD).status_code == 201
    headers = {"fakecloud-fence": fence}
    for answer in (
        cloud.put("fenced", GOOD, headers=headers),
        cloud.put("fenced", GOOD, headers=headers | {"if-match": "*"}),
        cloud.http.delete("/v1/load-balancers/fenced", headers=headers),
    ):
        assert "NAME:NUMBER" in refused(answer, 400, "fence_invalid")["detail"]


# Audit


def test_every_change_is_on_record_done_or_refused(cloud, token):
    viewer = token("viewer")
    start = len(records(cloud))
    body = httpx2.Request("PUT", "http://x", json=GOOD).content
    answers = [
        cloud.put("web", GOOD),
        cloud.put("web", GOOD),  # nothing changes: no record
        cloud.put("web", document([], port=81), headers={"if-match": '"9"'}),
        viewer.delete(LB),
        cloud.put("web", {"spec": 1}),
        cloud.http.put(LB, content=b"{", headers={"content-type": "application/json"}),
        cloud.http.put(LB, content=b"x", headers={"content-type": "text/plain"}),
        cloud.http.get(LB),  # no change: no record
        cloud.http.delete(LB),
    ]
    found = records(cloud)[start:]
    assert [(one["method"], one["status"], one["code"]) for one in found] == [
        ("PUT", 201, None),
        ("PUT", 412, "precondition_failed"),
        ("DELETE", 403, "scope_missing"),
        ("PUT", 422, "validation_failed"),
        ("PUT", 400, "malformed_json"),
        ("PUT", 415, "unsupported_media_type"),
        ("DELETE", 202, None),
    ]
    assert [one["request_id"] for one in found] == [
        answers[i].headers["x-request-id"] for i in (0, 2, 3, 4, 5, 6, 8)
    ]
    assert {one["path"] for one in found} == {LB}
    assert found[0]["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert found[2]["token_id"] == viewer.id != found[0]["token_id"]
    with cloud.app.state.cloud.database.read() as connection:
        assert audit.broken(connection) is None


def test_a_record_says_what_was_changed_and_what_disturbed_it(cloud):
    start = len(records(cloud))
    fault = cloud.http.post(
        "/v1/chaos/faults",
        json={"layer": "api", "action": {"type": "drop_after_commit"}, "match": {"route": LB}},
    ).json()["id"]
    with pytest.raises(httpx2.RemoteProtocolError):
        cloud.put("web", GOOD)
    cloud.http.post("/v1/chaos:reset")
    other = {**GOOD, "labels": {"team": "b"}}
    assert cloud.put("web", other).is_success
    made, dropped, _, relabeled = records(cloud)[start:]
    assert (dropped["path"], dropped["status"], dropped["fault_id"]) == (LB, 201, fault)
    assert (made["fault_id"], relabeled["fault_id"]) == (None, None)
    assert made["diff_sha256"] is None, "faults have no events"
    first, second = dropped["diff_sha256"], relabeled["diff_sha256"]
    assert len(first) == len(second) == 64
    assert first != second


def test_who_is_not_let_in_is_on_record_where_it_is_known_for_whom(cloud, token):
    one = token("ccm")
    cloud.http.delete(f"/v1/tokens/{one.id}")
    start = len(records(cloud))
    secret = one.headers["authorization"].removeprefix("Bearer ")

    def delete(secret: str) -> int:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx2.delete(f"{cloud.url}{LB}", headers=headers).status_code

    assert [delete(secret), delete(secret[:8] + "x" * 56), delete("y" * 64)] == [401] * 3
    found = [(r["token_id"], r["status"], r["code"]) for r in records(cloud)[start:]]
    assert found == [(one.id, 401, "token_revoked"), (one.id, 401, "unauthenticated")]


def test_strict_handling_refuses_what_overwrites_blindly(cloud):
    strict = {"prefer": "handling=strict"}
    refused(cloud.put("web", GOOD, headers=strict), 412, "precondition_failed")
    made = cloud.put("web", GOOD, headers=strict | {"if-none-match": "*"})
    assert (made.status_code, made.headers["preference-applied"]) == (201, "handling=strict")
    for method in ("PATCH", "DELETE"):
        how = {"json": {"labels": {}}} if method == "PATCH" else {}
        headers = strict | (PATCH if method == "PATCH" else {})
        refused(cloud.http.request(method, LB, headers=headers, **how), 412, "precondition_failed")
    ready = cloud.put("web", GOOD | {"labels": {"a": "b"}}, headers={"prefer": "wait=20"})
    assert ready.status_code == 200
    assert ready.headers["preference-applied"] == "wait=20"
    tag = {"if-match": cloud.http.get(LB).headers["etag"]}
    assert cloud.http.delete(LB, headers=strict | tag).status_code == 202


def test_a_change_that_fails_late_leaves_only_the_refusal(cloud):
    """Row, event, counter, key and record go together."""
    start, counted = len(records(cloud)), in_use(cloud, "load_balancers")
    version = cloud.http.get("/v1/load-balancers").json()["resource_version"]
    twice = [{"ip": f"{cloud.network}.9.1", "pool": "tiny"}]
    cloud.put("web", document([], addresses=twice))
    key = {"idempotency-key": "late"}
    refused(cloud.put("b", document([], addresses=twice), headers=key), 409, "address_in_use")
    assert [one["status"] for one in records(cloud)[start:]] == [201, 409]
    assert in_use(cloud, "load_balancers") == counted + 1
    assert int(version) < int(cloud.get("web")["status"]["resource_version"])


# Quotas


def test_a_limit_holds_until_it_is_raised(cloud):
    limit = "/v1/quotas/default/load_balancers"
    try:
        assert cloud.http.put(limit, json={"limit": 1}).json()["limit"] == 1
        assert cloud.put("web", GOOD).status_code == 201
        found = refused(cloud.put("b", GOOD), 403, "quota_exceeded")
        assert (found["metric"], found["limit"], found["in_use"]) == ("load_balancers", 1, 1)
        cloud.http.put(limit, json={"limit": 2})
        assert cloud.put("b", GOOD).status_code == 201
    finally:
        assert cloud.http.put(limit, json={"limit": None}).json()["limit"] is None
    cloud.clear()
    assert in_use(cloud, "load_balancers") == 0


def test_quotas_are_for_administrators_and_things_that_exist(cloud, token):
    asked = {"json": {"limit": 1}}
    refused(token("ccm").put("/v1/quotas/default/tokens", **asked), 403, "scope_missing")
    refused(cloud.http.put("/v1/quotas/absent/tokens", **asked), 404, "not_found")
    refused(cloud.http.put("/v1/quotas/default/cars", **asked), 404, "not_found")
    refused(
        cloud.http.put("/v1/quotas/default/tokens", json={"limit": -1}), 422, "validation_failed"
    )


def test_watches_are_limited_while_they_last(cloud):
    limit = "/v1/quotas/default/watches"
    try:
        cloud.http.put(limit, json={"limit": 1})
        with cloud.http.stream("GET", "/v1/watch") as stream:
            lines = stream.iter_lines()
            next(lines)
            assert in_use(cloud, "watches") == 1
            refused(cloud.http.get("/v1/watch"), 429, "too_many_watches")
        eventually(lambda: in_use(cloud, "watches") == 0)
        with cloud.http.stream("GET", "/v1/watch") as again:
            assert again.status_code == 200
    finally:
        cloud.http.put(limit, json={"limit": None})


# PATCH


def test_a_patch_changes_only_what_it_names(cloud):
    before = cloud.active("web", GOOD)
    labels = cloud.http.patch(LB, json={"labels": {"team": None, "tier": "1"}}, headers=PATCH)
    assert (labels.status_code, labels.json()["labels"]) == (200, {"tier": "1"})
    assert labels.json()["spec"] == before["spec"]
    assert labels.json()["status"]["generation"] == before["status"]["generation"]
    spec = {"spec": {"deletion_protection": True}}
    changed = cloud.http.patch(LB, json=spec, headers=PATCH)
    assert changed.status_code == 202
    assert changed.json()["spec"] == before["spec"] | {"deletion_protection": True}
    assert changed.json()["status"]["generation"] == before["status"]["generation"] + 1
    assert changed.headers["operation-location"]
    same = cloud.http.patch(LB, json=spec, headers=PATCH, params={"wait": "10s"})
    assert same.json()["status"]["generation"] == changed.json()["status"]["generation"]
    by_id = f"/v1/load-balancers/{before['status']['id']}"
    off = {"spec": {"deletion_protection": None}}
    last = cloud.http.patch(by_id, json=off, headers=PATCH, params={"wait": "10s"})
    assert (last.status_code, last.json()["status"]["state"]) == (200, "ACTIVE")
    assert last.json()["spec"] == before["spec"], "null is back to the default"


def test_a_wrong_patch_is_refused_like_a_wrong_put(cloud):
    cloud.put("web", GOOD)
    ok = {"spec": {"admin_up": False}}
    refused(cloud.http.patch("/v1/load-balancers/none", json=ok, headers=PATCH), 404, "not_found")
    refused(cloud.http.patch(LB, json=ok), 415, "unsupported_media_type")
    tagged = PATCH | {"if-match": '"7"'}
    refused(cloud.http.patch(LB, json=ok, headers=tagged), 412, "precondition_failed")
    refused(cloud.http.patch(LB, json=[], headers=PATCH), 422, "validation_failed")
    for patch, pointer in (
        ({"spec": {"listeners": [{"name": "a"}]}}, "/spec/listeners/0/protocol"),
        ({"spec": {"colour": "red"}}, "/spec/colour"),
        ({"spec": None}, "/spec"),
        ({"labels": "x"}, "/labels"),
    ):
        found = refused(cloud.http.patch(LB, json=patch, headers=PATCH), 422, "validation_failed")
        assert pointer in [one["pointer"] for one in found["errors"]]
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    refused(cloud.http.patch(LB, json=deep, headers=PATCH), 422, "validation_failed")
    assert cloud.get("web")["status"]["generation"] == 1


def test_patches_at_the_same_time_all_count(cloud):
    cloud.put("web", GOOD)

    def label(number: int) -> int:
        patch = {"labels": {f"l{number}": "x"}}
        return cloud.http.patch(LB, json=patch, headers=PATCH).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(label, range(8))) <= {200, 201}
    assert set(cloud.get("web")["labels"]) == {"team", *(f"l{n}" for n in range(8))}


# What every answer carries


@pytest.mark.parametrize("path", ["/healthz", "/v1/load-balancers", LB, "/v1/x", "/v1/watch?a=1"])
def test_every_answer_has_an_id_and_the_time(cloud, path):
    answer = cloud.http.get(path, headers={"x-request-id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]
    sent = datetime.fromisoformat(answer.headers["fakecloud-time"])
    assert abs((CLOCK.now() - sent).total_seconds()) < 60
    assert answer.headers["fakecloud-version"]
    assert "ratelimit" not in answer.headers


def test_a_token_that_asks_too_fast_is_told_when_to_go_on(new_cloud):
    cloud = new_cloud("limited", rate_limit=60)
    first = cloud.http.get(LB)
    assert first.headers["ratelimit-policy"] == '"default";q=60;w=60;qu="requests"'
    assert first.headers["ratelimit"] == '"default";r=59;t=1'
    answers = [cloud.http.get("/v1/load-balancers") for _ in range(14)]
    last = answers[-1]
    refused(last, 429, "rate_limited")
    assert 1 <= int(last.headers["retry-after"]) <= 5
    assert last.json()["retryable"]
    assert last.json()["retry_after_ms"] == int(last.headers["retry-after"]) * 1000
    assert last.headers["ratelimit"].startswith('"default";r=')
    assert cloud.http.get("/healthz").status_code == 200
    cloud.app.state.cloud.rate_limiter._buckets.clear()  # so that the cloud can be cleared


# The command line


@pytest.fixture
def command(cloud) -> Callable[..., Result]:
    """Return a function that runs `fakecloud …` against the cloud."""
    environment = {"FAKECLOUD_URL": cloud.url, "FAKECLOUD_TOKEN": cloud.token}

    def run(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(program.whole(), arguments, env=environment | more)

    return run


def test_tokens_by_the_command_line(cloud, command):
    made = command("token", "create", "viewer", "chaos", "--expires-in", "30d")
    secret, told = made.stdout.strip(), made.stderr
    assert len(secret) == 64, "alone on standard output, to go into a file"
    id = told.split()[1].rstrip(":")
    assert command("lb", "list", FAKECLOUD_TOKEN=secret).exit_code == 0
    listed = json.loads(command("token", "list", "-o", "json").stdout)
    mine = next(one for one in listed if one["id"] == id)
    until = datetime.fromisoformat(mine["expires_at"]) - CLOCK.now()
    assert timedelta(days=29) < until <= timedelta(days=30)
    assert id in command("token", "list").stdout
    assert "billing:read,cert:read,chaos" in command("token", "list", "-o", "csv").stdout
    assert command("token", "revoke", id).stdout == f"{id}: revoked\n"
    assert "was revoked" in command("lb", "list", FAKECLOUD_TOKEN=secret).stderr
    assert command("token", "create", "viewer", "--expires-in", "soon").exit_code == 2
    failed = command("token", "create", "fly")
    assert (failed.exit_code, "'fly' is no scope" in failed.stderr) == (1, True)


def test_projects_by_the_command_line(cloud, command):
    assert command("project", "create", "cli", "--description", "x").stdout == "cli: made\n"
    assert "cli" in command("project", "list").stdout
    made = json.loads(command("token", "create", "ccm", "--project", "cli", "-o", "json").stdout)
    held = command("project", "delete", "cli")
    assert (held.exit_code, "still has tokens" in held.stderr) == (1, True)
    assert command("token", "revoke", made["id"], "--project", "cli").exit_code == 0
    assert command("project", "delete", "cli").stdout == "cli: deleted\n"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/load-balancers?filter=name%3D%22%00%22", None),
        ("GET", "/v1/chaos/log?fault=%00", None),
        ("GET", "/v1/invoices/%00", None),
        ("PUT", "/v1/quotas/%00/load_balancers", {"limit": 1}),
        ("PUT", "/v1/instances/nul", {"zone": "a\0b"}),
        ("POST", "/v1/load-balancers:batchGet", {"names": ["a\0b"]}),
        ("POST", "/v1/operations:batchGet", {"ids": ["a\0b"]}),
    ],
)
def test_a_character_that_the_database_cannot_hold_is_no_trouble_of_the_database(
    cloud: Running, method: str, path: str, body: Any
) -> None:
    """PostgreSQL refuses NUL in texts; the answer must not be 503: repeating can't help."""
    assert cloud.http.request(method, path, json=body).status_code < 500
    assert cloud.http.get("/readyz").status_code == 200
