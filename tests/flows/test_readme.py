"""The README's lines do what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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
    for seen in ('"state":"ACTIVE"', "lost, as asked", '"16.', '"secret"', '"violations":[]'):
        assert seen in done.stdout, (seen, done.stdout)
