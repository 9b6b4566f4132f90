"""The catalogue of problems: each is raised somewhere, and each raised one is in it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import fakecloud
from fakecloud import errors
from fakecloud.api import problems
from fakecloud.domain import failures

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


def test_every_code_of_a_failed_operation_is_explained():
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in ("Transient", "Permanent", "ErrorNote"):
                    code = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "code")][0]
                    found |= {code.value} if isinstance(code, ast.Constant) else set()
    assert found | {errors.AddressElsewhere("192.0.2.1").code} == failures.MEANINGS.keys()


def test_codes_are_distinct_and_statuses_agree():
    codes = [kind.code for kind in KINDS.values()]
    assert len(codes) == len(set(codes))
    for kind in KINDS.values():
        assert 400 <= kind.status < 600
        assert kind.__doc__
        assert kind.title != errors.Problem.title or kind is errors.Internal


def described() -> dict[str, Any]:
    golden = Path(__file__).parents[2] / "golden" / "openapi.json"
    found: dict[str, Any] = json.loads(golden.read_text())
    return found


def test_the_description_names_every_code_where_it_belongs_and_no_other():
    named = set()
    for name, answer in described()["components"]["responses"].items():
        if name != "Problem":
            whole, narrower = answer["content"]["application/problem+json"]["schema"]["allOf"]
            assert whole == {"$ref": "#/components/schemas/Problem"}
            status, codes = narrower["properties"]["status"], narrower["properties"]["code"]
            assert name == f"Problem{status['const']}"
            named |= {(status["const"], code) for code in codes["enum"]}
    injected = {(status, "injected_fault") for status, _ in named}
    assert named - injected == {(k.status, k.code) for k in KINDS.values()} - injected
    codes = {kind.code for kind in KINDS.values()}
    assert (
        set(described()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == codes
    )


def test_every_operation_names_the_problems_it_can_answer():
    for path, item in described()["paths"].items():
        for method, operation in item.items():
            answers = operation["responses"]
            refused = {status for status in answers if status >= "400"}
            if path.startswith("/v1/"):
                assert refused >= {"400", "401", "403", "404", "429", "500", "503", "default"}
            if "requestBody" in operation:
                assert refused >= {"413", "415", "422"}, (method, path)
            for status in refused - {"default"}:
                if path.startswith("/v1/"):
                    assert answers[status] == {"$ref": f"#/components/responses/Problem{status}"}


def test_nothing_raises_the_root_of_the_catalogue():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                called = node.exc.func
                assert getattr(called, "attr", getattr(called, "id", "")) != "Problem", path
