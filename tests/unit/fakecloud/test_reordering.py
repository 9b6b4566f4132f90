"""Which event overtakes which under the fault `reorder_across_objects`."""

from __future__ import annotations

import msgspec
import pytest

from fakecloud.api import reordering
from fakecloud.domain.faults import Action, Hit

HITS = [Hit(rule_id="flt_1", seed=seed, ordinal=1, action=Action(type="x")) for seed in range(20)]


def frame(name: str, number: int) -> bytes:
    body = {"type": "MODIFIED", "resource_version": str(number), "kind": "load_balancer",
            "object": {"name": name}}  # fmt: skip
    return msgspec.json.encode(body) + b"\n"


BOOKMARK = b'{"type":"BOOKMARK","resource_version":"9"}\n'


@pytest.mark.parametrize("hit", HITS)
def test_objects_change_places_and_keep_their_own_order(hit):
    frames = [frame("a", 1), frame("b", 2), frame("a", 3), frame("c", 4), frame("b", 5)]
    out, back = reordering.turn(frames, hit)
    assert (sorted(out), back) == (sorted(frames), [])
    assert out != frames
    for name in "abc":
        mine = [one for one in frames if f'"{name}"'.encode() in one]
        assert [one for one in out if one in mine] == mine
    assert reordering.turn(frames, hit)[0] == out, "the same again with the same seed"


@pytest.mark.parametrize("hit", HITS[:3])
def test_one_object_waits_for_another_or_for_a_bookmark(hit):
    alone = [frame("a", 1), frame("a", 2)]
    assert reordering.turn(alone, hit) == ([], alone)
    assert reordering.turn([*alone, BOOKMARK], hit) == ([*alone, BOOKMARK], [])
    later = [*alone, frame("b", 3)]
    assert reordering.turn(later, hit) == ([frame("b", 3), *alone], [])


@pytest.mark.parametrize("hit", HITS)
def test_nothing_passes_a_bookmark(hit):
    frames = [frame("a", 1), frame("b", 2), BOOKMARK, frame("c", 3), frame("d", 4)]
    out, back = reordering.turn(frames, hit)
    assert (back, out[2]) == ([], BOOKMARK)
    assert sorted(out[:2]) == sorted(frames[:2])


def test_different_seeds_give_different_orders():
    frames = [frame(name, number) for number, name in enumerate("abcd")]
    assert len({tuple(reordering.turn(frames, hit)[0]) for hit in HITS}) > 3
