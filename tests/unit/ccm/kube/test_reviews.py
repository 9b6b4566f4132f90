"""Delegated authentication and authorization, against an API server in memory."""

from __future__ import annotations

import json

import pytest

from ccm import errors
from ccm.kube import reviews
from tests.fakes.ccm_clock import FakeClock

ROOT = {"username": "prometheus", "uid": "7", "groups": ["system:authenticated"]}


class FakeReviews:
    """A transport that reviews: `users` by token, `may` (user, path)."""

    def __init__(self):
        self.users = {"good": ROOT, "idle": {"username": "nobody"}}
        self.may = {("prometheus", "/metrics")}
        self.bodies = []
        self.failing = None
        self.garbage = False

    async def request(self, method, path, *, body, timeout_s):
        assert method == "POST"
        self.bodies.append(body)
        if self.failing:
            raise self.failing
        if self.garbage:
            return b"{"
        spec = body["spec"]
        if path == "/apis/authentication.k8s.io/v1/tokenreviews":
            user = self.users.get(spec["token"])
            status = {"authenticated": user is not None, "user": user or {}}
        else:
            assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            asked = spec["nonResourceAttributes"]
            assert asked["verb"] == "get"
            status = {"allowed": (spec["user"], asked["path"]) in self.may}
        return json.dumps({"kind": body["kind"], "status": status}).encode()


@pytest.fixture
def server():
    return FakeReviews()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def reviewer(server, clock):
    return reviews.Reviewer(server, clock)


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        ("good", "/metrics", 200),
        ("good", "/configz", 403),
        ("idle", "/metrics", 403),
        ("x", "/", 401),
    ],
)
async def test_rb_05_api_server_says_who_it_is_and_what_they_may(reviewer, token, path, status):
    assert await reviewer.status(token, path) == status


async def test_rb_05_whole_user_is_reviewed(reviewer, server):
    await reviewer.status("good", "/metrics")
    spec = server.bodies[1]["spec"]
    assert (spec["user"], spec["uid"], spec["groups"]) == (
        "prometheus", "7", ["system:authenticated"],
    )  # fmt: skip


async def test_answers_are_kept_for_a_while_and_withdrawn_rights_are_noticed(
    reviewer, server, clock
):
    for _ in range(5):
        assert await reviewer.status("good", "/metrics") == 200
        assert await reviewer.status("x", "/metrics") == 401
    assert len(server.bodies) == 3
    server.may.clear()
    await clock.advance(reviews.KEEP_S)
    assert await reviewer.status("good", "/metrics") == 403


@pytest.mark.parametrize("trouble", ["error", "garbage"])
async def test_trouble_is_neither_yes_nor_kept(reviewer, server, trouble):
    server.failing = errors.KubeError(403, "Forbidden", "no") if trouble == "error" else None
    server.garbage = trouble == "garbage"
    with pytest.raises(errors.KubeError):
        await reviewer.status("good", "/metrics")
    server.failing, server.garbage = None, False
    assert await reviewer.status("good", "/metrics") == 200


async def test_guessed_tokens_take_bounded_memory(reviewer, server):
    for number in range(reviews.MOST + 50):
        await reviewer.status(f"guess-{number}", "/metrics")
    assert len(reviewer._known) == reviews.MOST
