"""The notebooks: each runs from nothing but this checkout, and is committed as it was executed."""

import ast
import copy
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from notebooks import execute  # noqa: E402

FEW_STEPS = {
    "01_quickstart": 4,
    "02_gates": 4,
    "03_landmarks": 20,
    "04_rl": 256,
    "05_your_own_zoo": 4,
    "06_real_zoo": 4,
    "07_transformers": 4,
}
"""Of the trainings in a notebook, where only its code is of interest."""

LESS = {
    "02_gates": {
        "= Trainer(max_steps=steps": "= Trainer(limit_test_batches=1, max_steps=steps",
        "in clothes.test_dataloader()]": "in [next(iter(clothes.test_dataloader()))]]",
        "train_size=1000, val_size=100": "train_size=64, val_size=20, test_size=20",
        "samples=200": "samples=40",
    },
    "03_landmarks": {
        "val_size 100": "val_size 20",
        "test_size 300": "test_size 20",
    },
    "04_rl": {"max_frames=2400": "max_frames=200"},
    "05_your_own_zoo": {
        "--methods single,lite": "--methods single:faces5,lite",
        "--seeds 0,1": "--seeds 0",
        "per_class=30": "per_class=8",
    },
    "06_real_zoo": {
        "--methods scratch,single:imagenet,soup,start,lite": "--methods lite",
        "--samples 500": "--samples 100",
        "--split val": "--split val --samples 40 --layer_samples 0",
    },
    "07_transformers": {
        "per_class=60": "per_class=8",
        "--data.val_size 100 --data.test_size 300": "--data.val_size 20 --data.test_size 20",
        "test_size=64": "test_size=8",
    },
}
"""What else takes long in a notebook, and what to put in its place, where its code is tried."""

NAMES = list(FEW_STEPS)


def notebook_of(*sources):
    """A notebook of code cells, not executed."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A small notebook that was executed without fault; a copy is given by calling."""
    notebook = notebook_of("import os\nx = 6", "print(os.getcwd() + '/runs')\n7 * x")
    execute.execute(notebook, tmp_path_factory.mktemp("work"))
    assert execute.faults(notebook) == []
    return lambda: copy.deepcopy(notebook)


def files_beside():
    """What lies in the checkout's own folder and in that of the notebooks."""
    found = [*ROOT.iterdir(), *(path for path in execute.FOLDER.rglob("*") if path.is_file())]
    return {path for path in found if not any(part.endswith("cache") for part in path.parts)}


# The committed notebooks


def test_these_are_all_notebooks():
    assert execute.NAMES == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_are_complete_current_and_clean(name):
    assert execute.faults(execute.read(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_names_nothing_that_a_checkout_lacks(name):
    code = "\n".join(cell.source for cell in execute.code_cells(execute.read(name)))
    assert "shared" not in code
    assert "http" not in code


@pytest.mark.parametrize("name", NAMES)
def test_no_logic_lives_in_a_notebook(name):
    for cell in execute.code_cells(execute.read(name)):
        lines = cell.source.splitlines()
        assert not [line for line in lines if line.strip().startswith(("def ", "class ", "lambda"))]
        code = re.sub(r"(?m)^%.*$", "", cell.source)
        imports = [each for each in ast.parse(code).body if isinstance(each, ast.ImportFrom)]
        assert len(lines) - sum(each.end_lineno - each.lineno for each in imports) <= 20


def shortened(notebook, name):
    """A notebook that does less of the same."""
    settings = execute.code_cells(notebook)[0]
    settings.source, found = re.subn(
        r"(?m)^steps = \d+$", f"steps = {FEW_STEPS[name]}", settings.source
    )
    assert found == 1
    for much, little in LESS.get(name, {}).items():
        cells = [cell for cell in execute.code_cells(notebook) if much in cell.source]
        assert cells, much
        for cell in cells:
            cell.source = cell.source.replace(much, little)
    return notebook


def needs(name, monkeypatch):
    """Skip a notebook whose package or files are absent, and name the files where they are."""
    if name == "04_rl":
        pytest.importorskip("ale_py")
    if name == "06_real_zoo":
        for variable, inside in (("ZOO", "zoo_mobilenet025"), ("PHOTOGRAPHS", "flowers17")):
            place = ROOT.parent / "shared" / "data" / inside
            if not place.is_dir():
                pytest.skip(f"weights and photographs that are not shipped: no {place}")
            monkeypatch.setenv(variable, str(place))


def runs_in_an_empty_folder(notebook, folder):
    """Execute it; nothing is wrong with what it shows, and nothing is left in the checkout."""
    before = files_beside()
    execute.execute(notebook, folder)
    assert execute.faults(notebook) == []
    assert files_beside() - before == set()


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_a_notebook_imports_is_there(name):
    code = "\n".join(cell.source for cell in execute.code_cells(execute.read(name)))
    code = re.sub(r"(?m)^%.*$", "", code)
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.ImportFrom)]
    own = [node for node in imports if node.module.split(".")[0] == "zoo_lightning"]
    assert own
    for node in own:
        module = importlib.import_module(node.module)
        assert hasattr(module, "__path__")  # a package's public name
        assert [each.name for each in node.names if not hasattr(module, each.name)] == []


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == NAMES[0] else pytest.mark.slow) for name in NAMES],
)
def test_its_code_runs_in_an_empty_folder_and_leaves_the_checkout_alone(
    name, tmp_path, monkeypatch
):
    needs(name, monkeypatch)
    runs_in_an_empty_folder(shortened(execute.read(name), name), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_as_it_is_committed(name, tmp_path, monkeypatch):
    needs(name, monkeypatch)
    runs_in_an_empty_folder(execute.read(name), tmp_path)


# What executes them


def test_outputs_are_those_of_an_empty_folder_of_which_no_path_is_shown(executed):
    printed, returned = executed().cells[1].outputs
    assert printed.text == "runs\n"
    assert returned.data["text/plain"] == "42"


def test_a_cell_that_fails_stops_the_notebook_with_its_error(tmp_path):
    notebook = notebook_of("1 / 0", "open('late', 'w')")
    with pytest.raises(CellExecutionError, match="division by zero"):
        execute.execute(notebook, tmp_path)
    assert not (tmp_path / "late").exists()
    assert "cell 1 ended with ZeroDivisionError: division by zero" in execute.faults(notebook)


def test_a_command_that_fails_in_a_notebook_stops_it(tmp_path):
    words = "from zoo_lightning.cli.program import run_command\nrun_command('fitt')"
    with pytest.raises(CellExecutionError, match="unknown subcommand 'fitt'"):
        execute.execute(notebook_of(words), tmp_path)


def test_outputs_of_other_code_are_a_fault(executed):
    notebook = executed()
    notebook.cells[1].source += " + 1"
    assert execute.faults(notebook) == ["the outputs are not of this code"]


def test_a_notebook_without_outputs_is_a_fault(executed):
    notebook = executed()
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None
    assert execute.faults(notebook) == [
        "the cells were not executed once each in their order",
        "no cell has outputs",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("saved to /root/runs/a.ckpt", "shows a path: /root/runs/a.ckpt"),
        ('File "/tmp/x/b.py"', "shows a path: /tmp/x/b.py"),
        ("UserWarning: old", "prints noise: UserWarning: old"),
        ("this is deprecated", "prints noise: this is deprecated"),
        ("Epoch 0: 50%|#####     | 5/10 [00:01<00:01]", "prints noise: Epoch 0: 50%"),
    ],
)
def test_paths_and_noise_are_faults(executed, text, fault):
    notebook = executed()
    notebook.cells[1].outputs[0].text = f"{text}\n"
    (found,) = execute.faults(notebook)
    assert found.startswith(f"cell 2 {fault}")


@pytest.mark.parametrize(
    "text", ["1/2 of a/b/c", "https://example.org/a/b", "<b>x</b>", "lines | 3 of 4", "runs/a/b"]
)
def test_what_only_looks_like_a_path_is_none(executed, text):
    notebook = executed()
    notebook.cells[1].outputs[0].text = f"{text}\n"
    assert execute.faults(notebook) == []


def test_a_large_notebook_is_a_fault(executed):
    notebook = executed()
    notebook.cells[1].outputs[0].text = "x" * execute.LARGEST
    (found,) = execute.faults(notebook)
    assert "expected at most 1,500,000" in found


def test_the_command_writes_outputs_only_if_nothing_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(execute, "FOLDER", tmp_path)
    monkeypatch.setattr(execute, "NAMES", ["good", "noisy"])
    sources = {"good": "print('fine')", "noisy": "import warnings\nwarnings.warn('old')"}
    for name, source in sources.items():
        nbformat.write(notebook_of(source), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(sys, "argv", ["execute"])
    assert execute.main() == 1
    out = capsys.readouterr().out
    assert "prints noise" in out
    assert "not written" in out
    assert execute.read("good").cells[0].outputs[0].text == "fine\n"
    assert execute.read("noisy").cells[0].outputs == []


def test_an_unknown_notebook_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "notebooks.execute", "06_more"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "no notebook 06_more; expected some of 01_quickstart" in done.stderr
