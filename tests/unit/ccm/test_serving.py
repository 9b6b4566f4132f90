"""The secure port."""

from __future__ import annotations

import socket

import aiohttp
import pytest
from cryptography import x509

from ccm import certificate, clock, errors, metrics, serving
from tests.unit.ccm import builders


@pytest.fixture
async def server(unused_port):
    wrong = {"live": "", "ready": "not listed yet"}
    target = serving.Server(
        builders.run_settings(secure_port=unused_port, bind_address="127.0.0.1"),
        metrics.Metrics(),
        {"leaderElection": lambda: wrong["live"]},
        {"caches": lambda: wrong["ready"]},
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


@pytest.mark.parametrize("address", ["10.0.0.1", "", None, "fe80::1"])
def test_metrics_are_for_loopback_only(address):
    assert not serving._is_loopback(address)


async def test_taken_port_is_a_configuration_error(server):
    port = int(server[0].rpartition(":")[2])
    settings = builders.run_settings(secure_port=port, bind_address="127.0.0.1")
    second = serving.Server(settings, metrics.Metrics(), {}, {})
    with pytest.raises(errors.ConfigError, match="--secure-port"):
        await second.start()
    await second.stop()


async def test_port_zero_is_no_server():
    target = serving.Server(builders.run_settings(secure_port=0), metrics.Metrics(), {}, {})
    await target.start()
    await target.stop()


async def test_own_certificate_that_cannot_be_read_is_a_configuration_error(tmp_path):
    file = tmp_path / "tls.pem"
    file.write_text("no certificate")
    settings = builders.run_settings(secure_port=1, tls_cert_file=file, tls_key_file=file)
    with pytest.raises(errors.ConfigError, match="certificate"):
        await serving.Server(settings, metrics.Metrics(), {}, {}).start()


def test_certificate_is_for_localhost():
    pem = certificate.self_signed(clock.SystemClock().now())
    found = x509.load_pem_x509_certificate(pem)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
