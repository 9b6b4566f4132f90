"""Ids of resources."""

from __future__ import annotations

import secrets
from datetime import datetime


def new_id(prefix: str, now: datetime) -> str:
    """Return an id that sorts by time: prefix, 11 hex digits of milliseconds, 12 random ones."""
    return f"{prefix}_{int(now.timestamp() * 1000):011x}{secrets.token_hex(6)}"
