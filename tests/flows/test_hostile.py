"""What a hostile or broken client, disk or neighbour may do, and what must stay true."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import httpx2
import pytest

from fakecloud import app, serving, settings
from fakecloud.dataplane import premises
from fakecloud.errors import StartError
from tests.demo import programs
from tests.flows.conftest import Running, document, eventually


def connected(cloud: Running) -> socket.socket:
    host, port = cloud.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"x-filler: " + b"y" * 1000 + b"\r\n", id="many headers"),
        pytest.param(b"y" * 1000, id="one endless header"),
    ],
)
def test_an_endless_head_is_cut_off(cloud: Running, piece: bytes) -> None:
    """Anybody who reaches the port could fill the memory before a token is looked at."""
    with connected(cloud) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ")
        sent = 0
        try:
            while sent < 100 * serving.MAX_HEAD_BYTES:
                connection.sendall(piece)
                sent += len(piece)
        except ConnectionError:
            pass
        assert sent < 100 * serving.MAX_HEAD_BYTES
    assert cloud.http.get("/healthz").status_code == 200


def test_a_head_that_never_ends_is_not_waited_for(
    cloud: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_TIMEOUT_S", 0.1)
    with connected(cloud) as connection:
        connection.sendall(b"GET /he")
        assert closed(connection)


def test_a_kept_connection_has_the_same_limits_at_its_next_request(
    cloud: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_TIMEOUT_S", 0.1)
    with connected(cloud) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /he")
        assert closed(connection)


def test_a_large_body_is_not_taken_for_a_large_head(cloud: Running) -> None:
    big = {"labels": {f"l{i}": "x" * 1000 for i in range(60)}, "spec": "no" * 200_000}
    assert cloud.put("web", big).status_code == 422


def test_a_refused_server_does_not_touch_the_token(cloud: Running) -> None:
    token_file = cloud.directory / "admin.token"
    before = token_file.read_text()
    other = cloud.directory / "other.db"
    again = settings.load(state_dir=cloud.directory, database=f"sqlite:///{other}")
    with pytest.raises(StartError, match="another server"), app.running(again):
        pass
    assert token_file.read_text() == before


def test_a_state_directory_by_another_name_is_the_same(new_cloud, targets) -> None:
    cloud = new_cloud()
    lb = cloud.active("web", document(targets))
    before = programs.haproxies(cloud.directory)
    assert before.keys() == {lb["status"]["id"]}
    cloud.stop()
    link = cloud.directory.parent / "link"
    link.symlink_to(cloud.directory)
    cloud._options["state_dir"] = link
    cloud.start()
    assert programs.haproxies(cloud.directory) == before
    cloud.remove("web")
    assert programs.haproxies(cloud.directory) == {}


def test_what_the_operating_system_refuses_is_named_and_heals(new_cloud, targets) -> None:
    """A full disk, seen through a directory that can't be written."""
    cloud = new_cloud()
    cloud.active("web", document(targets))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", _full)
        cloud.put("shop", document(targets, 8081))
        error = eventually(lambda: cloud.get("shop")["status"]["last_error"])
        assert error["code"] == "host_exhausted"
        assert "free space" in error["message"]
        cloud.remove("web")
    eventually(lambda: cloud.get("shop")["status"]["state"] == "ACTIVE", 20)


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_socket_directory_does_not_depend_on_who_starts_the_server(
    tmp_path, monkeypatch
) -> None:
    options = settings.load(state_dir=tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    first = premises.runtime_dir(options)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/2")
    assert premises.runtime_dir(options) == first


BODY = b'{"spec": {"listeners": [], "target_groups": []}}'


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param(b"content-length: 5000", BODY, id="shorter than it said"),
        pytest.param(
            b"transfer-encoding: chunked", b"%x\r\n%s\r\n" % (len(BODY), BODY), id="no last chunk"
        ),
    ],
)
def test_a_body_that_was_cut_off_is_not_taken_for_all_of_it(
    cloud: Running, head: bytes, body: bytes
) -> None:
    assert cloud.http.get("/v1/load-balancers/cut").status_code == 404  # the token is remembered
    before = cloud.http.get("/v1/audit").json()["items"]
    with connected(cloud) as connection:
        connection.sendall(
            b"PUT /v1/load-balancers/cut HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + cloud.token.encode()
            + b"\r\ncontent-type: application/json\r\n"
            + head
            + b"\r\n\r\n"
            + body
        )
        connection.shutdown(socket.SHUT_WR)
        assert closed(connection)
    assert cloud.http.get("/v1/load-balancers/cut").status_code == 404
    assert cloud.http.get("/v1/audit").json()["items"] == before


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("order", [1, -1])
def test_two_tokens_are_nobodys(cloud: Running, method: str, order: int) -> None:
    """A proxy that looks at the first and a server that looks at the last see two callers."""
    made = cloud.put("web", document([]))
    assert made.status_code in (200, 201), made.text
    own = f"Bearer {cloud.token}"
    headers = [("authorization", own), ("authorization", "Bearer another")][::order]
    refused = httpx2.request(
        method,
        f"{cloud.url}/v1/load-balancers/web",
        headers=[*headers, ("content-type", "application/json")],
        content=BODY if method == "PUT" else None,
    )
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    cloud.remove("web")
