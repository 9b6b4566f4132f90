"""Events of a stream in another order, each object's own order kept."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec

from fakecloud.domain.faults import Hit


class _Object(msgspec.Struct):
    name: str | None = None
    id: str | None = None


class _Frame(msgspec.Struct):
    type: str
    kind: str = ""
    object: _Object | None = None


def turn(frames: list[bytes], hit: Hit) -> tuple[list[bytes], list[bytes]]:
    """Return the frames to send now, and those that wait for another object's event.

    Objects change places, by the seed of `hit`; events of one object keep their order. Nothing
    passes a frame that is about no object (BOOKMARK, ERROR): it says what was seen before it.
    """
    subjects = [_subject(frame) for frame in frames]
    marks = [number for number, subject in enumerate(subjects) if subject is None]
    settled = marks[-1] + 1 if marks else 0
    pairs = list(zip(subjects, frames, strict=True))
    out = [
        frame
        for is_mark, run in groupby(pairs[:settled], key=lambda pair: pair[0] is None)
        for frame in ([one for _, one in run] if is_mark else _shuffled(list(run), hit))
    ]
    rest = pairs[settled:]
    if len({subject for subject, _ in rest}) < 2:
        return out, [frame for _, frame in rest]
    return [*out, *_shuffled(rest, hit)], []


def _shuffled(run: list[tuple[Any, bytes]], hit: Hit) -> list[bytes]:
    met = list(dict.fromkeys(subject for subject, _ in run))
    order = sorted(met, key=lambda subject: hit.draw(f"{subject}"))
    if order == met:
        order.reverse()
    return [frame for wanted in order for subject, frame in run if subject == wanted]


def _subject(frame: bytes) -> tuple[str, str] | None:
    """Return the kind and the name (or id) of what a frame is about."""
    data = next((line for line in frame.split(b"\n") if line.startswith((b"{", b"data: "))), b"")
    try:
        found = msgspec.json.decode(data.removeprefix(b"data: "), type=_Frame)
    except msgspec.DecodeError:
        return None
    if not found.kind or found.object is None:
        return None
    return found.kind, found.object.id or found.object.name or ""
