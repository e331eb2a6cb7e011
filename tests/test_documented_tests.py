"""Tests that the documentation names are there."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NAMED = re.compile(r"`(?:tests/)?([\w/]+\.py)?::(test_\w+)`")


@pytest.mark.parametrize("page", ["problems", "faults_input", "faults_runs", "checkpoints"])
def test_every_test_that_a_page_names_exists(page):
    lines = (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8").splitlines()
    absent, named, count = [], None, 0
    for line in lines:
        for file, test in NAMED.findall(line):
            named = file or named  # `::test_...` is of the file that was named last
            count += 1
            if test not in _tests_of(REPOSITORY / "tests" / named):
                absent.append(f"{named}::{test}")
    assert count > 20
    assert absent == []


def _tests_of(path):
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
