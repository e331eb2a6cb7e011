"""Text files are read and written alike under every locale, with names that are no UTF-8, too."""

import ast
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

PACKAGE = Path(__file__).resolve().parents[2] / "zoo_lightning"
OTHERS = ("os", "Image", "av", "tarfile")
"""Modules whose ``open`` is another one."""


def text_calls(path):
    """Calls in a module that open a text file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        if name == "open":
            owner = getattr(getattr(function, "value", None), "id", "")
            places = node.args if isinstance(function, ast.Attribute) else node.args[1:]
            mode = next((each.value for each in places if isinstance(each, ast.Constant)), "r")
            if owner not in OTHERS and "b" not in mode:
                yield node
        elif name in ("read_text", "write_text"):
            yield node


def test_no_text_file_is_opened_by_the_locales_encoding():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for call in text_calls(path)
        if not any(
            keyword.arg == "encoding" or getattr(keyword.value, "id", "") in ("TEXT", "ANNOTATIONS")
            for keyword in call.keywords
        )
    ]
    assert wrong == []


@pytest.fixture
def undecodable(tmp_path):
    """Classes of images one of which has a name in Latin-1."""
    for part, count in (("train", 8), ("test", 2)):
        for name in ("ant", "bee"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), (number * 20, 0, 0)).save(folder / f"{number}.png")
            try:
                os.rename(os.fsencode(folder / "0.png"), os.fsencode(folder) + b"/caf\xe9.png")
            except OSError:
                pytest.skip("this file system takes names in UTF-8 only")
    return tmp_path / "data"


@pytest.mark.parametrize("locale", [pytest.param("C.UTF-8", marks=pytest.mark.slow), "POSIX"])
def test_a_name_that_is_no_utf_8_goes_through_training_test_and_predicting(
    undecodable, tmp_path, program, locale
):
    environment = {**program.environment, "LC_ALL": locale, "PYTHONUTF8": "0"}
    words = [
        "fit", "--experiment", "classification-folders", "--experiment", "methods/scratch",
        "--data.root", "data", "--data.image_size", "32", "--data.batch_size", "4",
        "--data.num_workers", "0", "--trainer.max_steps", "2", "--model.head_init", "random",
        "--trainer.val_check_interval", "2", "--run_dir", "run", "--average_weights", "false",
        "--pictures", "false",
    ]  # fmt: skip
    done = subprocess.run(
        [*program.words, *words], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"bee/caf\xe9.png" in (tmp_path / "run" / "test_errors.csv").read_bytes()
    words = ["predict", "--ckpt_path", "run", "--images", "data/test", "--output", "out"]
    done = subprocess.run(
        [*program.words, *words], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"bee/caf\xe9.png" in (tmp_path / "out" / "predictions.csv").read_bytes()


@pytest.mark.parametrize("option", ["--data.root", "--data.images", "--model.lr"])
def test_an_option_whose_value_is_no_utf_8_is_named_with_what_to_do(tiny, command, option):
    tiny(data={"class_path": "LandmarkCSV", "init_args": {"root": "faces"}})
    value = os.fsdecode(b"d\xff")
    done = command("fit", "--experiment", "tiny", "--run_dir", "run", option, value)
    done.refused(option.lstrip("-").partition(".")[0], "no UTF-8", "PYTHONUTF8")
