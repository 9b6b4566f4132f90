"""The command line: flags, environment, exit codes; one line, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ccm import __main__ as cli
from ccm import app, errors, logs, selection, settings, upstream


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Keep the process's logging as it is; the runner's streams are closed after each test."""
    monkeypatch.setattr(logs.structlog, "configure", lambda **_: None)
    monkeypatch.setattr(logs.logging, "basicConfig", lambda **_: None)


@pytest.fixture
def ran(monkeypatch):
    """Catch the settings that a run would start with."""
    found: list[settings.Settings] = []

    async def run(given):
        found.append(given)
        return 0

    monkeypatch.setattr(app, "run", run)
    return found


def invoke(*arguments, env=None):
    return CliRunner().invoke(cli.cli, ["run", *arguments], env=env or {})


BASE = ("--cloud-url", "http://127.0.0.1:8440", "--cloud-token-file", "token")


def test_defaults_are_those_of_upstream(ran):
    assert invoke(*BASE).exit_code == 0
    (given,) = ran
    assert given.lease == settings.LeaseSettings(
        True, 15.0, 10.0, 2.0, "kube-system", "cloud-controller-manager", "leases"
    )
    assert (given.cluster_name, given.secure_port, given.service_workers) == (
        "kubernetes",
        10258,
        16,
    )
    assert (given.classes, given.handle_unclassed) == (("fakecloud.dev/haproxy",), True)


def test_every_flag_is_also_an_environment_variable(ran):
    env = {
        "CCM_CLOUD_URL": "https://cloud:8440",
        "CCM_CLOUD_TOKEN_FILE": "/t",
        "CCM_CLUSTER_NAME": "kind",
        "CCM_LEADER_ELECT": "false",
        "CCM_LEADER_ELECT_LEASE_DURATION": "1m30s",
        "CCM_LOAD_BALANCER_CLASS": "a.example/x b.example/y",
        "CCM_HANDLE_UNCLASSED": "false",
        "CCM_SERVICE_CONDITIONS": "0",
    }
    result = invoke(env=env)
    assert result.exit_code == 0, result.output
    (given,) = ran
    assert given.cloud_url == "https://cloud:8440"
    assert (given.lease.enabled, given.lease.duration_s) == (False, 90.0)
    assert given.classes == ("a.example/x", "b.example/y")
    assert (given.handle_unclassed, given.service_conditions) == (False, False)


@pytest.mark.parametrize(
    ("flags", "routes", "pods"),
    [
        ((), False, ()),
        (("--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16"), False, ()),
        (("--configure-cloud-routes",), True, ("10.244.0.0/16", "fd00::/56")),
        (("--configure-cloud-routes", "--pod-networks=10.0.0.0/8"), True, ("10.0.0.0/8",)),
        (("--configure-cloud-routes", "--controllers=*,-route"), False, ()),
        (("--configure-cloud-routes", "--controllers=node-route-controller"), True, None),
    ],
)
def test_r_01_ki_05_routes_are_configured_if_asked_for(ran, flags, routes, pods):
    """Upstream's default is to do it; in a kind cluster it would fight the network plug-in."""
    assert invoke(*BASE, "--cluster-cidr=10.244.0.0/16,fd00::/56", *flags).exit_code == 0
    (given,) = ran
    assert given.runs(selection.ROUTE) is routes
    if pods is not None:
        assert given.pod_networks == pods  # then load balancers reach pods without nodePorts


@pytest.mark.parametrize(
    "given", [["--controllers=*,-service"], ["--controllers=*", "--controllers=-service"]]
)
def test_controllers_by_commas_or_repeated(ran, given):
    assert invoke(*BASE, *given).exit_code == 0
    assert ran[0].controllers == ("*", "-service")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--cloud-url", "ftp://x", "--cloud-token-file", "t"), "--cloud-url"),
        ((*BASE, "--cloud-provider", "aws"), "--cloud-provider"),
        ((*BASE, "--leader-elect-lease-duration", "soon"), "--leader-elect-lease-duration"),
        ((*BASE, "--leader-elect-lease-duration", "5s"), "--leader-elect-renew-deadline"),
        ((*BASE, "--tls-cert-file", "x"), "--tls-private-key-file"),
        ((*BASE, "--leader-elect-resource-lock", "configmaps"), "--leader-elect-resource-lock"),
        ((*BASE, "--log-level", "loud"), "--log-level"),
        ((*BASE, "--controllers", "*,-services"), "--controllers"),
        ((*BASE, "--concurrent-service-syncs", "0"), "concurrent-service-syncs"),
        ((*BASE, "--configure-cloud-routes"), "--cluster-cidr"),
        ((*BASE, "--cluster-cidr", "10.244.0.0/33"), "--cluster-cidr"),
        ((*BASE, "--cluster-cidr", "10.244.0.0/16,10.245.0.0/16"), "--cluster-cidr"),
        ((*BASE, "--controllers", "route"), "--configure-cloud-routes"),
        ((), "cloud-url"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(ran, arguments, word):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert word in result.output
    assert "Traceback" not in result.output
    assert not ran


def test_configuration_error_of_the_run_is_exit_code_2(monkeypatch):
    async def run(given):
        raise errors.ConfigError("kubeconfig /nowhere: No such file")

    monkeypatch.setattr(app, "run", run)
    result = invoke(*BASE)
    assert (result.exit_code, "kubeconfig /nowhere" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15.0), ("1m30s", 90.0), ("500ms", 0.5), ("1.5h", 5400.0)]
)
def test_durations_as_go_writes_them(text, seconds):
    assert settings.parse_duration_s("--x", text) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "15 s", "-1s", "1d"])
def test_what_is_no_duration(text):
    with pytest.raises(errors.ConfigError, match="--x"):
        settings.parse_duration_s("--x", text)


UPSTREAM = (
    "--cloud-provider=fakecloud --cloud-config=/etc/cloud --allocate-node-cidrs=true "
    "--cluster-cidr=10.244.0.0/16 --configure-cloud-routes=false --controllers=* "
    "--concurrent-service-syncs=5 --concurrent-node-syncs=2 --concurrent-node-status-updates=3 "
    "--kube-api-qps 50 --kube-api-burst 100 --leader-elect=true --profiling "
    "--leader-elect-resource-lock=leases --min-resync-period=12h --v=2 -v 4 "
    "--use-service-account-credentials --feature-gates=A=true --node-monitor-period=5s "
    "--authentication-kubeconfig=/etc/a --authorization-kubeconfig=/etc/b --secure-port=10258"
)


def test_p_17_a_command_line_of_upstreams_runs_as_it_is(ran):
    result = invoke(*BASE, *UPSTREAM.split())
    assert result.exit_code == 0, result.output
    (given,) = ran
    assert (given.service_workers, given.node_workers, given.lease.enabled) == (5, 2, True)
    assert given.configure_cloud_routes is False
    assert (given.authentication_kubeconfig, given.authorization_kubeconfig) == (
        Path("/etc/a"),
        Path("/etc/b"),
    )
    for flag in ("--cloud-config", "--kube-api-qps", "-v", "--profiling"):
        assert f"{flag} has no effect: {upstream.WITHOUT_EFFECT[flag]}" in result.output


@pytest.mark.parametrize(("value", "enabled"), [("false", False), ("0", False), ("True", True)])
def test_switches_are_read_as_go_writes_them(ran, value, enabled):
    assert invoke(*BASE, f"--leader-elect={value}").exit_code == 0
    assert ran[0].lease.enabled is enabled


@pytest.mark.parametrize(
    "wrong", [("--leader-elect=maybe",), ("--no-such-flag=1",), ("positional",)]
)
def test_p_17_what_nobody_knows_is_wrong_usage(ran, wrong):
    assert invoke(*BASE, *wrong).exit_code == 2
    assert not ran
