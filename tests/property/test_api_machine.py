"""Whatever callers, failures, sleepers and crashes do in whatever order: every promise holds.

Requests go through the whole HTTP application, on SQLite with one host and on PostgreSQL with
two. FAKECLOUD_MACHINE_EXAMPLES: how many runs of some 30 steps (default 6; PostgreSQL: half).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fakecloud.domain import lifecycle
from fakecloud.domain.hooks import Point
from fakecloud.errors import Permanent, Transient
from tests.fakes import postgresql
from tests.fakes.api_cloud import DEAD_AFTER_S, Answer, ApiCloud
from tests.fakes.small_cloud import LEASE_S

EXAMPLES = int(os.environ.get("FAKECLOUD_MACHINE_EXAMPLES", "6"))
NAMES = st.sampled_from(["a", "b", "c"])
TEAMS = st.sampled_from(["x", "y"])
PORTS = st.sampled_from([8080, 8081])
POINTS = st.sampled_from(list(Point))
LB = "/v1/load-balancers"
RESTING = [Point.CLAIM, Point.PRE_APPLY, Point.POST_APPLY, Point.POST_COMMIT]
"""Where a worker may sleep for long; inside a transaction the database itself would end it."""


def wish(port: int, team: str, **spec: Any) -> dict[str, Any]:
    """Return a document with one listener."""
    return {
        "labels": {"team": team},
        "spec": {
            "listeners": [{"name": "web", "protocol": "tcp", "port": port, "target_group": "web"}],
            "target_groups": [{"name": "web", "targets": [{"ip": "127.0.9.1", "port": 9000}]}],
            **spec,
        },
    }


class ApiMachine(RuleBasedStateMachine):
    """Customers, an operator, bad luck; and after each step a look at everything."""

    url: str | None = None
    hosts = 1

    @initialize()
    def begin(self) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        self.directory = tempfile.TemporaryDirectory()
        url = self.new_database()
        self.cloud = ApiCloud(url, self.hosts)
        self.kept: dict[str, tuple[str, str, Any, Answer]] = {}
        self.keys = 0
        self.tokens: list[tuple[str, str]] = []
        self.revoked: list[str] = []
        self.now = self.cloud.clock.now()
        self.highest: dict[str, tuple[int, int]] = {}

    def new_database(self) -> str:
        return f"sqlite:///{Path(self.directory.name)}/cloud.db"

    # What callers do

    def send(self, method: str, path: str, body: Any = None, /, **more: Any) -> Answer:
        answer = self.cloud.request(method, path, body, **more)
        assert answer is not None
        allowed = {200, 201, 202, 204, 400, 401, 403, 404, 409, 412, 422, 507}
        assert answer.status in allowed, (method, path, answer)
        if answer.status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
        return answer

    @rule(name=NAMES, port=PORTS, team=TEAMS, kind=st.sampled_from([{}, {"type": "lb-m"}]))
    def put(self, name, port, team, kind) -> None:
        document = wish(port, team, **kind)
        answer = self.send("PUT", f"{LB}/{name}", document)
        assert answer.status in (200, 201, 202, 409, 507), answer
        if answer.status < 300:
            self.accepted(name, document)

    @rule(name=NAMES, port=PORTS, team=TEAMS)
    def post(self, name, port, team) -> None:
        answer = self.send("POST", LB, wish(port, team) | {"name": name})
        assert answer.status in (200, 201, 409, 507), answer

    @rule(name=NAMES, port=PORTS)
    def patch(self, name, port) -> None:
        body = {"spec": {"admin_up": port == 8080}, "labels": {"more": str(port)}}
        kind = "application/merge-patch+json"
        answer = self.send("PATCH", f"{LB}/{name}", body, content_type=kind)
        assert answer.status in (200, 202, 404, 409), answer

    @rule(name=NAMES, number=st.integers(1, 3))
    def targets(self, name, number) -> None:
        made = [{"ip": "127.0.9.1", "port": 9000 + n} for n in range(number)]
        body = {"target_groups": [{"name": "web", "targets": made}]}
        answer = self.send("PUT", f"{LB}/{name}/targets", body)
        assert answer.status in (200, 202, 404, 409), answer

    @rule(name=NAMES, action=st.sampled_from(["repair", "failover", "drain"]))
    def act(self, name, action) -> None:
        answer = self.send("POST", f"{LB}/{name}:{action}")
        assert answer.status in (200, 202, 404, 409), answer

    @rule(name=NAMES)
    def delete(self, name) -> None:
        assert self.send("DELETE", f"{LB}/{name}").status in (202, 404)

    @rule(name=NAMES, port=PORTS, stale=st.booleans())
    def put_on_condition(self, name, port, stale) -> None:
        found = self.send("GET", f"{LB}/{name}")
        if found.status == 404:
            return
        etag = '"999999.1"' if stale else found.headers["etag"]
        answer = self.send("PUT", f"{LB}/{name}", wish(port, "x"), if_match=etag)
        assert answer.status in ((409, 412) if stale else (200, 202, 409)), answer

    @rule(name=st.sampled_from(["kept", "more"]))
    def reserve(self, name) -> None:
        body = {"name": name, "family": "ipv4", "pool": "default"}
        assert self.send("POST", "/v1/addresses", body).status in (200, 201, 409, 507)

    @rule(name=st.sampled_from(["kept", "more"]))
    def give_up(self, name) -> None:
        assert self.send("DELETE", f"/v1/addresses/{name}").status in (204, 404, 409)

    @rule(name=NAMES, address=st.sampled_from(["kept", "more"]), assign=st.booleans())
    def move_address(self, name, address, assign) -> None:
        path = f"/v1/addresses/{address}:{'assign' if assign else 'release'}"
        answer = self.send("POST", path, {"load_balancer": name} if assign else None)
        assert answer.status in (202, 404, 409, 422, 507), answer

    @rule(name=NAMES, port=PORTS, lost=st.booleans(), delete=st.booleans())
    def with_key(self, name, port, lost, delete) -> None:
        """Do it with a key; if the answer is lost after the commit, ask again."""
        self.keys += 1
        key = f"key-{self.keys}"
        method, body = ("DELETE", None) if delete else ("PUT", wish(port, "x"))
        if lost:
            fault = {"layer": "api", "action": {"type": "drop_after_commit"}, "max_hits": 1,
                     "match": {"methods": [method]}}  # fmt: skip
            assert self.send("POST", "/v1/chaos/faults", fault).status == 201
            sent = self.cloud.request(method, f"{LB}/{name}", body, idempotency_key=key)
            assert sent is None, sent
        answer = self.send(method, f"{LB}/{name}", body, idempotency_key=key)
        if answer.status < 300:
            self.kept[key] = (method, f"{LB}/{name}", body, answer)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def again(self, data) -> None:
        """What has a key is done once: the answer is the first one, whatever happened since."""
        key = data.draw(st.sampled_from(sorted(self.kept)))
        method, path, body, first = self.kept[key]
        version = self.version()
        answer = self.send(method, path, body, idempotency_key=key)
        assert (answer.status, answer.body) == (first.status, first.body)
        assert answer.headers["idempotency-replayed"] == "true"
        assert self.version() == version

    @rule()
    def make_token(self) -> None:
        answer = self.send("POST", "/v1/tokens", {"scopes": ["viewer"]})
        assert answer.status == 201
        made = answer.json()
        self.tokens.append((made["id"], made["secret"]))
        assert self.send("GET", LB, token=made["secret"]).status == 200

    @precondition(lambda self: self.tokens)
    @rule()
    def revoke(self) -> None:
        id, secret = self.tokens.pop()
        assert self.send("DELETE", f"/v1/tokens/{id}").status in (200, 204)
        self.revoked.append(secret)
        answer = self.send("GET", LB, token=secret)
        assert (answer.status, answer.json()["code"]) == (401, "token_revoked")

    # What the cloud does, and what happens to it

    @rule(host=st.sampled_from([0, 0, 1]))
    def work(self, host) -> None:
        self.alive(host).step()

    @rule(host=st.sampled_from([0, 1]))
    def work_much(self, host) -> None:
        for _ in range(10):
            if not self.alive(host).step():
                return

    @rule(point=POINTS, host=st.sampled_from([0, 0, 1]))
    def crash(self, point, host) -> None:
        self.alive(host).step(point)

    @rule(host=st.sampled_from([0, 1]), disk_lost=st.booleans())
    def restart(self, host, disk_lost) -> None:
        self.cloud.restart(self.alive(host), disk_lost=disk_lost)

    @rule(point=st.sampled_from(RESTING), host=st.sampled_from([0, 0, 1]))
    def fall_asleep(self, point, host) -> None:
        if sum(len(node.sleepers) for node in self.cloud.nodes) < 2:
            self.alive(host).fall_asleep(point)

    @rule()
    def wake_up(self) -> None:
        for node in self.cloud.nodes:
            while node.sleepers:
                node.wake()

    @precondition(lambda self: self.hosts > 1 and self.cloud.nodes[1].alive)
    @rule()
    def host_dies(self) -> None:
        """A host is gone with all that it ran; the other takes over within its patience."""
        self.cloud.nodes[1].crash(disk_lost=True)
        for _ in range(5):
            self.cloud.advance(DEAD_AFTER_S / 3)
        assert {lb.host for lb in self.cloud.living()} <= {None, "host-1"}

    @precondition(lambda self: self.hosts > 1 and not self.cloud.nodes[1].alive)
    @rule()
    def host_returns(self) -> None:
        self.cloud.nodes[1].start()

    @rule(
        failure=st.sampled_from(
            [
                Transient("bind_failed", "taken"),
                Permanent("config_invalid", "no"),
                OSError(28, "No space left on device"),
            ]
        )
    )
    def fail(self, failure) -> None:
        self.cloud.nodes[0].dataplane.fail_next = [failure]
        self.cloud.nodes[0].step()
        self.cloud.nodes[0].dataplane.fail_next = []

    @rule(
        action=st.sampled_from(
            [
                ("provision", {"type": "fail_transient", "times": 2}),
                ("provision", {"type": "fail_permanent", "code": "quota"}),
                ("provision", {"type": "stuck"}),
                ("provision", {"type": "delay", "seconds": 20.0}),
                ("worker", {"type": "lease_steal"}),
                ("worker", {"type": "crash", "point": "post_apply"}),
            ]
        ),
        name=NAMES,
    )
    def fault(self, action, name) -> None:
        layer, what = action
        body = {"layer": layer, "action": what, "max_hits": 3, "match": {"resource_name": name}}
        assert self.send("POST", "/v1/chaos/faults", body).status == 201

    @rule()
    def faults_off(self) -> None:
        assert self.send("POST", "/v1/chaos:reset").status == 200

    @rule(seconds=st.sampled_from([0.3, 5.0, 15.0, LEASE_S + 1, 301.0, 901.0]))
    def time_passes(self, seconds) -> None:
        self.cloud.advance(seconds)
        self.cloud.chaos.refresh()

    @rule(
        mode=st.sampled_from([{"mode": "real"}, {"mode": "manual"}, {"mode": "rate", "rate": 60}])
    )
    def set_clock(self, mode) -> None:
        assert self.send("PUT", "/v1/clock", mode).status == 200

    @rule(by=st.sampled_from(["30s", "2h", "40d"]))
    def advance_clock(self, by) -> None:
        before = self.cloud.clock.now()
        answer = self.send("POST", "/v1/clock:advance", {"by": by})
        assert answer.status == 202
        assert self.send("POST", "/v1/clock:advance", {"by": by}).status == 409
        while self.cloud.timekeeper.step():
            pass
        assert self.cloud.clock.now() > before
        ended = self.send("GET", f"/v1/operations/{answer.json()['id']}")
        assert ended.json()["status"] == "SUCCEEDED", ended

    @rule()
    def watch_breaks(self) -> None:
        self.cloud.reconnect()

    # What must hold

    @invariant()
    def every_promise_holds(self) -> None:
        if hasattr(self, "cloud"):
            answer = self.send("POST", "/v1/admin:check")
            assert answer.json()["violations"] == []

    @invariant()
    def the_watch_knows_what_the_list_says(self) -> None:
        if hasattr(self, "cloud"):
            assert self.cloud.follow() == self.cloud.list()

    @invariant()
    def time_and_versions_only_grow(self) -> None:
        if not hasattr(self, "cloud"):
            return
        now = self.cloud.clock.now()
        assert now >= self.now
        self.now = now
        for id, one in self.cloud.list().items():
            seen = (one["status"]["generation"], int(one["status"]["resource_version"]))
            before = self.highest.get(id, seen)
            assert before[0] <= seen[0]
            assert before[1] <= seen[1]
            self.highest[id] = seen

    @invariant()
    def the_revoked_stay_out(self) -> None:
        if hasattr(self, "cloud"):
            for secret in self.revoked[-1:]:
                assert self.send("GET", LB, token=secret).status == 401

    def accepted(self, name: str, document: dict[str, Any]) -> None:
        """What was accepted is what is wanted from now on."""
        now = self.send("GET", f"{LB}/{name}").json()
        assert now["labels"] == document["labels"]
        assert now["spec"]["listeners"][0]["port"] == document["spec"]["listeners"][0]["port"]

    def version(self) -> int:
        return int(self.send("GET", LB).json()["resource_version"])

    def alive(self, number: int) -> Any:
        nodes = [node for node in self.cloud.nodes if node.alive]
        return nodes[number % len(nodes)]

    def teardown(self) -> None:
        if not hasattr(self, "cloud"):
            return
        try:
            self.everything_comes_to_rest()
        finally:
            self.cloud.close()
            self.directory.cleanup()
            structlog.reset_defaults()

    def everything_comes_to_rest(self) -> None:
        """When the bad luck ends: every wish is reality, once, and nothing else runs anywhere."""
        self.wake_up()
        self.faults_off()
        for node in self.cloud.nodes:
            if not node.alive:
                node.start()
        for _ in range(12):
            self.cloud.advance(max(LEASE_S + 1, lifecycle.ERROR_RETRY_S))
            for node in self.cloud.nodes:
                for _ in range(30):
                    if not node.step():
                        break
        self.every_promise_holds()
        living = self.cloud.living()
        assert {lb.state.value for lb in living} <= {"ACTIVE"}
        run = sorted((id, node.name) for node in self.cloud.nodes for id in node.host.desired)
        assert run == sorted((lb.id, lb.host) for lb in living)
        for lb in living:
            node = next(one for one in self.cloud.nodes if one.name == lb.host)
            applied = node.host.desired[lb.id]
            assert (applied.spec, applied.addresses) == (lb.spec, lb.addresses)
        assert self.cloud.follow() == self.cloud.list()
        running = self.send("GET", '/v1/operations?filter=status="RUNNING"')
        assert running.json()["items"] == []


def bounded(examples: int) -> settings:
    """Return how long to look; a failure is made short only in a long run, for that takes long."""
    quick = EXAMPLES < 100
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate] if quick else list(Phase),
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(3600)
def test_on_sqlite_with_one_host() -> None:
    run_state_machine_as_test(ApiMachine, settings=bounded(EXAMPLES))


@pytest.mark.timeout(3600)
def test_on_postgresql_with_two_hosts() -> None:
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with postgresql.running() as server:

        class OnPostgresql(ApiMachine):
            hosts = 2

            def new_database(self) -> str:
                return server.database()

        run_state_machine_as_test(OnPostgresql, settings=bounded(max(1, EXAMPLES // 2)))


@pytest.mark.parametrize("point", [Point.CLAIM, Point.PRE_APPLY, Point.POST_APPLY])
def test_who_sleeps_through_a_removal_leaves_nothing(tmp_path: Path, point: Point) -> None:
    cloud = ApiCloud(f"sqlite:///{tmp_path}/cloud.db")
    node = cloud.nodes[0]
    cloud.request("PUT", f"{LB}/web", wish(8080, "x"))
    node.fall_asleep(point)
    cloud.request("DELETE", f"{LB}/web")
    cloud.advance(LEASE_S + 1)
    while node.step():
        pass
    assert cloud.living() == []
    node.wake()
    assert node.host.desired == {}
    assert node.probes.watched == frozenset()
    cloud.close()
