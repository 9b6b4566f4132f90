"""What `fakecloud-ccm manifests` prints."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ccm import __main__ as cli
from ccm import errors, installation
from tests.fakes.cloud import FakeCloud

TOKEN = "s" * 64


def wanted(**changes: Any) -> installation.Installation:
    given = {"cloud_url": "http://fakecloud:8440", "cluster_name": "kind", "token": TOKEN}
    return installation.Installation(**{**given, "image": "cloud:1", **changes})


def by_kind(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in found}


def test_everything_is_there_and_the_token_is_in_the_secret_alone():
    found = installation.objects(wanted())
    kinds = by_kind(found)
    assert set(kinds) == {
        "Secret", "ConfigMap", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role",
        "RoleBinding", "Deployment",
    }  # fmt: skip
    assert kinds["Secret"]["stringData"] == {"token": TOKEN}
    assert found[-1]["kind"] == "Deployment"
    assert all(TOKEN not in str(one) for one in found if one["kind"] != "Secret")
    for one in found:
        if not one["kind"].startswith("Cluster"):
            assert one["metadata"]["namespace"] == "kube-system"
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "fakecloud-ccm"


def test_what_the_options_say_reaches_the_controller():
    kinds = by_kind(
        installation.objects(
            wanted(ca="PEM", replicas=2, settings={"CCM_HANDLE_UNCLASSED": "false"})
        )
    )
    assert kinds["ConfigMap"]["data"] == {
        "CCM_CLOUD_URL": "http://fakecloud:8440",
        "CCM_CLUSTER_NAME": "kind",
        "CCM_CLOUD_CA_FILE": "/etc/fakecloud-ccm/ca.crt",
        "CCM_HANDLE_UNCLASSED": "false",
    }
    assert kinds["Secret"]["stringData"]["ca.crt"] == "PEM"
    spec = kinds["Deployment"]["spec"]
    assert spec["replicas"] == 2
    container = spec["template"]["spec"]["containers"][0]
    assert container["image"] == "cloud:1"
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert "/etc/fakecloud-ccm" in mounts


def test_pods_start_anew_when_secret_or_settings_changed_and_only_then():
    def digest(**changes: Any) -> str:
        spec = by_kind(installation.objects(wanted(**changes)))["Deployment"]["spec"]
        return str(spec["template"]["metadata"]["annotations"][installation.CONFIGURATION])

    assert digest() == digest() == digest(replicas=3)
    assert len({digest(), digest(token="n" * 64), digest(settings={"CCM_LOG_LEVEL": "debug"})}) == 3


def test_the_controller_may_nothing_but_what_it_needs_and_has_no_power_on_its_node():
    pod = by_kind(installation.objects(wanted()))["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID"} & set(pod)
    tolerated = {(one["key"], one.get("effect")) for one in pod["tolerations"]}
    assert ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule") in tolerated
    assert {"livenessProbe", "readinessProbe"} <= set(container)


def test_settings_of_anything_else_are_refused():
    for name in ("PATH", "CCM_A\nB", "ccm_x"):
        with pytest.raises(errors.ConfigError, match="--set"):
            installation.objects(wanted(settings={name: "x"}))


def test_the_command_prints_what_kubectl_takes(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    arguments = ["manifests", "--cluster-name=kind", f"--cloud-token-file={file}"]
    done = CliRunner().invoke(cli.cli, [*arguments, "--set", "CCM_LOG_LEVEL=debug"], env={})
    assert done.exit_code == 0, done.output
    kinds = by_kind(list(yaml.safe_load_all(done.output)))
    assert kinds["ConfigMap"]["data"]["CCM_LOG_LEVEL"] == "debug"
    refused = CliRunner().invoke(cli.cli, [*arguments, "--set", "PATH=/"], env={})
    assert (refused.exit_code, "--set PATH" in refused.output) == (2, True)


async def test_without_the_right_the_clouds_own_words_are_the_answer():
    async with FakeCloud().serving() as fake:
        with pytest.raises(errors.CloudError):
            await installation.make_token(fake.url, "wrong", "kind", "kind", None)


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        ({}, False),
        ({"CCM_CONFIGURE_CLOUD_ROUTES": "false"}, False),
        ({"CCM_CONFIGURE_CLOUD_ROUTES": "true", "CCM_CLUSTER_CIDR": "10.244.0.0/16"}, True),
        ({"CCM_POD_NETWORKS": "10.244.0.0/16"}, True),
    ],
)
def test_pods_as_targets_come_with_the_right_to_read_them(settings: dict[str, str], given: bool):
    roles = [one for one in installation.objects(wanted(settings=settings))
             if one["kind"] == "ClusterRole"]  # fmt: skip
    read = {resource for role in roles for rule in role["rules"] for resource in rule["resources"]}
    assert ("endpointslices" in read) == given
