"""What is applied to a cluster, made by a real cloud: a project and a token for each cluster."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx2
import yaml

from tests.flows.conftest import Running


def printed(cloud: Running, project: str) -> str:
    """Return the controller's token out of what `fakecloud-ccm manifests` prints."""
    words = ("--cluster-name", project, "--project", project, "--cloud-url", cloud.url)
    result = subprocess.run(
        [sys.executable, "-m", "ccm", "manifests", *words],
        env={**os.environ, "FAKECLOUD_TOKEN": cloud.token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    objects = yaml.safe_load_all(result.stdout)
    secret = next(one for one in objects if one["kind"] == "Secret")
    return str(secret["stringData"]["token"])


def test_each_cluster_has_a_token_of_a_controllers_rights_in_a_project_of_its_own(cloud):
    def ask(token: str, path: str) -> int:
        return httpx2.get(
            f"{cloud.url}{path}", headers={"Authorization": f"Bearer {token}"}, trust_env=False
        ).status_code

    first, again, other = (printed(cloud, name) for name in ("kind-a", "kind-a", "kind-b"))
    assert len({first, again, other, cloud.token}) == 4
    for token in (first, again, other):
        assert ask(token, "/v1/load-balancers") == 200
        assert ask(token, "/v1/tokens") == 403
    headers = {"Authorization": f"Bearer {cloud.token}", "X-Project": "kind-a"}
    listed = httpx2.get(f"{cloud.url}/v1/tokens", headers=headers, trust_env=False).json()["items"]
    assert [one["description"] for one in listed] == ["controller of cluster kind-a"] * 2
