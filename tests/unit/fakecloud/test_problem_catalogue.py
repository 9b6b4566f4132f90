"""The catalogue of problems: each is raised somewhere, and each raised one is in it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import fakecloud
from fakecloud import errors
from fakecloud.api import problems

ROOT = Path(fakecloud.__file__).parent
KINDS = {kind.__name__: kind for kind in problems.catalogue()}


def used() -> set[str]:
    """Return the names of problems that any module but errors.py calls or hands on."""
    found = set()
    for path in ROOT.rglob("*.py"):
        if path == ROOT / "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                found.add(node.id)
    return found


def test_every_problem_is_raised_somewhere():
    assert KINDS.keys() - used() == set()


def test_codes_are_distinct_and_statuses_agree():
    codes = [kind.code for kind in KINDS.values()]
    assert len(codes) == len(set(codes))
    for kind in KINDS.values():
        assert 400 <= kind.status < 600
        assert kind.__doc__
        assert kind.title != errors.Problem.title or kind is errors.Internal


def test_the_description_names_every_code():
    golden = Path(__file__).parents[2] / "golden" / "openapi.json"
    codes = {kind.code for kind in KINDS.values()}
    for path, item in json.loads(golden.read_text())["paths"].items():
        for method, operation in item.items():
            refused = operation["responses"].get("default")
            assert refused is not None or not path.startswith("/v1/"), (method, path)
            if refused is not None:
                schema = refused["content"]["application/problem+json"]["schema"]
                assert set(schema["properties"]["code"]["enum"]) == codes, (method, path)


def test_nothing_raises_the_root_of_the_catalogue():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                called = node.exc.func
                assert getattr(called, "attr", getattr(called, "id", "")) != "Problem", path
