"""Fixtures of this folder."""

from __future__ import annotations

import pytest

from tests.unit.ccm.service.stage import Stage


@pytest.fixture
def it() -> Stage:
    """A fresh world."""
    return Stage()
