"""The README's lines do what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def block(section: str) -> str:
    """Return the shell lines of a section."""
    text = README.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    found = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert found, section
    return found[1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_cloud_api_in_five_minutes(new_cloud) -> None:
    cloud = new_cloud()
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block("The cloud API in five minutes")],
        env=os.environ | {"URL": cloud.url, "AUTH": f"Authorization: Bearer {cloud.token}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    cloud.http.put("/v1/clock", json={"mode": "real"})
    assert done.returncode == 0, done.stdout + done.stderr
    for seen in ('"state":"ACTIVE"', "lost, as asked", '"20.075"', '"secret"', '"violations":[]'):
        assert seen in done.stdout, (seen, done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.timeout(90)
def test_what_it_costs_in_five_minutes(new_cloud) -> None:
    """The tables are those that the README shows, but for the seconds that the test took."""
    cloud = new_cloud()
    environment = {
        "URL": cloud.url,
        "AUTH": f"Authorization: Bearer {cloud.token}",
        "FAKECLOUD_URL": cloud.url,
        "FAKECLOUD_TOKEN": cloud.token,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block("What it costs, in five minutes")],
        env=os.environ | environment,
        cwd=README.parent,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    cloud.http.put("/v1/clock", json={"mode": "real"})
    assert done.returncode == 0, done.stdout + done.stderr
    shown = README.read_text().partition("## What it costs, in five minutes\n")[2]
    told = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in shown.split("```\n")[2].splitlines():
        words = [word for word in line.split() if not re.fullmatch(r"\d+\.\d{6,}", word)]
        assert not words or any(set(words) <= set(one.split()) for one in told), (line, told)
    assert '"kind":"hard"' in done.stdout
