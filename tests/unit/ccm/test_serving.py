"""The secure port."""

from __future__ import annotations

import json
import socket

import aiohttp
import pytest
from cryptography import x509

from ccm import certificate, clock, errors, metrics, serving
from tests.unit.ccm import builders


class FakeAccess:
    """Knows tokens and what the API server would say of them."""

    def __init__(self):
        self.tokens = {"reader": 200, "other": 403}
        self.failing = False
        self.asked = []

    async def status(self, token, path):
        self.asked.append((token, path))
        if self.failing:
            raise errors.KubeUnreachable("no answer")
        return self.tokens.get(token, 401)


@pytest.fixture
async def server(unused_port):
    wrong = {"live": "", "ready": "not listed yet"}
    target = serving.Server(
        builders.run_settings(secure_port=unused_port, bind_address="127.0.0.1"),
        metrics.Metrics(),
        {"leaderElection": lambda: wrong["live"]},
        {"caches": lambda: wrong["ready"]},
        FakeAccess(),
    )
    await target.start()
    yield f"https://127.0.0.1:{unused_port}", wrong
    await target.stop()


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def get(url):
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=False) as response,
    ):
        return response.status, await response.text()


async def test_p_12_p_13_p_14_health_and_metrics_over_tls(server):
    url, wrong = server
    assert await get(f"{url}/healthz") == (200, "ok")
    assert await get(f"{url}/livez?verbose") == (200, "[+]leaderElection ok\n")
    status, body = await get(f"{url}/readyz")
    assert (status, "[-]caches failed: not listed yet" in body) == (500, True)
    wrong["ready"] = ""
    assert (await get(f"{url}/readyz"))[0] == 200
    wrong["live"] = "lease not renewed"
    assert (await get(f"{url}/healthz"))[0] == 500
    status, body = await get(f"{url}/metrics")
    assert status == 200
    assert "service_controller_loadbalancer_sync_total" in body
    assert (await get(f"{url}/other"))[0] == 404


async def test_plain_http_is_refused(server):
    url, _ = server
    with pytest.raises(aiohttp.ClientError):
        await get(url.replace("https", "http") + "/healthz")


@pytest.fixture
async def abroad(unused_port, monkeypatch):
    """A server whose every caller comes from another machine."""
    monkeypatch.setattr(serving, "_is_loopback", lambda address: False)
    access = FakeAccess()
    settings = builders.run_settings(secure_port=unused_port, bind_address="127.0.0.1")
    target = serving.Server(settings, metrics.Metrics(), {}, {}, access)
    await target.start()
    yield f"https://127.0.0.1:{unused_port}", access
    await target.stop()


async def ask(url, authorization=None):
    headers = {} if authorization is None else {"Authorization": authorization}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=False, headers=headers) as response,
    ):
        return response.status, response.headers


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer reader", 200),
        ("bearer reader", 200),
        ("Bearer other", 403),
        ("Bearer strange", 401),
        ("Basic cmVhZGVy", 401),
        ("Bearer ", 401),
        (None, 401),
    ],
)
async def test_rb_05_p_12_metrics_from_elsewhere_need_a_token(abroad, authorization, status):
    url, access = abroad
    found, headers = await ask(f"{url}/metrics", authorization)
    assert found == status
    assert (headers.get("WWW-Authenticate") == "Bearer") is (status == 401)
    usable = authorization is not None and authorization.lower().startswith("bearer r")
    usable = usable or authorization in ("Bearer other", "Bearer strange")
    assert [path for _, path in access.asked] == (["/metrics"] if usable else [])


async def test_p_12_health_needs_no_token(abroad):
    url, access = abroad
    for path in ("/healthz", "/livez", "/readyz"):
        assert (await ask(f"{url}{path}"))[0] == 200
    assert access.asked == []


async def test_rb_05_who_asks_is_not_let_in_while_nobody_can_say(abroad):
    url, access = abroad
    access.failing = True
    assert (await ask(f"{url}/metrics", "Bearer reader"))[0] == 503


@pytest.mark.parametrize("address", ["10.0.0.1", "", None, "fe80::1"])
def test_metrics_are_for_loopback_only(address):
    assert not serving._is_loopback(address)


async def test_taken_port_is_a_configuration_error(server):
    port = int(server[0].rpartition(":")[2])
    settings = builders.run_settings(secure_port=port, bind_address="127.0.0.1")
    second = serving.Server(settings, metrics.Metrics(), {}, {}, FakeAccess())
    with pytest.raises(errors.ConfigError, match="--secure-port"):
        await second.start()
    await second.stop()


async def test_port_zero_is_no_server():
    target = serving.Server(
        builders.run_settings(secure_port=0), metrics.Metrics(), {}, {}, FakeAccess()
    )
    await target.start()
    await target.stop()


async def test_own_certificate_that_cannot_be_read_is_a_configuration_error(tmp_path):
    file = tmp_path / "tls.pem"
    file.write_text("no certificate")
    settings = builders.run_settings(secure_port=1, tls_cert_file=file, tls_key_file=file)
    with pytest.raises(errors.ConfigError, match="certificate"):
        await serving.Server(settings, metrics.Metrics(), {}, {}, FakeAccess()).start()


def test_certificate_is_for_localhost():
    pem = certificate.self_signed(clock.SystemClock().now())
    found = x509.load_pem_x509_certificate(pem)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


async def test_p_12_p_13_checks_are_counted_and_can_be_left_out(server):
    url, _ = server
    assert (await get(f"{url}/readyz"))[0] == 500
    assert await get(f"{url}/readyz?exclude=caches") == (200, "ok")
    status, body = await get(f"{url}/metrics/slis")
    assert status == 200
    assert 'kubernetes_healthcheck{name="caches",type="readyz"} 0.0' in body
    assert 'kubernetes_healthcheck{name="leaderElection",type="readyz"} 1.0' in body
    assert 'kubernetes_healthchecks_total{name="leaderElection",status="success",' in body


async def test_p_01_p_12_configuration_is_shown_under_upstreams_name(server):
    url, _ = server
    found = json.loads((await get(f"{url}/configz"))[1])[serving.CONFIG_GROUP]
    assert found["lease"]["duration_s"] == 15.0
    assert found["cloud_token_file"] == "token"


@pytest.mark.parametrize("path", ["/configz", "/metrics/slis"])
async def test_p_12_more_than_health_needs_a_token(abroad, path):
    assert (await ask(f"{abroad[0]}{path}"))[0] == 401
