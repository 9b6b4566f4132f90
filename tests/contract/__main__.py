"""Writes README.md of this folder from the points and the tests there are."""

from __future__ import annotations

from tests import contract

contract.README.write_text(contract.render(contract.load(), contract.shown_by()), "utf-8")
