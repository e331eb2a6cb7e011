"""The example scripts run, with tiny settings, and use the public API only."""

import ast
import importlib
import logging
import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture
def example(tmp_path, monkeypatch, capfd):
    """Run an example in an empty folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def run(name, *arguments):
        path = FOLDER / f"{name}.py"
        monkeypatch.setattr("sys.argv", [str(path), *map(str, arguments)])
        capfd.readouterr()
        runpy.run_path(str(path), run_name="__main__")
        return capfd.readouterr().out

    return run


def test_these_are_all_examples():
    assert NAMES == [
        "own_backbone",
        "own_data_module",
        "own_folder",
        "plain_pytorch",
        "predict_from_export",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_imports_public_names_only_and_says_how_to_run_it(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    own = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "zoo_lightning"
    ]
    assert own
    for node in own:
        module = importlib.import_module(node.module)
        assert [each.name for each in node.names if each.name not in module.__all__] == []
    assert f"python examples/{name}.py" in ast.get_docstring(tree)


def test_own_folder_trains_tests_and_prints_the_gates(example, class_root):
    out = example("own_folder", class_root, "--steps", 2, "--batch_size", 4, "--workers", 0)
    assert "test/acc" in out
    assert re.search(r"layer1\.0\.conv1 \['0\.\d\d', '0\.\d\d', '0\.\d\d'\]", out)


def test_own_backbone_is_trained_and_folded(example):
    out = example("own_backbone", "--steps", 2)
    assert "step 1: loss" in out
    assert "(0): Conv2d(3, 16" in out
    assert "ZooConv2d" not in out.split("step 1")[1]


def test_own_backbone_takes_files_of_weights(example, tmp_path):
    import torch

    build = runpy.run_path(str(FOLDER / "own_backbone.py"))["small_network"]
    torch.save(build().state_dict(), tmp_path / "a.pt")
    assert "a.pt" in example("own_backbone", "--sources", "a.pt", "random:3", "--steps", 1)


def test_own_data_module_trains_and_tests(example):
    out = example("own_data_module", "--steps", 2, "--train_size", 16)
    assert "test/acc" in out


def test_the_plain_loop_trains_and_folds_to_the_same_outputs(example):
    out = example("plain_pytorch", "--steps", 2, "--train_fraction", 0.02)
    assert "after 2 steps" in out
    assert float(re.search(r"by (\S+) at most", out)[1]) < 1e-4


@pytest.mark.parametrize(
    "form", ["timm", pytest.param("onnx", marks=pytest.mark.slow)], ids=["timm", "onnx"]
)
def test_predict_from_export_prints_a_line_for_each_image(
    example, class_root, tiny, command, tmp_path, form
):
    if form == "onnx":
        pytest.importorskip("onnx")
    tiny()
    done = command(
        *("fit", "--experiment", "classification-folders", "--data.root", class_root),
        *("--run_dir", "run", "--trainer.max_steps=2", "--trainer.val_check_interval=2"),
        *("--data.batch_size=4", "--data.num_workers=0", "--run_test=false"),
        *("--trainer.accelerator=cpu", "--sources", "random:1", "--model.head_init=random"),
    )
    assert done.status == 0, done.err
    image = class_root / "test" / "bee" / "0.png"
    out = example("predict_from_export", tmp_path / "run", image, tmp_path / "no.png",
                  "--format", form)  # fmt: skip
    assert re.search(r"0\.png class [012]\n", out)
    assert "no.png cannot be read" in out
