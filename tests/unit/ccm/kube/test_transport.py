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
