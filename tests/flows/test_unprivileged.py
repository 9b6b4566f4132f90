"""The command as it is started by a user without any privilege."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.flows.conftest import ask, document, eventually

pytestmark = pytest.mark.haproxy
ROOT = Path(__file__).parent.parent.parent


class Account(NamedTuple):
    """Somebody who is not root: what to put before a command, and how to start it."""

    prefix: list[str]
    options: dict[str, Any]
    uid: int  # of the files it makes, seen from here


def accounts() -> Iterator[Account]:
    """Yield ways to be somebody else. Inside of a user namespace files stay readable for it."""
    if os.getuid() != 0:
        yield Account([], {}, os.getuid())
        return
    nobody = pwd.getpwnam("nobody")
    ids = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    yield Account([], ids, nobody.pw_uid)
    mapped = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]
    yield Account(mapped, {}, 0)


@pytest.fixture
def account() -> Account:
    """Return the first that can read this checkout and its Python."""
    check = "import os, fakecloud.app; assert os.getuid() != 0"
    for candidate in accounts():
        try:
            subprocess.run(
                [*candidate.prefix, sys.executable, "-c", check],
                cwd="/",
                env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
                capture_output=True,
                check=True,
                **candidate.options,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    pytest.skip("no unprivileged user can read this checkout and its Python")


@pytest.fixture
def home(account) -> Iterator[Path]:
    """A directory of that user's own, short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="fc-") as name:
        os.chown(name, account.uid, -1)
        yield Path(name)


def test_create_traffic_delete_without_privilege(account, home, network, targets):
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed; for these tests: apt-get install haproxy")
    serve = [sys.executable, "-m", "fakecloud", "serve", "--listen", "127.0.0.1:0"]
    places = ["--state-dir", str(home / "state"), "--runtime-dir", str(home / "run")]
    pool = ["--pool", f"default=loopback:{network}.64.0/18"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [*account.prefix, *serve, *places, *pool],
            cwd=home,
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            **account.options,
        )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("fakecloud is ready at http://"), (home / "log").read_text()
        secret = (home / "state" / "admin.token").read_text().strip()
        headers = {"authorization": f"Bearer {secret}"}
        with httpx2.Client(base_url=line.split()[-1], headers=headers, timeout=20) as http:
            path = "/v1/load-balancers/web"
            answer = http.put(path, json=document(targets), params={"wait": "15s"})
            assert answer.status_code == 200, answer.text
            assert ask(answer.json()["status"]["addresses"][0]["ip"])
            owners = {p.stat().st_uid for p in (home / "state" / "lb").rglob("*")}
            assert owners == {account.uid}
            assert http.delete(path).status_code == 202
            eventually(lambda: http.get(path).status_code == 404)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(10)
        server.stdout.close()
    assert code == 0, (home / "log").read_text()
    assert "Traceback" not in (home / "log").read_text()
