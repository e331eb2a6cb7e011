"""Runs in processes of their own: what Lightning starts further ranks by."""

import sys
from pathlib import Path

from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd

from zoo_lightning.runs.forking import ForkedProcess, run_as_main

RANK = """
import sys
from lightning.fabric.strategies.launchers.subprocess_script import _basic_subprocess_cmd
print(*_basic_subprocess_cmd(), sep="\\n")
sys.exit(3)
"""


def test_lightning_repeats_the_command_of_a_module_that_is_run_as_main(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "one_rank.py").write_text(RANK.replace("sys.exit(3)", ""))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["before"])
    usual = _basic_subprocess_cmd()
    run_as_main("one_rank", ["a", "b c"])
    assert capsys.readouterr().out.splitlines() == [sys.executable, "-m", "one_rank", "a", "b c"]
    assert sys.modules["__main__"].__name__ != "one_rank"
    assert usual[:-1] == _basic_subprocess_cmd()[: len(usual) - 1]


def test_a_forked_process_is_python_m_with_its_output_in_a_log(tmp_path, monkeypatch):
    (tmp_path / "another_rank.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(str(tmp_path))
    process = ForkedProcess("another_rank", ["--x", "1"], tmp_path / "log", None)
    assert process.wait() == 3
    assert Path(tmp_path / "log").read_text().splitlines()[1:] == ["-m", "another_rank", "--x", "1"]
