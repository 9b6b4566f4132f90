"""From Ginkgo's report to the page."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e import scoreboard

FOCUS = r"\[Feature:LoadBalancer\]"


def spec(text: str, state: str = "passed", seconds: float = 1.5, message: str = "") -> dict:
    failure = {"Failure": {"Message": message}} if message else {}
    return {
        "ContainerHierarchyTexts": ["[sig-network] LoadBalancers [Feature:LoadBalancer] [Slow]"],
        "LeafNodeText": text,
        "LeafNodeType": "It",
        "State": state,
        "RunTime": int(seconds * 1e9),
        **failure,
    }


def run(*results: scoreboard.Result, nodes: str = "3 nodes") -> scoreboard.Run:
    return scoreboard.Run(
        provider="fakecloud",
        proxy="nftables",
        families="IPv4",
        nodes=nodes,
        option="",
        when="2026-01-01 00:00",
        versions="Kubernetes v1",
        results=results,
    )


def test_what_matches_counts_and_says_why_it_did_not_pass():
    other = {**spec("x"), "ContainerHierarchyTexts": ["[sig-network] DNS"], "State": "skipped"}
    hook = {**spec(""), "LeafNodeType": "AfterSuite"}
    report = [
        {
            "SpecReports": [
                spec("works [Slow]"),
                spec("skips", "skipped", message="uses 'Proxy' IPMode\nmore"),
                spec("hangs", "timedout", message="no answer | at all"),
                other,
                hook,
            ]
        }
    ]
    assert scoreboard.results_of(report, FOCUS) == (
        scoreboard.Result("LoadBalancers hangs", "failed", 1.5, "no answer | at all"),
        scoreboard.Result("LoadBalancers skips", "skipped", 1.5, "uses 'Proxy' IPMode"),
        scoreboard.Result("LoadBalancers works", "passed", 1.5),
    )


def test_a_new_run_replaces_what_it_ran_again_and_nothing_else():
    old = run(scoreboard.Result("a", "failed", 1), scoreboard.Result("b", "passed", 1))
    alone = run(scoreboard.Result("a", "passed", 1), nodes="1 node")
    new = run(scoreboard.Result("a", "passed", 2))
    first, second = scoreboard.merged([old, alone], new)
    assert first == alone
    assert second.results == (
        scoreboard.Result("a", "passed", 2),
        scoreboard.Result("b", "passed", 1),
    )


def test_the_page_is_made_from_the_file(tmp_path: Path):
    runs = [run(scoreboard.Result("a", "failed", 1, "x|y"), scoreboard.Result("b", "passed", 2))]
    file, page = tmp_path / "runs.json", tmp_path / "page.md"
    scoreboard.save(runs, file, page)
    assert scoreboard.load(file) == runs
    assert json.loads(file.read_text())
    text = page.read_text()
    assert "| 1 | fakecloud, nftables, IPv4, 3 nodes | 1 | 1 | 0 |" in text
    assert "| a | **fails** | 1 | x\\|y |" in text


def test_the_page_in_the_repository_is_up_to_date():
    assert scoreboard.PAGE.read_text() == scoreboard.render(scoreboard.load())
