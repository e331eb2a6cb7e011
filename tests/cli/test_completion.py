"""Completion of commands in a shell."""

from __future__ import annotations

import builtins
import shutil
import subprocess

import pytest

SCRIPT = """
source "$1"
COMP_WORDS=("${@:2}"); COMP_CWORD=$(($# - 2)); COMPREPLY=()
complete -p zoo-lightning > /dev/null || exit 3
function=$(complete -p zoo-lightning | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" zoo-lightning "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_without_shtab_one_line_says_what_to_install(command, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "shtab":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    command("completion", "bash").refused("shtab", "pip install")


def test_bash_completes_subcommands_options_and_experiments(command, tmp_path):
    pytest.importorskip("shtab", reason="shtab, which makes the script, is not installed")
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    command("completion", "cobol").refused("cobol", "bash")
    done = command("completion", "bash")
    assert done.status == 0, done.err
    script = tmp_path / "script"
    script.write_text(done.out)

    def completed(*words):
        line = ["bash", "-c", SCRIPT, "bash", str(script), "zoo-lightning", *words]
        found = subprocess.run(line, capture_output=True, text=True, check=True)
        return {word.strip() for word in found.stdout.split()}

    assert {"fit", "compare", "report", "sources"} <= completed("")
    assert {"--run_dir", "--run_test"} <= completed("fit", "--run")
    assert "--trainer.max_steps" in completed("fit", "--trainer.max_s")
    assert "landmarks" in completed("fit", "--experiment", "landm")
    assert {"rank", "relate"} <= completed("sources", "r")
    assert "--seeds" in completed("compare", "--se")
