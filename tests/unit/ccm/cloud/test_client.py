"""Requests to the cloud and their errors, against a cloud that is slow, fails and goes away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from ccm import errors, metrics
from ccm.cloud import answers
from ccm.cloud import client as clients
from ccm.cloud import connection as connections
from ccm.service import desired, nodes
from tests.fakes.cloud import TOKEN, FakeCloud, not_found, problem
from tests.unit.ccm import builders

DOCUMENT = desired.build(
    builders.service(), (nodes.Backend("node-1", ("10.0.0.1",)),), builders.ownership()
).document


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


@asynccontextmanager
async def client_of(fake, token_file):
    """Give a client of `fake`."""
    client = clients.Client(
        connections.Connection(
            fake.url, lambda: connections.read_token(token_file), metrics.Metrics()
        )
    )
    try:
        yield client
    finally:
        await client.aclose()


async def test_s_49_b_25_put_get_list_delete(token_file):
    async with FakeCloud().serving() as fake, client_of(fake, token_file) as client:
        assert await client.get("k8s-u-1") is None
        created = await client.put("k8s-u-1", DOCUMENT)
        assert (created.status.state, created.status.generation) == ("PENDING", 1)
        found = await client.get("k8s-u-1")
        assert found is not None
        assert found.spec == DOCUMENT.spec or found.labels == DOCUMENT.labels
        assert [one.name for one in await client.list()] == ["k8s-u-1"]
        assert await client.delete("k8s-u-1") is True
        await asyncio.sleep(0.01)
        assert await client.delete("k8s-u-1") is False


@pytest.mark.parametrize(
    ("answer", "kind", "code", "retry_after_s"),
    [
        (problem(422, "validation_failed", "port", retryable=False), "Refused", None, None),
        (problem(403, "quota_exceeded", "3 of 3", retryable=False), "Refused", None, None),
        (problem(409, "being_deleted", "wait", retryable=True), "Busy", None, None),
        (problem(429, "rate_limited", "slow", retry_after_s=7), "Busy", None, 7.0),
        (problem(503, "unavailable", "later", retry_after_s=2), "Busy", None, 2.0),
        (problem(401, "token_revoked", "no", retryable=False), "Unauthenticated", None, None),
        (web.Response(status=502, text="<html>Bad gateway"), "Busy", "http_502", None),
        (web.Response(status=413, text="<html>Too large"), "Busy", "http_413", None),
        (web.Response(status=404, text="<html>Not here"), "Busy", "http_404", None),
        (web.Response(status=302, text="elsewhere"), "Busy", "http_302", None),
        (web.Response(status=200, text="<html>a login page"), "Busy", "unreadable_answer", None),
    ],
    ids=lambda value: str(getattr(value, "status", value)),
)
async def test_refusals_by_kind(token_file, answer, kind, code, retry_after_s):
    async with FakeCloud().serving() as fake, client_of(fake, token_file) as client:
        fake.trouble.answers = [answer]
        with pytest.raises(errors.CloudError) as caught:
            await client.put("k8s-u-1", DOCUMENT)
        assert type(caught.value).__name__ == f"Cloud{kind}"
        assert caught.value.retry_after_s == retry_after_s
        if code:
            assert caught.value.code == code


@pytest.mark.parametrize("ask", ["get", "delete"])
async def test_l_06_b_25_a_404_that_the_cloud_did_not_say_is_not_gone(token_file, ask):
    """A proxy's 404 must not release a Service whose load balancer runs on."""
    async with FakeCloud().serving() as fake, client_of(fake, token_file) as client:
        await client.put("k8s-u-1", DOCUMENT)
        fake.trouble.answers = [web.Response(status=404, text="<html>no such page")]
        with pytest.raises(errors.CloudBusy):
            await getattr(client, ask)("k8s-u-1")
        assert await client.get("k8s-u-1") is not None


async def test_l_05_l_06_b_22_an_instance_is_there_gone_or_unknown(token_file):
    async with FakeCloud().serving() as fake, client_of(fake, token_file) as client:
        document = {"id": "i_1", "name": "n", "power_state": "stopped", "labels": {}}
        fake.trouble.answers = [web.json_response(document), not_found()]
        found = await client.instance("i_1")
        assert found is not None
        assert (found.id, found.power_state) == ("i_1", "stopped")
        assert await client.instance("i_1") is None
        for answer in (
            web.Response(status=404, text="<html>no such page"),
            web.Response(status=200, text="{}"),
            problem(401, "token_revoked", "no", retryable=False),
            problem(503, "unavailable", "later"),
        ):
            fake.trouble.answers = [answer]
            with pytest.raises(errors.CloudError):
                await client.instance("i_1")


def test_message_names_the_fields():
    body = (
        b'{"code": "validation_failed", "detail": "2 fields are wrong", "retryable": false,'
        b'"errors": [{"pointer": "/spec/listeners/0/port", "code": "x", "message": "1 to 65535"}]}'
    )
    error = answers.problem_error(422, body)
    assert str(error) == "2 fields are wrong (/spec/listeners/0/port: 1 to 65535)"


def test_message_says_nothing_twice():
    body = (
        b'{"code": "unsupported", "detail": "/spec/listeners/0/protocol: sctp is not offered here",'
        b'"errors": [{"pointer": "/spec/listeners/0/protocol", "message": "sctp is not offered"}]}'
    )
    error = answers.problem_error(422, body)
    assert str(error) == "/spec/listeners/0/protocol: sctp is not offered here"


async def test_silent_cloud_is_unreachable_in_bounded_time(token_file, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.05)
    async with FakeCloud().serving() as fake, client_of(fake, token_file) as client:
        fake.trouble.hang = True
        with pytest.raises(errors.CloudUnreachable, match="no answer in time"):
            await client.get("k8s-u-1")


async def test_lost_answer_is_asked_for_once_more(token_file):
    """A kept connection may have been closed meanwhile; what is asked for is the same."""
    async with FakeCloud().serving() as fake, client_of(fake, token_file) as client:
        fake.trouble.drop_after_commit = 1
        assert (await client.put("k8s-u-1", DOCUMENT)).status.generation == 1
        assert fake.count("PUT") == 2


async def test_lost_answers_are_unreachable_and_the_next_put_finds_the_same(token_file):
    async with FakeCloud().serving() as fake, client_of(fake, token_file) as client:
        fake.trouble.drop_after_commit = 2
        with pytest.raises(errors.CloudUnreachable):
            await client.put("k8s-u-1", DOCUMENT)
        again = await client.put("k8s-u-1", DOCUMENT)
        assert again.status.generation == 1
        assert len(fake.load_balancers) == 1


async def test_nobody_there_is_unreachable_with_the_url(token_file):
    async with FakeCloud().serving() as fake:
        url = fake.url
    client = clients.Client(
        connections.Connection(url, lambda: connections.read_token(token_file), metrics.Metrics())
    )
    with pytest.raises(errors.CloudUnreachable, match=url):
        await client.get("k8s-u-1")
    await client.aclose()


async def test_rotated_token_is_read_again_after_a_401(token_file):
    async with FakeCloud().serving() as fake:
        token_file.write_text("old")
        async with client_of(fake, token_file) as client:
            token_file.write_text(TOKEN)
            with pytest.raises(errors.CloudUnauthenticated):
                await client.get("x")
            assert await client.get("x") is None


@pytest.mark.parametrize(
    ("content", "word"),
    [(None, "No such file"), (b"", "empty"), (b"two words", "not a token"), (b"\xff", "not text")],
)
def test_unusable_token_file_is_a_configuration_error(tmp_path, content, word):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(errors.ConfigError, match=word):
        connections.read_token(file)
