"""What packages of training export."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "package", ["callbacks", "loggers", "methods", "metrics", "plotting", "tasks"]
)
def test_every_public_name_can_be_imported(package):
    module = importlib.import_module(f"zoo_lightning.{package}")
    assert list(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = module.nothing_of_this_name


@pytest.mark.parametrize(
    "package",
    [
        "zoo_lightning",
        *(f"zoo_lightning.{name}" for name in ("models", "runs", "tasks", "transfer")),
    ],
)
def test_public_names_are_listed_before_they_are_imported(package):
    module = importlib.import_module(package)
    assert {*module.__all__} <= {*dir(module)}


@pytest.mark.slow
def test_type_checkers_take_public_names_as_functions_and_types(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(
        "from zoo_lightning import resolve\n"
        "from zoo_lightning.models import PlainBackbone\n"
        "from zoo_lightning.callbacks import GateLog\n"
        "def build(callback: GateLog) -> PlainBackbone:\n"
        "    resolve('landmarks')\n"
        "    return PlainBackbone('resnet18', [])\n"
    )
    words = ["--follow-imports", "silent", "--ignore-missing-imports", "--cache-dir", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *words, str(script)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
