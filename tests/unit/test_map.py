"""The maps in the packages' docstrings name every file, and a misplaced file is noticed twice."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NOT_MAPPED = {"fakecloud/migrations", "fakecloud/migrations/versions"}  # alembic's own layout
PACKAGES = [
    str(found.parent.relative_to(ROOT))
    for top in ("ccm", "fakecloud")
    for found in sorted((ROOT / top).rglob("__init__.py"))
]


def modules(package: Path) -> set[str]:
    """Return the names of a package's modules and packages."""
    files = {p.stem for p in package.glob("*.py")} - {"__init__"}
    return files | {p.parent.name for p in package.glob("*/__init__.py")}


def mapped(package: Path) -> set[str]:
    """Return the names that a package's docstring explains: a name, two spaces, what it is."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text()), clean=False) or ""
    return set(re.findall(r"(?m)(?:^|\s{2,})(\w+)(?:\.py|/)?\s{2,}(?=\S)", text))


@pytest.mark.parametrize("package", [name for name in PACKAGES if name not in NOT_MAPPED])
def test_the_map_names_every_module_and_no_other(package):
    assert mapped(ROOT / package) >= modules(ROOT / package)
    listed = re.findall(r"(?m)^    (\w+)(?:\.py|/)  ", (ROOT / package / "__init__.py").read_text())
    assert set(listed) <= modules(ROOT / package), "the map names what isn't there"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of both packages and the contracts."""
    for name in ("ccm", "fakecloud"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def contracts(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    return subprocess.run(
        [*command, "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold_in_the_copy(copy):
    """Otherwise the tests below would say nothing."""
    result = contracts(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "package", ["fakecloud", "ccm", "fakecloud/domain", "fakecloud/haproxy", "ccm/service"]
)
def test_a_new_file_must_be_placed_and_mapped(copy, package):
    (copy / package / "helpers.py").write_text('"""Left lying about."""\n')
    assert "helpers" in modules(copy / package) - mapped(copy / package)
    result = contracts(copy)
    assert result.returncode == 1
    assert "helpers" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        (
            "fakecloud/domain/lifecycle.py",
            "from fakecloud.tables import cloud",
            "imports point down",
        ),
        (
            "fakecloud/api/operations.py",
            "from fakecloud.provisioning import provisioner",
            "HTTP handlers",
        ),
        ("fakecloud/provisioning/provisioner.py", "import httpx2", "one door"),
        ("fakecloud/domain/addresses.py", "import random", "decisions are pure"),
        (
            "ccm/service/reconciler.py",
            "from fakecloud import model as cloud_model",
            "only over HTTP",
        ),
    ],
)
def test_an_import_across_the_map_is_refused(copy, file, line, contract):
    path = copy / file
    path.write_text(path.read_text() + f"\n{line}\n")
    result = contracts(copy)
    assert result.returncode == 1
    assert re.search(rf"{contract}.*BROKEN", result.stdout), result.stdout
