"""Configuration in plain words, and errors by status."""

from __future__ import annotations

import pytest

from ccm import errors
from ccm.kube import transport
from tests.fakes.kubeapi import FakeApiServer

GOOD = """
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param("", "not a kubeconfig", id="empty"),
        pytest.param("hello", "not a kubeconfig", id="text"),
        pytest.param("a: [b", "flow sequence", id="broken yaml"),
        pytest.param("clusters: []", "current-context", id="no context"),
        pytest.param("clusters: []\ncurrent-context: x", "kubeconfig", id="nothing in it"),
        pytest.param(
            "clusters: 5\ncontexts: 7\ncurrent-context: x", "kubeconfig", id="wrong types"
        ),
    ],
)
async def test_unusable_kubeconfig_is_one_line_with_the_file(tmp_path, content, word):
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)
    with pytest.raises(errors.ConfigError, match=word) as caught:
        await transport.connect(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_neither_kubeconfig_nor_cluster(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(errors.ConfigError, match="--kubeconfig"):
        await transport.connect(None)


async def test_netrc_has_no_say(tmp_path, monkeypatch):
    """Its password beside our token was an error of every request."""
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with FakeApiServer().serving() as server:
        (tmp_path / "kubeconfig").write_text(GOOD % server.url)
        connection = await transport.connect(tmp_path / "kubeconfig")
        assert await connection.request("GET", "/api/v1/services")
        await connection.close()


async def test_a_proxy_of_the_environment_is_used_where_it_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    async with FakeApiServer().serving() as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        for host in ("http://elsewhere.invalid", server.url):
            (tmp_path / "kubeconfig").write_text(GOOD % host)
            connection = await transport.connect(tmp_path / "kubeconfig")
            assert await connection.request("GET", "/api/v1/services")
            await connection.close()
            monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def test_request_through_a_kubeconfig(tmp_path):
    async with FakeApiServer().serving() as server:
        server.put("/api/v1/nodes", "a")
        file = tmp_path / "kubeconfig"
        file.write_text(GOOD % server.url)
        door = await transport.connect(file)
        assert b'"name": "a"' in await door.request("GET", "/api/v1/nodes/a")
        with pytest.raises(errors.KubeNotFound):
            await door.request("GET", "/api/v1/nodes/b")
        await door.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, "KubeNotFound"), (409, "KubeConflict"), (410, "KubeGone"), (403, "KubeError")],
)
def test_errors_by_status(status, kind):
    error = transport.api_error(status, b"<html>", {"Retry-After": "3"})
    assert type(error).__name__ == kind
    assert (error.code, error.retry_after_s) == (status, 3.0)
