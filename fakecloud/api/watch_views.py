"""What one watcher sees of the stream: objects that match its labels, and the fields it wants."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from fakecloud.domain import filters
from fakecloud.watch.hub import Frame

ALWAYS: Final = (("id",), ("name",))


@lru_cache(maxsize=2000)
def _object(text: str) -> dict[str, Any]:
    """Return the object of a frame; many watchers ask for the same one at about the same time."""
    found: dict[str, Any] = msgspec.json.decode(text)["object"]
    return found


class View:
    """A stream of frames as one watcher sees it.

    With a selector, an object that begins to match comes as ADDED and one that no longer matches
    as DELETED. Of an object that was there before the watch began and doesn't match when it
    changes, it isn't known whether it matched: it is sent as DELETED once, which does no harm to
    who never knew it. Objects without labels (operations) match what asks for no label.
    """

    def __init__(self, selector: filters.Selector, mask: filters.Mask | None) -> None:
        """Show objects with these labels, in these parts."""
        self._selector = selector
        self._mask = None if mask is None else filters.Mask(paths=(*ALWAYS, *mask.paths))
        self._matched: dict[str, bool] = {}

    def show(self, frame: Frame) -> Frame | None:
        """Return the frame as the watcher sees it, None if it doesn't."""
        if not frame.kind:
            return frame
        type = self._type(frame) if self._selector.requirements else frame.type
        if type is None or (type == frame.type and self._mask is None):
            return None if type is None else frame
        shown = _object(frame.text)
        if self._mask is not None:
            shown = self._mask.apply(shown)
        text = msgspec.json.encode(
            {
                "type": type,
                "resource_version": str(frame.resource_version),
                "kind": frame.kind,
                "object": shown,
            }
        ).decode()
        return msgspec.structs.replace(frame, type=type, text=text)

    def _type(self, frame: Frame) -> str | None:
        matches = self._selector.matches(_object(frame.text).get("labels") or {})
        id, before = frame.object_id, self._matched.get(frame.object_id)
        if frame.type == "DELETED":
            self._matched.pop(id, None)
            return "DELETED" if before or (before is None and matches) else None
        self._matched[id] = matches
        if matches:
            return "ADDED" if before is False else frame.type
        unknown = before is None and frame.type != "ADDED"
        return "DELETED" if before or unknown else None
