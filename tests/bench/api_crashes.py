"""The crash matrix of the tests as figures: which cells there are, and which of them held."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

_ROOT = Path(__file__).parent.parent.parent
_MATRIX = "tests/flows/test_crash_matrix.py"
_CELL = re.compile(r"test_killed_at\[(?P<cell>[a-z_-]+)\]")
_DATABASES = ("sqlite", "postgresql")
_LIMIT_S = 240


def run(say: Callable[[str], None]) -> dict[tuple[str, str, str], bool]:
    """Return for each database, operation and point whether everything held after the restart.

    What can't be tried on this machine is left out; `say` is told why, and why a cell didn't hold.
    """
    with (
        tempfile.TemporaryDirectory(prefix="fakecloud-bench-") as name,
        ThreadPoolExecutor() as both,
    ):
        reports = list(both.map(lambda kind: _tested(kind, Path(name)), _DATABASES))
    cells: dict[tuple[str, str, str], bool] = {}
    for case in (case for report in reports for case in report.iter("testcase")):
        match = _CELL.fullmatch(case.get("name", ""))
        skipped = case.find("skipped")
        if match is None or skipped is not None:
            say(
                f"not tried: {case.get('name')}: {'' if skipped is None else skipped.get('message')}"
            )
            continue
        kind, operation, point = match["cell"].split("-")
        wrong = [*case.iter("failure"), *case.iter("error")]
        for one in wrong:
            say(f"BROKEN {match['cell']}: {_reason(one)}")
        held = not wrong
        cells[kind, operation, point] = held and cells.get((kind, operation, point), True)
    return cells


def _reason(wrong: ElementTree.Element) -> str:
    """Return what the test says, and where: its own words and the last place."""
    lines = [line for line in (wrong.text or "").splitlines() if line.strip()]
    return "\n".join([wrong.get("message", ""), *lines[-12:]])[:3000]


def _tested(kind: str, directory: Path) -> ElementTree.Element:
    """Return pytest's report on the cells of one database."""
    report = directory / f"{kind}.xml"
    options = ["-q", "-p", "no:cacheprovider", "-k", kind, f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, _MATRIX],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if not report.exists():
        raise RuntimeError((done.stdout + done.stderr)[-3000:])
    return ElementTree.parse(report).getroot()
