"""The upstream contract, point by point, and which test shows it.

A test shows the points that its name begins with: test_s_14_success_forgets…, also two of them:
test_s_22_a_03_…; `python -m tests.contract` writes README.md of this folder anew.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
README = HERE / "README.md"

_POINT = r"(?:s|n|l|r|p|a|k|e|rb|d|h|t|u|ki|b)_\d\d"
_TEST = re.compile(rf"^\s*(?:async )?def (test(?:_{_POINT})+\w*)\(", re.MULTILINE)

TITLES = {
    "S": "Service controller",
    "N": "Node controller",
    "L": "Node lifecycle controller",
    "R": "Route controller",
    "P": "Process",
    "A": "What the API server does",
    "K": "What kube-proxy does",
    "E": "Enhancement proposals",
    "RB": "RBAC",
    "D": "Deployment",
    "H": "Helpers of the upstream e2e suite",
    "T": "Upstream e2e tests",
    "U": "Upstream unit vectors",
    "KI": "kind",
    "B": "Where upstream is wrong",
}


@dataclass(frozen=True, slots=True)
class Contract:
    """points: number → what it demands; reasons: number → why it has no test."""

    points: dict[str, str]
    reasons: dict[str, str]


def load() -> Contract:
    """Return the points and the reasons."""
    found = tomllib.loads((HERE / "points.toml").read_text("utf-8"))
    return Contract(found["points"], found["reasons"])


def shown_by(tests: Path = TESTS) -> dict[str, list[str]]:
    """Return which tests show a point, as paths below tests/ with the test's name."""
    shown: dict[str, list[str]] = {}
    for file in sorted(tests.rglob("test_*.py")):
        for name in _TEST.findall(file.read_text("utf-8")):
            for number in numbers(name):
                shown.setdefault(number, []).append(f"{file.relative_to(tests)}::{name}")
    return shown


def numbers(name: str) -> list[str]:
    """Return the points that a test's name begins with."""
    prefix = re.match(rf"test(?:_{_POINT})+(?=_)", name)
    if prefix is None:
        return []
    return [one.upper().replace("_", "-") for one in re.findall(_POINT, prefix[0])]


def render(contract: Contract, shown: dict[str, list[str]]) -> str:
    """Return the table: each point with its tests or the reason for having none."""
    lines = [
        "# The contract and the tests that show it",
        "",
        "Written by `python -m tests.contract` from `points.toml` and the names of the tests;",
        "a test fails when it is out of date.",
        "",
        _summary(contract, shown),
    ]
    for group, title in TITLES.items():
        rows = [one for one in contract.points if one.rpartition("-")[0] == group]
        lines += ["", f"## {group}: {title}", "", "| point | what | shown by |", "|---|---|---|"]
        lines += [_row(one, contract, shown.get(one, ())) for one in rows]
    return "\n".join(lines) + "\n"


def _summary(contract: Contract, shown: dict[str, list[str]]) -> str:
    tested = sum(one in shown for one in contract.points)
    explained = sum(one in contract.reasons and one not in shown for one in contract.points)
    left = len(contract.points) - tested - explained
    return f"{len(contract.points)} points: {tested} shown, {explained} explained, {left} open."


def _row(number: str, contract: Contract, tests: Iterable[str]) -> str:
    names = [f"[{one.rpartition('::')[2]}](../{one.rpartition('::')[0]})" for one in tests]
    how = "<br>".join(names) or contract.reasons.get(number, "open")
    return f"| {number} | {_cell(contract.points[number])} | {how} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
