"""What the program answers to words that train nothing, and how it ends."""

import os
import subprocess
import sys

import pytest

from zoo_lightning import __version__
from zoo_lightning.cli import program as cli
from zoo_lightning.cli.program import run_command
from zoo_lightning.errors import ZooError
from zoo_lightning.experiments.finding import known_experiments
from zoo_lightning.pipelines import command as pipelines

FIT = ["fit", "--experiment", "tiny"]
ONE_STEP = ["--trainer.max_steps=1", "--trainer.val_check_interval=1"]


def run(program, words, folder, stdout=subprocess.PIPE) -> subprocess.CompletedProcess:
    """Run words in a process of their own, in a folder."""
    return subprocess.run(
        words,
        env=program.environment,
        cwd=folder,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("words", [["--version"], ["sources", "list"], ["--help"]])
def test_what_needs_no_torch_does_not_import_it(program, words, tmp_path):
    code = (
        "import sys; from zoo_lightning.cli.program import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 'torch' in sys.modules or 'lightning' in sys.modules)"
    )
    done = run(program, [sys.executable, "-c", code, *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_version_is_printed(command):
    assert command("--version").out == f"zoo_lightning {__version__}\n"


def test_without_arguments_the_subcommands_and_experiments_are_listed(command):
    found = command()
    assert found.status == 0
    assert all(word in found.out for word in ("fit", "validate", "test", "predict", "sources"))
    assert all(name in found.out for name in known_experiments())


def test_a_command_line_in_a_notebook_is_one_string(capsys):
    run_command("--version")
    assert capsys.readouterr().out == f"zoo_lightning {__version__}\n"


def test_a_reader_who_has_enough_ends_the_program_without_a_word(program, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = run(program, [*program.words, "sources", "list"], tmp_path, stdout=writing)
    os.close(writing)
    assert done.returncode == 141, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fitt --experiment landmarks", "unknown subcommand 'fitt'"),
        ("fit --experiment 'no such one'", "no such one"),
    ],
)
def test_a_mistake_in_a_notebook_is_raised(line, message):
    with pytest.raises(ZooError, match=message):
        run_command(line)


def test_a_command_that_ends_with_another_status_than_0_is_raised_in_a_notebook(monkeypatch):
    monkeypatch.setattr(cli, "_carry_out", lambda words: len(words))
    with pytest.raises(ZooError, match=r"`sources check \.\.\.` ended with status 4"):
        run_command("sources check --experiment 'my own'")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fitt"], "unknown subcommand 'fitt'. Did you mean 'fit'?"),
        (["--versoin"], "Did you mean '--version'?"),
        (["sources", "lst"], "'sources list'"),
        (["fit"], "give --experiment NAME"),
        (["test", "--experiment", "tiny"], "test needs --ckpt_path"),
    ],
)
def test_a_mistyped_command_is_answered_in_one_line(tiny, command, words, message):
    tiny()
    found = command(*words)
    assert found.status == 2
    lines = found.err.strip().splitlines()
    assert message in lines[-1]
    assert [line for line in lines if line.startswith(("error", "usage"))] == lines[-1:]


@pytest.mark.parametrize("words", [["--help"], ["list", "--help"]])
def test_the_help_of_sources_names_its_subcommands(command, words):
    found = command("sources", *words)
    assert found.status == 0
    assert all(name in found.out for name in ("list", "inspect", "check", "rank", "ship"))


def test_the_help_of_a_subcommand_names_our_options(command):
    found = command("fit", "--help")
    assert found.status == 0
    ours = ("--experiment", "--sources", "--architecture", "--run_dir", "--init_from", "--wandb")
    words = ("project", "entity", "group", "tags", "notes", "checkpoint", "sources")
    logged = [f"--wandb_{word}" for word in words]
    for option in (*ours, *logged, "--gradient_norms", "--ckpt_path"):
        assert option in found.out


def test_the_help_of_fit_names_the_options_of_transfer_methods(command):
    """They have a parser of their own, so the help of ``fit`` repeats them."""
    shown = command("fit", "--help").out
    own = pipelines._parser()._option_string_actions
    assert [name for name in own if name.startswith("--") and name not in shown] == []


SCREEN = 45
"""Lines of a screen."""


@pytest.mark.parametrize("name", cli.SUBCOMMANDS)
def test_the_help_of_every_subcommand_fits_a_screen(command, name, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = command(name, "--help").out.splitlines()
    assert 5 < len(lines) <= SCREEN
    assert max(map(len, lines)) <= 100


def test_the_help_of_all_options_has_those_of_the_trainer(command):
    short, everything = command("fit", "--help").out, command("fit", "--help-all").out
    assert "--trainer.gradient_clip_val" in everything
    assert "--trainer.gradient_clip_val" not in short
    assert "--help_all" in short
    # Our own options come before the Trainer's.
    body = everything[everything.index("options:") :]
    assert body.index("--wandb_sources") < body.index("--trainer.accelerator")


def test_the_help_of_test_has_its_folder_as_output(command):
    shown = command("test", "--help").out
    assert "--output" in shown
    assert "--run_dir" not in shown
    assert "Checkpoint or run folder" in shown


def test_the_program_runs_as_a_process_of_its_own(tiny, program, tmp_path):
    tiny(**{"trainer.enable_progress_bar": True})
    done = run(program, [*program.words, *FIT, "--run_dir", "run", *ONE_STEP], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step=1/1" in done.stdout  # the progress
    assert "test/nme" in done.stdout  # the table
    assert "run folder   run" in done.stdout
    assert "parameters" in done.stderr + done.stdout
