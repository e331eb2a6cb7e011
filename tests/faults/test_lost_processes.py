"""Processes that a training needs and loses: loaders, games, other ranks."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from zoo_lightning.errors import LostProcessError
from zoo_lightning.runs.faults import explained_faults

KILLING = """
import multiprocessing
import os
import signal

from lightning.pytorch.callbacks import Callback


class KillLoader(Callback):
    \"\"\"In a step, the system kills a loader's process for the memory it takes.\"\"\"

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
"""

FIT = ("fit", "--experiment", "tiny", "--run_dir")
LOADED = {"data.init_args.augment": True, "data.init_args.num_workers": 1}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_loader_is_told_of_and_the_run_goes_on_to_the_same_weights(
    tmp_path, tiny, command, monkeypatch, runs
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "killing.py").write_text(KILLING)
    tiny(**LOADED)
    assert command(*FIT, "straight").status == 0
    callback = {"class_path": "killing.KillLoader", "init_args": {"step": 5}}
    tiny(**LOADED, **{"trainer.callbacks": [callback]})
    found = command(*FIT, "run")
    last = found.err.strip().splitlines()[-1]
    assert found.status == 2, found.err
    assert last.startswith("error: a process that loads data is gone (DataLoader worker")
    assert "lower data.num_workers" in last
    assert "the same command and --ckpt_path run/checkpoints/last.ckpt" in last
    assert "Traceback" not in found.err
    tiny(**LOADED)
    resumed = command(*FIT, "run", "--ckpt_path", "last")
    assert resumed.status == 0, resumed.err
    runs.assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_a_training_whose_output_nobody_reads_any_more_says_how_it_goes_on(tmp_path):
    again = "closed pipe.*Nothing had been saved yet: then give the same command again"
    with pytest.raises(LostProcessError, match=again), explained_faults(tmp_path):
        raise BrokenPipeError(32, "Broken pipe")


PLAY = [
    "fit", "--experiment", "rl-source", "--data.game", "breakout", "--data.num_envs", "2",
    "--data.num_steps", "16", "--data.val_games", "1", "--data.test_games", "1",
    "--data.max_frames", "240", "--data.total_steps", "640", "--trainer.val_check_interval", "5",
    "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    "--trainer.accelerator", "cpu",
]  # fmt: skip


def test_games_have_no_processes_that_could_be_killed(descendants):
    pytest.importorskip("ale_py")
    from zoo_lightning.rl.environments.atari import AtariEnvs

    before = descendants(os.getpid())
    envs = AtariEnvs("breakout", 4)
    envs.reset(0)
    envs.step([0, 0, 0, 0])
    assert descendants(os.getpid()) == before


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killing_a_game_s_thread_kills_the_run_which_goes_on_to_the_same_weights(
    tmp_path, monkeypatch, command, program, runs
):
    pytest.importorskip("ale_py")
    monkeypatch.chdir(tmp_path)
    process = subprocess.Popen(
        [*program.words, *PLAY, "--run_dir", "killed"], env=program.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    runs.wait_for_steps(process, tmp_path / "killed", 8)
    threads = [int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()]
    os.kill(max(thread for thread in threads if thread != process.pid), signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    resumed = command(*PLAY, "--run_dir", "killed", "--ckpt_path", "last")
    assert resumed.status == 0, resumed.err
    assert command(*PLAY, "--run_dir", "straight").status == 0
    left, right = (runs.weights(Path(name)) for name in ("killed", "straight"))
    assert [key for key in right if not (left[key] == right[key]).all()] == []


RANKS = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_the_others_and_the_run_goes_on_to_the_same_weights(
    tmp_path, tiny, program, runs, descendants, all_gone, lost
):
    tiny(**{**runs.LONG, "trainer.max_steps": 48})
    words = [*program.words, *FIT]
    environment = {**program.environment, "MASTER_PORT": str(free_port())}
    process = subprocess.Popen(
        [*words, "lost", *RANKS], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    runs.wait_for_steps(process, tmp_path / "lost", 10)
    ranks = descendants(process.pid)
    os.kill(process.pid if lost == 0 else ranks[0], signal.SIGKILL)
    before = time.monotonic()
    _, err = process.communicate(timeout=120)
    all_gone([process.pid, *ranks])
    assert time.monotonic() - before < 120
    assert process.returncode != 0
    assert "another process of this training is gone" in err, err
    assert "the same command and --ckpt_path lost/checkpoints/last.ckpt" in err
    for name, option in (("lost", ["--ckpt_path", "last"]), ("straight", [])):
        environment["MASTER_PORT"] = str(free_port())
        done = subprocess.run(
            [*words, name, *RANKS, *option], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    runs.assert_same_run(tmp_path / "lost", tmp_path / "straight")
