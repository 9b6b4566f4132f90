"""A certificate's life: brought, used, renewed, run out, deleted; its key is told to nobody."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from fakecloud.__main__ import whole
from tests.flows.conftest import document, eventually

YEAR = timedelta(days=365)


def brought(
    *hosts: str, serial: int = 1, lasts: timedelta = YEAR, key: Any = None
) -> dict[str, str]:
    """Return a self-signed certificate and its key as a customer brings them."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    end = datetime.now(UTC) + lasts  # noqa: TID251 - certificates are about real time
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), serial)
        .not_valid_before(end - YEAR - YEAR)
        .not_valid_after(end)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    return {
        "certificate": made.public_bytes(serialization.Encoding.PEM).decode(),
        "private_key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ).decode(),
    }


def secured(targets: list[dict[str, Any]], *names: str) -> dict[str, Any]:
    whole = document(targets)
    tls = {"certificates": list(names)}
    whole["spec"]["listeners"][0] |= {"protocol": "https", "tls": tls}
    return whole


def seen(ip: str) -> int:
    """Return the serial number of the certificate that a client gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((ip, 8080), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="shop.example") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def condition(lb: dict[str, Any]) -> tuple[str, str]:
    (found,) = [c for c in lb["status"]["conditions"] if c["type"] == "CertificatesValid"]
    return found["status"], found["reason"]


def test_life_of_a_certificate(cloud, targets):
    """Created, used, renewed while it serves, and not deleted before nobody uses it."""
    first = brought("shop.example", "*.shop.example")
    made = cloud.http.put("/v1/certificates/shop", json={**first, "labels": {"a": "b"}})
    assert made.status_code == 201, made.text
    assert made.json()["hosts"] == ["shop.example", "*.shop.example"]
    assert made.json()["used_by"] == []
    assert cloud.http.put("/v1/certificates/shop", json={**first, "labels": {"a": "b"}}).json() == (
        made.json()
    )
    lb = cloud.active("web", secured(targets, "shop"))
    ip = lb["status"]["addresses"][0]["ip"]
    assert (seen(ip), condition(lb)) == (1, ("True", "Valid"))
    assert cloud.http.get("/v1/certificates/shop").json()["used_by"] == ["web"]

    soon = brought("shop.example", serial=2, lasts=timedelta(days=3))
    assert cloud.http.put("/v1/certificates/shop", json=soon).status_code == 200
    eventually(lambda: seen(ip) == 2)
    eventually(lambda: condition(cloud.get("web")) == ("True", "ExpiresSoon"))
    eventually(lambda: cloud.get("web")["status"]["state"] == "ACTIVE")
    ended = brought("shop.example", serial=3, lasts=-timedelta(days=1))
    cloud.http.put("/v1/certificates/shop", json=ended)
    eventually(lambda: condition(cloud.get("web")) == ("False", "Expired"))
    assert cloud.get("web")["status"]["generation"] == 1

    refused = cloud.http.delete("/v1/certificates/shop")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert "web" in refused.json()["detail"]
    cloud.remove("web")
    assert cloud.http.delete("/v1/certificates/shop").status_code == 204
    assert cloud.http.get("/v1/certificates/shop").status_code == 404


def test_a_key_is_told_to_nobody(cloud, targets, caplog):
    """Not by an answer, a list, the watch, an export, nor by a copy of the database."""
    pair = brought("shop.example")
    secret = "".join(pair["private_key"].splitlines()[1:-1])[10:60]
    answers = [cloud.http.put("/v1/certificates/shop", json=pair)]
    cloud.active("web", secured(targets, "shop"))
    answers += [
        cloud.http.get(path)
        for path in (
            "/v1/certificates",
            "/v1/certificates/shop",
            "/v1/load-balancers/web",
            "/v1/load-balancers/web/config",
            "/v1/load-balancers/web/logs",
            "/v1/audit",
        )
    ]
    answers.append(cloud.http.post("/v1/admin:export"))
    with cloud.http.stream(
        "GET", "/v1/watch", params={"kinds": "certificate", "initial": "true"}
    ) as stream:
        frame = json.loads(next(stream.iter_lines()))
    assert (frame["kind"], frame["object"]["name"]) == ("certificate", "shop")
    answers = [answer.text for answer in answers if answer.status_code < 400]
    assert len(answers) >= 7
    told = json.dumps(answers) + json.dumps(frame)
    base = "".join(told.split("\\n"))
    assert secret not in base.replace("\\\\n", "")
    assert "PRIVATE KEY" not in told
    stored = b"".join(path.read_bytes() for path in cloud.directory.glob("fakecloud.db*"))
    assert b"PRIVATE KEY" not in stored
    assert b"BEGIN CERTIFICATE" in stored
    assert (cloud.directory / "certificates.key").stat().st_mode & 0o777 == 0o600
    cloud.remove("web")
    cloud.http.delete("/v1/certificates/shop")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"certificate": "x"}, "/certificate"),
        ({"private_key": "x"}, "/private_key"),
        ({"private_key": brought("b.example")["private_key"]}, "/private_key"),
        ({"certificate": brought("a.example")["private_key"]}, "/certificate"),
        (
            brought("a.example", key=rsa.generate_private_key(65537, 1024)),
            "/private_key",
        ),
        ({"certificate": ""}, "/certificate"),
        ({"password": "x"}, "/password"),
    ],
    ids=["no chain", "no key", "other key", "key as chain", "weak", "empty", "unknown field"],
)
def test_what_is_no_certificate_is_refused_by_name(cloud, change, pointer):
    answer = cloud.http.put("/v1/certificates/bad", json={**brought("a.example"), **change})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert cloud.http.get("/v1/certificates/bad").status_code == 404


def test_unknown_certificate_is_refused_by_name(cloud, targets):
    answer = cloud.put("web", secured(targets, "nobody"))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [one["pointer"] for one in answer.json()["errors"]] == [
        "/spec/listeners/0/tls/certificates/0"
    ]


def test_commands(cloud, targets, tmp_path):
    pair = brought("shop.example")
    for name, text in pair.items():
        (tmp_path / name).write_text(text)
    door = ["--url", cloud.url, "--token-file", str(cloud.directory / "admin.token")]

    def run(*words: str) -> str:
        done = CliRunner().invoke(whole(), ["cert", *words, *door])
        assert done.exit_code == 0, done.output
        return done.output

    files = ["--cert", str(tmp_path / "certificate"), "--key", str(tmp_path / "private_key")]
    assert "shop.example" in run("put", "shop", *files)
    assert "shop" in run("list")
    assert json.loads(run("get", "shop", "-o", "json"))["used_by"] == []
    run("delete", "shop")
    assert "shop" not in run("list")


def test_requests_are_served_by_rules_and_over_tls(cloud, targets):
    """The whole way from a document to a client, for http and https."""
    cloud.http.put("/v1/certificates/shop", json=brought("shop.example"))
    whole = secured(targets, "shop")
    lb = cloud.active("web", whole)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    ip = lb["status"]["addresses"][0]["ip"]
    connection = http.client.HTTPSConnection(ip, 8080, timeout=5, context=context)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    cloud.remove("web")
    cloud.http.delete("/v1/certificates/shop")
