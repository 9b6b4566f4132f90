"""Several servers on one PostgreSQL: they share the work, and inherit from the dead."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes import postgresql
from tests.flows import servers
from tests.flows.conftest import ask, document, eventually

pytestmark = [pytest.mark.haproxy, pytest.mark.timeout(120)]


@pytest.fixture
def new_host(tmp_path, network) -> Iterator[Callable[..., servers.Process]]:
    """Return a function that starts one more server, `serve` or `work`, on the same database."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    if postgresql.binaries() is None:
        pytest.skip(postgresql.MISSING)
    with ExitStack() as stack:
        url = stack.enter_context(servers.databases("postgresql", tmp_path))

        def make(name: str, command: str = "serve") -> servers.Process:
            runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="fc-"))
            options = {"pool": f"default=loopback:{network}.65.0/24", "host_name": name}
            if command == "serve":
                options["token_file"] = str(tmp_path / "admin.token")
            made = servers.Process(tmp_path / name, Path(runtime), url, command=command, **options)
            made.start()
            stack.callback(made.kill_balancers)
            stack.callback(made.kill)
            return made

        yield make


def create(server: servers.Process, names: list[str], targets) -> dict[str, str]:
    """Return the address of each load balancer, all active."""
    for port, name in enumerate(names, 8080):
        answer = server.request(
            "PUT",
            f"/v1/load-balancers/{name}",
            json=document(targets, port),
            params={"wait": "15s"},
        )
        assert answer.status_code == 200, answer.text
    return {name: server.status(name)["addresses"][0]["ip"] for name in names}


def test_the_load_balancers_of_a_killed_host_run_on_the_other(new_host, targets):
    one = new_host("one")
    names = ["a", "b", "c"]
    places = create(one, names, targets)
    assert len(one.balancers()) == 3
    other = new_host("other")
    for name in names:
        assert other.status(name)["state"] == "ACTIVE"
    one.kill()
    one.kill_balancers()  # the machine is gone, not only the server
    eventually(lambda: len(other.balancers()) == 3, 30)
    for port, name in enumerate(names, 8080):
        eventually(lambda name=name: other.status(name).get("state") == "ACTIVE", 20)
        assert other.status(name)["addresses"][0]["ip"] == places[name]
        assert ask(places[name], port) in {str(t["port"]) for t in targets}
    operations = other.request("GET", "/v1/operations").json()["items"]
    moved = [(o["target"], o["status"]) for o in operations if o["type"] == "system.failover"]
    assert sorted(moved) == [(name, "SUCCEEDED") for name in names]
    assert not other.broken()
    one.start()  # comes back to a cloud that has gone on without it
    eventually(lambda: not one.balancers())
    assert len(other.balancers()) == 3


def test_a_host_that_only_slept_lets_go_of_what_moved(new_host, targets):
    one = new_host("one")
    create(one, ["a"], targets)
    other = new_host("other")
    one.signal(signal.SIGSTOP)
    eventually(lambda: other.status("a")["state"] != "ACTIVE", 20)
    one.signal(signal.SIGCONT)
    eventually(lambda: other.status("a")["state"] == "ACTIVE", 30)
    eventually(lambda: len(one.balancers()) + len(other.balancers()) == 1, 20)
    assert not other.broken()


def test_work_runs_what_a_server_accepts(new_host, targets):
    server = new_host("front")
    create(server, ["a"], targets)
    worker = new_host("back", "work")
    server.kill()
    server.kill_balancers()
    eventually(lambda: len(worker.balancers()) == 1, 30)
    server.start()
    assert server.status("a")["state"] == "ACTIVE"
    assert not server.balancers()


def test_a_watch_on_one_server_shows_what_the_other_wrote(new_host, targets):
    one, other = new_host("one"), new_host("other")
    with other.http.stream("GET", "/v1/watch", params={"kinds": "load_balancer"}) as stream:
        create(one, ["a"], targets)
        first = next(line for line in stream.iter_lines() if line)
    assert '"type":"ADDED"' in first
    assert '"name":"a"' in first


def test_a_living_host_keeps_its_name(new_host):
    new_host("one")
    again = new_host("one-more")
    again.kill()
    again.options["host-name"] = "one"
    with pytest.raises(AssertionError, match="give this one another --host-name"):
        again.start()


def test_work_is_spread_and_the_clock_is_heard_at_once(new_host, targets):
    one, other = new_host("one"), new_host("other")
    names = ["a", "b", "c", "d"]
    eventually(lambda: create(one, names[:1], targets) and one.balancers() | other.balancers())
    servers.pause(0.5)  # by then each has heard the other's heartbeat
    create(one, names, targets)
    assert {len(one.balancers()), len(other.balancers())} == {2}
    assert not one.broken()
    mode = {"mode": "manual"}
    assert one.request("PUT", "/v1/clock", json=mode).is_success
    eventually(lambda: other.request("GET", "/v1/clock").json()["mode"] == "manual", 0.8)
