"""Teardown: what a cluster that is gone left in the cloud."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ccm import __main__ as cli
from ccm import inquiry
from tests.fakes.cloud import TOKEN, FakeCloud


async def test_b_06_teardown_takes_what_one_cluster_left_and_nothing_else():
    async with FakeCloud().serving() as fake:
        for name, uid in (("k8s-a", "gone"), ("k8s-b", "alive"), ("by-hand", None)):
            labels = {"cluster-uid": uid} if uid else {}
            fake._create(name, {"labels": labels, "spec": {"addresses": []}})
        for name, uid in (("k8s-n-v4", "gone"), ("k8s-m-v4", "alive")):
            labels = {"cluster-uid": uid}
            fake.routes.append({"name": name, "network": f"k8s-{uid}", "labels": labels})
        read = lambda: TOKEN  # noqa: E731 - what the command line passes
        left = ["k8s-a", "k8s-n-v4"]
        assert await inquiry.teardown(fake.url, read, "gone", delete=False) == left
        assert fake.count("DELETE") == 0
        assert await inquiry.teardown(fake.url, read, "gone", delete=True) == left
        assert [path for method, path in fake.requests if method == "DELETE"] == [
            "/v1/load-balancers/k8s-a",
            "/v1/routes/k8s-n-v4",
            "/v1/networks/k8s-gone",
        ]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["explain", "web", "--cloud-url=http://127.0.0.1:1"], 2, "NAMESPACE/SERVICE"),
        (["explain", "shop/web"], 2, "--cloud-url"),
        (["teardown", "--cluster-uid=x", "--cloud-url=http://127.0.0.1:1"], 2, "FAKECLOUD_TOKEN"),
        (
            ["teardown", "--cluster-uid=x", "--cloud-url=http://127.0.0.1:1", "--cloud-token=x"],
            1,
            "127.0.0.1:1",
        ),
    ],
)
def test_wrong_usage_is_one_message(arguments, code, word):
    done = CliRunner().invoke(cli.cli, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == code
    assert word in done.output
