"""Results of Kubernetes' own LoadBalancer specs: gathered in a file, shown as a page.

One run has one setting (proxy mode, families, nodes, options); a new run of it replaces the old
one. `scoreboard.json` holds the runs, `SCOREBOARD.md` is made from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent
RUNS: Final = FOLDER / "scoreboard.json"
PAGE: Final = FOLDER / "SCOREBOARD.md"
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_STATES: Final = {"passed": PASSED, "skipped": SKIPPED, "pending": SKIPPED}
_SIGNS: Final = {PASSED: "✓", FAILED: "**fails**", SKIPPED: "skip"}
_NOISE: Final = re.compile(r"^\[sig-[a-z-]+\] |( \[[^\]]+\])+(?= |$)")
_LONGEST_REASON: Final = 200


@dataclass(frozen=True)
class Result:
    """One spec. outcome: passed, failed or skipped; reason: why not passed, one line."""

    spec: str
    outcome: str
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Run:
    """All specs in one setting. when: UTC, to the minute; versions: what ran."""

    provider: str
    proxy: str
    families: str
    nodes: str
    option: str
    when: str
    versions: str
    results: tuple[Result, ...]

    @property
    def setting(self) -> str:
        """Return what tells this run from the others."""
        parts = (self.provider, self.proxy, self.families, self.nodes, self.option)
        return ", ".join(part for part in parts if part)

    def count(self, outcome: str) -> int:
        """Return how many specs ended like this."""
        return sum(result.outcome == outcome for result in self.results)


def results_of(report: Iterable[Mapping[str, Any]], focus: str) -> tuple[Result, ...]:
    """Return the specs of a Ginkgo JSON report whose names match `focus`, sorted by name."""
    wanted = re.compile(focus)
    found = []
    for suite in report:
        for one in suite.get("SpecReports") or ():
            name = " ".join([*(one.get("ContainerHierarchyTexts") or ()), one["LeafNodeText"]])
            if one["LeafNodeType"] == "It" and wanted.search(name):
                found.append(_result(name, one))
    return tuple(sorted(found, key=lambda result: result.spec))


def _result(name: str, one: Mapping[str, Any]) -> Result:
    outcome = _STATES.get(one["State"], FAILED)
    message = (one.get("Failure") or {}).get("Message") or ""
    first = next((line.strip() for line in message.splitlines() if line.strip()), "")
    reason = "" if outcome == PASSED else first[:_LONGEST_REASON]
    return Result(_NOISE.sub("", name), outcome, round(one["RunTime"] / 1e9, 1), reason)


def load(path: Path = RUNS) -> list[Run]:
    """Return the runs of the file, none if there is no file."""
    if not path.exists():
        return []
    return [
        Run(**{**run, "results": tuple(Result(**result) for result in run["results"])})
        for run in json.loads(path.read_text())
    ]


def merged(runs: Iterable[Run], new: Run) -> list[Run]:
    """Return `runs` with `new` in place of an older one of its setting; by setting.

    Specs that were not part of the new run keep their older result.
    """
    others = [run for run in runs if run.setting != new.setting]
    kept = {result.spec: result for run in runs if run.setting == new.setting
            for result in run.results}  # fmt: skip
    kept |= {result.spec: result for result in new.results}
    whole = Run(**{**_fields(new), "results": tuple(kept[name] for name in sorted(kept))})
    return sorted([*others, whole], key=lambda run: run.setting)


def _fields(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}


def save(runs: Iterable[Run], path: Path = RUNS, page: Path = PAGE) -> None:
    """Write both files."""
    runs = list(runs)
    path.write_text(json.dumps([asdict(run) for run in runs], indent=1, ensure_ascii=False) + "\n")
    page.write_text(render(runs))


def render(runs: Iterable[Run]) -> str:
    """Return the page: the runs, then every spec of every run."""
    runs = list(runs)
    lines = [
        "# Kubernetes' own LoadBalancer specs",
        "",
        "Written by `make scoreboard`, which runs Kubernetes' `e2e.test` "
        "(`--provider=skeleton`, focus `[Feature:LoadBalancer]`) on a kind cluster with the add-on. "
        "Nothing is skipped by us: what is skipped skips itself, for the reason given. *Routes to "
        "pods*: fakecloud's container has a route to every node's pods, which Services without "
        "nodePorts need (`make kind POD_ROUTES=1`). In a dual-stack cluster the spec that asks "
        "the nodes' healthCheckNodePort asks every address of each, also those of IPv6, where "
        "kube-proxy doesn't listen for a Service of IPv4 (with no load balancer in sight either).",
        "",
        "| run | setting | passed | failed | skipped | when (UTC) | what ran |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {run.setting} | {run.count(PASSED)} | {run.count(FAILED)} "
        f"| {run.count(SKIPPED)} | {run.when} | {run.versions} |"
        for number, run in enumerate(runs, 1)
    ]
    for number, run in enumerate(runs, 1):
        lines += ["", f"## Run {number}: {run.setting}", ""]
        lines += ["| spec | result | seconds | reason |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(one.spec)} | {_SIGNS[one.outcome]} | {one.seconds:.0f} | {_cell(one.reason)} |"
            for one in run.results
        ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
