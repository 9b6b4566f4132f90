"""JSON merge patch: https://www.rfc-editor.org/rfc/rfc7396, read 2026-11-23."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 32


def merge(target: Any, patch: Any, depth: int = 0) -> Any:
    """Return `target` as `patch` changes it; neither is changed itself.

    Objects merge by key, null removes a key, anything else (lists too) replaces what was there.
    Raises: ValueError when the patch is deeper than any document.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"the patch is deeper than {MAX_DEPTH} objects")
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value, depth + 1)
    return merged
