"""The list of slips fits the source, and slips that no test sees are told from the others."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.mutations import (  # noqa: E402
    Mutation,
    MutationError,
    read_mutations,
    report,
)

SLIP = Mutation("sign", "f.py", "return a + b", "return a - b", "sign", ("test_f.py",))

SOURCE = "def add(a, b):\n    return a + b\n\n\ndef half(a):\n    return a / 2\n"
TESTS = "from zoo_lightning.sums import add\n\n\ndef test_sum():\n    assert add(2, 1) == 3\n"
ENTRIES = """
- {name: sign, file: zoo_lightning/sums.py, before: return a + b, after: return a - b,
   means: sign, tests: [test_sums.py]}
- {name: half, file: zoo_lightning/sums.py, before: return a / 2, after: return a / 3,
   means: a third, tests: [test_sums.py], survives: nothing tests it}
"""


def test_every_entry_changes_one_line_that_the_source_has_once():
    mutations = read_mutations()
    assert len(mutations) >= 60
    for mutation in mutations:
        changed = mutation.applied((ROOT / mutation.file).read_text("utf-8"))
        compile(changed, mutation.file, "exec")
        absent = [file for file in mutation.tests if not (ROOT / "tests" / file).is_file()]
        assert mutation.tests, mutation.name
        assert not absent, mutation.name


def test_a_changed_line_keeps_its_indentation_and_may_be_left_out():
    text = "def f(a, b):\n    return a + b\n"
    assert SLIP.applied(text) == "def f(a, b):\n    return a - b\n"
    assert replace(SLIP, after="").applied(text) == "def f(a, b):\n"


@pytest.mark.parametrize("text", ["", "return a + b + c\n", "return a + b\n    return a + b\n"])
def test_a_line_that_is_not_there_exactly_once_is_an_error_that_names_the_entry(text):
    with pytest.raises(MutationError, match=r"'sign'.*f\.py"):
        SLIP.applied(text)


def test_two_entries_of_one_name_are_refused(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text(ENTRIES + ENTRIES)
    with pytest.raises(MutationError, match="'sign'"):
        read_mutations(path)


def test_the_table_keeps_the_first_outcome_beside_the_newest():
    killed = {"outcome": "killed", "test": "test_f.py::test_f", "commit": "def"}
    survived = {"outcome": "survived", "test": "", "commit": "abc"}
    table = report([SLIP], {"sign": {"first": survived, "now": killed}})
    assert "**0 of 1 (0.0 %)**, at commit abc" in table
    assert "Killed now: **1 of 1 (100.0 %)**, at commit def" in table
    assert "| survived | killed | `test_f.py::test_f` |" in table


def run(root, *arguments):
    """The program on a small package, without the libraries of the large one."""
    code = (
        "import sys; from pathlib import Path; from benchmarks.mutations import main; "
        "main(sys.argv[2:], Path(sys.argv[1]), Path(sys.argv[1]) / 'list.yaml', ())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(root), *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def small(tmp_path):
    """A package with two formulas, of which one is tested."""
    files = {
        "zoo_lightning/__init__.py": "",
        "zoo_lightning/sums.py": SOURCE,
        "tests/test_sums.py": TESTS,
        "setup.cfg": "[tool:pytest]\nmarkers =\n    slow: long\n",
        "list.yaml": ENTRIES,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_a_test_sees_is_killed_and_the_rest_survives_without_touching_the_tree(small):
    done = run(small)
    assert done.returncode == 0, done.stderr
    results = json.loads((small / "results/mutations/results.json").read_text())
    assert results["sign"]["now"]["outcome"] == "killed"
    assert results["sign"]["now"]["test"] == "test_sums.py::test_sum"
    assert results["half"]["now"]["outcome"] == "survived"
    assert "- `half`: nothing tests it" in (small / "results/mutations/README.md").read_text()
    assert (small / "zoo_lightning/sums.py").read_text() == SOURCE


def test_a_test_that_fails_by_itself_kills_nothing(small):
    (small / "tests/test_sums.py").write_text(TESTS.replace("== 3", "== 4"))
    assert run(small, "--only", "sign").returncode == 0
    results = json.loads((small / "results/mutations/results.json").read_text())
    for found in results["sign"].values():
        assert found["outcome"] == "broken"
        assert found["test"] == "test_sums.py::test_sum fails without any change"


def test_a_name_that_is_unknown_is_an_error(small):
    done = run(small, "--only", "signs")
    assert done.returncode == 1
    assert "'signs'" in done.stderr
