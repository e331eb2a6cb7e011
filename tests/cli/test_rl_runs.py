"""Policies from the command line: real games, going on after a kill, films and figures."""

import csv
import json
import signal
import subprocess
import time

import pytest

FIT = [
    "fit", "--experiment", "rl-source", "--data.game", "breakout", "--data.num_envs", "2",
    "--data.num_steps", "16", "--data.val_games", "1", "--data.test_games", "2",
    "--data.max_frames", "240", "--trainer.enable_progress_bar", "false",
    "--trainer.enable_model_summary", "false", "--trainer.accelerator", "cpu",
]  # fmt: skip
"""A policy in seconds: rollouts of 32 steps, games of at most 60 decisions."""


def rows(folder):
    """Of the run's log without the speed, which is another each time, and the test."""
    with (folder / "metrics.csv").open(newline="") as stream:
        found = [{k: v for k, v in row.items() if v} for row in csv.DictReader(stream)]
    for row in found:
        row.pop("charts/SPS", None)
        row.pop("epoch", None)
    return [row for row in found if "test/episodic_return" not in row]


def test_a_run_leaves_figures_beside_random_play_and_people_and_a_film(
    tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    run = ["--run_dir", "run"]
    done = command(*FIT, *run, "--data.total_steps", 128, "--trainer.val_check_interval", 2)
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["game"] == "breakout"
    assert summary["agent_steps"] == 128  # of the training, whichever checkpoint is the best
    assert summary["test_games"] == 2
    again = command(*FIT, *run, "--data.total_steps", 128, "--trainer.val_check_interval", 2,
                    "--ckpt_path", "last")  # fmt: skip
    assert again.status == 0, again.err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["agent_steps"] == 128
    test = summary["test"]
    assert test["test/human_return"] == pytest.approx(30.5)
    kinds = ("_std", "_median", "_min", "_max")
    assert {f"test/episodic_return{kind}" for kind in kinds} < set(test)
    assert {"test/random_return", "test/human_normalized_score"} < set(test)
    games = (tmp_path / "run" / "test_games.csv").read_text().splitlines()
    assert games[0] == "game,score,length"
    assert len(games) == 3
    found = rows(tmp_path / "run")
    names = ("losses/entropy", "val/episodic_return", "charts/episodic_return")
    steps = {name: [int(row["step"]) for row in found if name in row] for name in names}
    assert steps["losses/entropy"] == [32, 64, 96, 128]
    assert steps["val/episodic_return"] == [64, 128]
    assert steps["charts/episodic_return"] == [128]  # games of at most sixty steps have just ended
    last = ["--ckpt_path", "run/checkpoints/last.ckpt", "--output"]
    predict = ["predict", *FIT[1:], *last, "filmed", "--model.deterministic", "true"]
    other = command("test", *FIT[1:], "--data.game", "pong", *last, "tested")
    other.refused("learned breakout", "--data.game breakout")
    filmed = command(*predict)
    assert filmed.status == 0, filmed.err
    [film] = (tmp_path / "filmed").glob("game.*")
    done = command("export", "--ckpt_path", "run/checkpoints/last.ckpt", "--format", "onnx",
                   "--output", "exported")  # fmt: skip
    assert done.status == 0, done.err
    again = command("predict", "--ckpt_path", "exported", "--output", "again", "--deterministic")
    assert again.status == 0, again.err
    assert " frames, score " in again.out
    # The very same game: same seed, same actions.
    assert (tmp_path / "again" / film.name).read_bytes() == film.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_goes_on_from_its_last_checkpoint_as_if_it_had_not_been(
    tmp_path, monkeypatch, command, program
):
    monkeypatch.chdir(tmp_path)
    fit = [*FIT, "--data.total_steps", "640", "--trainer.val_check_interval", "5"]
    process = subprocess.Popen(
        [*program.words, *fit, "--run_dir", "killed"],
        env=program.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    file, deadline = tmp_path / "killed" / "metrics.csv", time.monotonic() + 500
    while not file.is_file() or file.read_text().count("\n") < 10:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = command(*fit, "--run_dir", "killed", "--ckpt_path", "last")
    assert resumed.status == 0, resumed.err
    assert command(*fit, "--run_dir", "straight").status == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "straight")


def test_a_start_that_needs_labels_is_refused_for_games(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    backbone = "--model.init_args.backbone.init_args"
    done = command(
        "fit", "--experiment", "rl", f"{backbone}.sources=[random:1, random:2]",
        f"{backbone}.gate_init=greedy",
    )  # fmt: skip
    assert done.status == 2
    assert "gate_init 'greedy' cannot be found from these data" in done.err
