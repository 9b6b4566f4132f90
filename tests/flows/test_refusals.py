"""Every refused request: a problem with a stable code that names the field; nothing is stored."""

from __future__ import annotations

import copy
import dataclasses
import json
import socket
from typing import Any

import pytest

from fakecloud.api import problems
from tests.flows.conftest import Running, document, eventually

pytestmark = pytest.mark.haproxy

PROBLEM = "application/problem+json"
GOOD = document([{"ip": "127.0.9.1", "port": 9000}])
LB = "/v1/load-balancers/web"


def refused(answer, status: int, code: str) -> dict[str, Any]:
    """Check that `answer` is the problem `code`; return it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    found: dict[str, Any] = answer.json()
    assert found["code"] == code
    assert (found["type"], found["status"]) == (f"/problems/{code}", status)
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["detail"]
    return found


def changed(path: str, value: object) -> dict[str, Any]:
    """Return GOOD with another value at `path`."""
    whole = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    inner: Any = whole
    for part in parents:
        inner = inner[int(part)] if part.isdigit() else inner[part]
    inner[int(last) if last.isdigit() else last] = value
    return whole


@pytest.fixture
def untouched(cloud) -> Running:
    """The cloud; afterwards nothing was stored and no address was taken."""
    version = cloud.http.get("/v1/load-balancers").json()["resource_version"]
    yield cloud
    after = cloud.http.get("/v1/load-balancers").json()
    assert (after["resource_version"], after["items"]) == (version, [])


LISTENER, GROUP = "spec/listeners/0", "spec/target_groups/0"
NAMED = GOOD["spec"]["listeners"][0]
TWICE = [NAMED, {**NAMED, "name": "other"}]
HTTP = {**NAMED, "protocol": "http"}
RULE = {"host": "shop.example", "path_prefix": "/cart", "target_group": NAMED["target_group"]}


@pytest.mark.parametrize(
    ("path", "value", "pointer"),
    [
        ("spec/listeners", "none", "/spec/listeners"),
        (f"{LISTENER}/port", "8080", "/spec/listeners/0/port"),
        (f"{LISTENER}/port", True, "/spec/listeners/0/port"),
        (f"{LISTENER}/port", 8080.0, "/spec/listeners/0/port"),
        (f"{LISTENER}/port", 0, "/spec/listeners/0/port"),
        (f"{LISTENER}/port", 65536, "/spec/listeners/0/port"),
        (f"{LISTENER}/port", 10**400, "/spec/listeners/0/port"),
        (f"{LISTENER}/protocol", "sctp", "/spec/listeners/0/protocol"),
        (f"{LISTENER}/name", "a b\nbind", "/spec/listeners/0/name"),
        (f"{LISTENER}/name", "a\n", "/spec/listeners/0/name"),
        (f"{LISTENER}/colour", "red", "/spec/listeners/0/colour"),
        (f"{LISTENER}/target_group", "other", "/spec/listeners/0/target_group"),
        (f"{LISTENER}/tls", {"certificates": 5}, "/spec/listeners/0/tls/certificates"),
        (f"{LISTENER}/routes", [{"host": "a"}], "/spec/listeners/0/routes/0/target_group"),
        ("spec/listeners", TWICE, "/spec/listeners/1/port"),
        ("spec/listeners", [NAMED, NAMED], "/spec"),
        (f"{LISTENER}/protocol", "https", "/spec/listeners/0/tls"),
        (f"{LISTENER}/tls", {"certificates": []}, "/spec/listeners/0/tls/certificates"),
        (f"{LISTENER}/tls", {"certificates": ["a", "a"]}, "/spec/listeners/0/tls/certificates"),
        (f"{LISTENER}/redirect_https", True, "/spec/listeners/0/redirect_https"),
        (f"{LISTENER}/routes", [RULE], "/spec/listeners/0/routes"),
        ("spec/listeners", [{**HTTP, "routes": [RULE, RULE]}], "/spec/listeners/0/routes/1"),
        (
            "spec/listeners",
            [{**HTTP, "routes": [{**RULE, "target_group": "x"}]}],
            "/spec/listeners/0/routes/0/target_group",
        ),
        (
            "spec/listeners",
            [{**HTTP, "routes": [{"target_group": NAMED["target_group"]}]}],
            "/spec/listeners/0/routes/0",
        ),
        (
            "spec/listeners",
            [{**HTTP, "routes": [{**RULE, "host": "a b"}]}],
            "/spec/listeners/0/routes/0/host",
        ),
        (
            "spec/listeners",
            [{**HTTP, "routes": [{**RULE, "path_prefix": "/a;b"}]}],
            "/spec/listeners/0/routes/0/path_prefix",
        ),
        (
            "spec/listeners",
            [{**HTTP, "tls": {"certificates": ["a"]}}],
            "/spec/listeners/0/tls",
        ),
        (f"{GROUP}/affinity", {"kind": "cookie"}, f"/{GROUP}/affinity/kind"),
        (f"{GROUP}/weights_from", "health_header", f"/{GROUP}/weights_from"),
        (f"{GROUP}/targets/0/ip", "web.example", f"/{GROUP}/targets/0/ip"),
        (f"{GROUP}/targets/0/ip", "0.0.0.0", f"/{GROUP}/targets/0/ip"),
        (f"{GROUP}/targets/0/ip", "224.0.0.1", f"/{GROUP}/targets/0/ip"),
        (f"{GROUP}/targets/0/ip", "fe80::1%eth0", f"/{GROUP}/targets/0/ip"),
        (f"{GROUP}/targets/0/ip", "::ffff:127.0.0.1", f"/{GROUP}/targets/0/ip"),
        (f"{GROUP}/targets/0/weight", 257, f"/{GROUP}/targets/0/weight"),
        (f"{GROUP}/targets/0/weight", -1, f"/{GROUP}/targets/0/weight"),
        (f"{GROUP}/targets", [{"ip": "127.0.0.1"}], f"/{GROUP}/targets/0/port"),
        (f"{GROUP}/targets", [{"ip": "127.0.0.1", "port": 1}] * 2, f"/{GROUP}"),
        (f"{GROUP}/health_check/path", "/ HTTP/1.1\r\nx: y", f"/{GROUP}/health_check/path"),
        (f"{GROUP}/health_check/interval_s", 61, f"/{GROUP}/health_check/interval_s"),
        ("spec/source_ranges", ["10.0.0.0/40"], "/spec/source_ranges/0"),
        ("spec/addresses", [], "/spec/addresses"),
        ("spec/addresses", [{"family": "ipv6", "ip": "127.0.0.1"}], "/spec/addresses/0"),
        ("spec/type", "lb-xxl", "/spec/type"),
        ("spec", None, "/spec"),
        ("labels", {"": "x"}, "/labels//[key]"),
        ("labels", {"a/b~c": 5}, "/labels/a~1b~0c"),
        ("labels", {str(n): "" for n in range(65)}, "/labels"),
        ("\ud800", 1, ""),
        ("x" * 100_000, 1, "/" + "x" * 999 + "…"),
        ("resource_version", "1", "/resource_version"),
    ],
)
def test_a_wrong_field_is_named(untouched, path, value, pointer):
    body = json.dumps(changed(path, value))
    answer = untouched.http.put(LB, content=body, headers={"content-type": "application/json"})
    found = refused(answer, 422, "validation_failed")
    assert pointer in [e["pointer"] for e in found["errors"]]
    assert len(answer.content) < 10_000


@pytest.mark.parametrize(
    ("path", "value", "pointer"),
    [
        (f"{GROUP}/preserve_client_ip", True, f"/{GROUP}/preserve_client_ip"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(untouched, path, value, pointer):
    found = refused(untouched.put("web", changed(path, value)), 422, "unsupported")
    assert [e["pointer"] for e in found["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "body"),
        (b"{", "not JSON at character 1"),
        (b"\xff\xfe", ""),
        (b'{"spec": 1e', "not JSON"),
        (b"[" * 200_000, ""),
        (b'{"spec": ' + b"1" * 5000 + b"}", ""),
    ],
)
def test_a_body_that_is_no_json_is_refused(untouched, body, detail):
    answer = untouched.http.put(LB, content=body, headers={"content-type": "application/json"})
    if answer.status_code == 422:  # an absent body is a missing document
        assert body == b""
        return
    assert detail in refused(answer, 400, "malformed_json")["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_another_content_type_is_refused(untouched, kind):
    headers = {} if kind is None else {"content-type": kind}
    body = json.dumps(GOOD).encode()
    found = refused(untouched.http.put(LB, content=body, headers=headers), 415, _UNSUPPORTED)
    assert "application/json" in found["detail"]


_UNSUPPORTED = "unsupported_media_type"


def test_a_declared_large_body_is_refused_unread(untouched):
    body = b" " * ((1 << 20) + 1)
    answer = untouched.http.put(LB, content=body, headers={"content-type": "application/json"})
    assert "1048576" in refused(answer, 413, "payload_too_large")["detail"]


def test_a_large_body_in_chunks_is_refused_while_it_comes(untouched):
    def chunks():
        for _ in range(40):
            yield b" " * 65536

    answer = untouched.http.put(LB, content=chunks(), headers={"content-type": "application/json"})
    refused(answer, 413, "payload_too_large")


@pytest.mark.parametrize(
    ("path", "code", "named"),
    [
        ("/v1/load-balancers?lable=x", "unknown_parameter", "'lable'"),
        ("/v1/load-balancers/web?since=1", "unknown_parameter", "wait_for"),
        ("/v1/load-balancers?page_size=0", "invalid_parameter", "page_size"),
        ("/v1/load-balancers?page_size=many", "invalid_parameter", "page_size"),
        ("/v1/load-balancers?page_token=%00", "invalid_page_token", "page_token"),
        ("/v1/load-balancers?page_token=zzz", "invalid_page_token", "page_token"),
        ("/v1/load-balancers?page_token=LTE", "invalid_page_token", "page_token"),
        ("/v1/load-balancers?page_token=Im9wXyI", "invalid_page_token", "page_token"),
        (f"/v1/load-balancers?page_token={'MTAw' * 40}", "invalid_page_token", "page_token"),
        ("/v1/operations?page_token=MTIz", "invalid_page_token", "page_token"),
        ("/v1/load-balancers/a%00b", "invalid_parameter", "name"),
        ("/v1/operations/a%00b", "invalid_parameter", "id"),
        ("/v1/watch?kinds=nodes", "invalid_parameter", "nodes"),
        ("/v1/watch?since=-1", "invalid_parameter", "since"),
        (f"/v1/watch?since={10**30}", "invalid_parameter", "since"),
        ("/v1/watch?since=1&initial=true", "invalid_parameter", "not both"),
        ("/v1/watch?heartbeat=soon", "invalid_parameter", "heartbeat"),
        ("/v1/cost-report?from=yesterday", "invalid_parameter", "from"),
        ("/v1/cost-report?from=2026-01-01T00:00:00", "invalid_parameter", "time zone"),
        (
            "/v1/cost-report?from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
            "invalid_parameter",
            "not a range",
        ),
        ("/v1/cost-report?from=0001-01-01T00:00:00%2B14:00", "invalid_parameter", "from"),
        ("/v1/costs/anomalies?to=0001-01-01T00:00:00Z", "invalid_parameter", "not a range"),
    ],
)
def test_a_wrong_parameter_is_named(untouched, path, code, named):
    assert named in refused(untouched.http.get(path), 400, code)["detail"]


@pytest.mark.parametrize("wait", ["soon", "61s", "-1", "1e9", "9" * 5000])
def test_a_wrong_wait_is_refused_before_anything_happens(untouched, wait):
    refused(untouched.put("web", GOOD, params={"wait": wait}), 400, "invalid_parameter")


@pytest.mark.parametrize("name", ["Web", "-web", "web-", "a" * 64, "lb_0123", "a%20b", "a%0a"])
def test_a_wrong_name_is_refused(untouched, name):
    found = refused(untouched.put(name, GOOD), 400, "invalid_parameter")
    assert found["errors"][0]["pointer"] == "name"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/loadbalancers", "/v1/load-balancers/a/b"])
def test_an_unknown_path_is_a_problem_too(untouched, path):
    refused(untouched.http.get(path), 404, "route_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", LB, {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("DELETE", "/v1/load-balancers", {"GET", "HEAD", "POST"}),
        ("DELETE", "/v1/watch", {"GET", "HEAD"}),
        ("OPTIONS", LB, {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("PUT", "/healthz", {"GET", "HEAD"}),
        ("GET", "/v1/load-balancers/web:drain", {"POST"}),
        ("DELETE", "/v1/operations/op_1:cancel", {"POST"}),
    ],
)
def test_another_method_is_told_which_there_are(untouched, method, path, allow):
    answer = untouched.http.request(method, path, json={})
    refused(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allow


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/load-balancers", "/v1/watch", "/v1/types", "/v1/load-balancers/no"]
)
def test_a_head_is_a_get_without_the_body(untouched, path):
    with untouched.http.stream("GET", path) as whole:
        expected = (whole.status_code, whole.headers["content-type"])
    answer = untouched.http.head(path)
    assert (answer.status_code, answer.headers["content-type"]) == expected
    assert answer.content == b""


def test_a_head_where_nothing_is_read_is_told_so(untouched):
    answer = untouched.http.head("/v1/load-balancers/web:drain")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer " + "x" * 60_000],
)
@pytest.mark.parametrize("path", ["/v1/load-balancers", "/v1/watch", "/v1/cost-report"])
def test_without_a_known_token_nothing_is_shown(untouched, header, path):
    headers = {} if header is None else {"authorization": header}
    answer = httpx2_get(untouched.url + path, headers)
    refused(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def httpx2_get(url: str, headers: dict[str, str]):
    import httpx2

    return httpx2.get(url, headers=headers)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/openapi.json", "/metrics"])
def test_some_paths_need_no_token(cloud, path):
    assert httpx2_get(cloud.url + path, {}).status_code == 200


def test_a_server_whose_workers_stopped_is_not_ready(untouched):
    state = untouched.app.state
    whole = state.cloud
    state.cloud = dataclasses.replace(whole, stopped_loops=lambda: ["provisioner-0", "sweep"])
    try:
        answer = httpx2_get(untouched.url + "/readyz", {})
    finally:
        state.cloud = whole
    said = "stopped: provisioner-0, sweep; what is asked for is not done until a restart\n"
    assert (answer.status_code, answer.text) == (503, said)


def test_addresses_are_refused_by_name(untouched, network):
    for request, status, code, named in (
        ({"pool": "other"}, 422, "validation_failed", "/spec/addresses/0/pool"),
        ({"family": "ipv6"}, 422, "validation_failed", "no ipv6 pool"),
        ({"ip": "10.0.0.1"}, 422, "validation_failed", "/spec/addresses/0/ip: 10.0.0.1 is not in"),
    ):
        answer = untouched.put("web", changed("spec/addresses", [request]))
        assert named in refused(answer, status, code)["detail"]


def test_two_requests_for_addresses_never_get_the_same(cloud, network):
    first = cloud.active("one", changed("spec/addresses", [{}]))["status"]["addresses"][0]["ip"]
    a, b, c, d = first.split(".")
    following = f"{a}.{b}.{c}.{int(d) + 1}"
    wish = changed("spec/addresses", [{}, {"ip": following}])
    found = cloud.active("two", wish)["status"]["addresses"]
    assert found[1]["ip"] == following
    assert found[0]["ip"] not in (first, following)


def test_a_held_address_can_be_asked_for_by_name_beside_a_new_one(cloud):
    held = cloud.active("one", changed("spec/addresses", [{}]))["status"]["addresses"][0]["ip"]
    found = cloud.active("one", changed("spec/addresses", [{}, {"ip": held}]))
    given = [one["ip"] for one in found["status"]["addresses"]]
    assert given[1] == held
    assert given[0] != held


def test_an_address_that_somebody_has_is_a_conflict(cloud):
    held = cloud.active("one", GOOD)["status"]["addresses"][0]["ip"]
    answer = cloud.put("two", changed("spec/addresses", [{"ip": held}]))
    assert held in refused(answer, 409, "address_in_use")["detail"]
    assert [one["name"] for one in cloud.http.get("/v1/load-balancers").json()["items"]] == ["one"]


def test_a_full_pool_says_so_and_when_to_try_again(new_cloud):
    cloud = new_cloud()
    for number in range(2):
        wish = changed("spec/addresses", [{"pool": "tiny"}])
        assert cloud.put(f"lb-{number}", wish).status_code == 201
    answer = cloud.put("lb-2", changed("spec/addresses", [{"pool": "tiny"}]))
    found = refused(answer, 507, "no_capacity")
    assert found["retryable"] is True
    assert answer.headers["retry-after"] == "30"
    assert len(cloud.http.get("/v1/load-balancers").json()["items"]) == 2


def test_protection_must_be_taken_off_first(cloud):
    protected = changed("spec/deletion_protection", True)
    cloud.active("web", protected)
    refused(cloud.http.delete(LB), 409, "deletion_protected")
    cloud.active("web", GOOD)
    assert cloud.http.delete(LB).status_code == 202


def test_a_name_on_its_way_out_is_taken_until_it_is_gone(new_cloud):
    cloud = new_cloud(workers=1)
    found = cloud.active("web", GOOD)
    # The worker waits half a second for a target that doesn't answer, and the delete behind it.
    slow = changed(f"{GROUP}/targets", [{"ip": "192.0.2.1", "port": 9}])
    cloud.put("slow", slow)
    assert cloud.http.delete(LB).status_code == 202
    answer = cloud.put("web", GOOD)
    if answer.status_code != 201:
        body = refused(answer, 409, "being_deleted")
        assert body["operation"].startswith("op_")
        assert answer.headers["retry-after"] == "1"
    eventually(lambda: cloud.put("web", GOOD).status_code in (200, 201))
    assert cloud.get("web")["status"]["id"] != found["status"]["id"]


def test_too_many_watches_are_refused_and_puts_go_on(new_cloud):
    cloud = new_cloud(max_watches=1)
    with cloud.http.stream("GET", "/v1/watch") as stream:
        assert stream.status_code == 200
        answer = cloud.http.get("/v1/watch")
        refused(answer, 429, "too_many_watches")
        assert cloud.put("web", GOOD).status_code == 201


def test_every_problem_has_a_page(cloud):
    codes = {kind.code for kind in problems.catalogue()}
    assert len(codes) == len(list(problems.catalogue()))
    for code in codes:
        page = cloud.http.get(f"/problems/{code}")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert code in page.text
    refused(cloud.http.get("/problems/nothing"), 404, "not_found")


def test_the_callers_request_id_comes_back(cloud):
    given = cloud.http.get("/nowhere", headers={"x-request-id": "abc-123"})
    assert given.json()["request_id"] == "abc-123"
    evil = cloud.http.get("/nowhere", headers={"x-request-id": "a b;c"})
    assert evil.json()["request_id"].startswith("req_")


def test_a_garbled_request_line_does_not_hurt(cloud):
    host, port = cloud.url.removeprefix("http://").split(":")
    for junk in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000):
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            raw.recv(1000)
    assert cloud.http.get("/healthz").text == "ok\n"


@pytest.mark.parametrize(
    "given",
    ["fe80::%lo/64", "10.0.0.0/0.0.0.255", "0.0.0.0/0\n", "10.0.0.0/255.0.0.0"],
)
def test_source_ranges_are_addresses_with_a_prefix_length(cloud, targets, given):
    answer = cloud.put("web", document(targets, source_ranges=[given]))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/spec/source_ranges/0"


def test_labels_and_annotations_are_bounded_together(cloud, targets):
    answer = cloud.put(
        "web", {**document(targets), "annotations": {f"a{i}": "ü" * 1000 for i in range(40)}}
    )
    assert answer.status_code == 422
    assert "65536 are allowed" in answer.json()["detail"]
