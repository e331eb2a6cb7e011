"""The same seed on the same machine gives the same weights, whatever the task."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

PPO = {
    "trainer.max_steps": -1,
    "trainer.max_epochs": 1,
    "trainer.limit_val_batches": 0,
    "model": {
        "class_path": "PPOTask",
        "init_args": {
            "num_minibatches": 2,
            "backbone": {
                "class_path": "ZooBackbone",
                "init_args": {"architecture": "nature_cnn", "sources": ["random:1", "random:2"]},
            },
        },
    },
    "data": {
        "class_path": "AtariData",
        "init_args": {
            "game": "breakout", "total_steps": 32, "num_envs": 2, "num_steps": 8,
            "val_games": 1, "test_games": 1, "max_frames": 80,
        },
    },
}  # fmt: skip

FIT = ("fit", "--experiment", "tiny", "--run_test", "false")


def changes_of(task: str, class_root: Path) -> dict:
    """What makes the small experiment one of a task."""
    if task == "ppo":
        pytest.importorskip("ale_py")
        return PPO
    if task == "classification":
        data = {"root": str(class_root), "image_size": 16, "batch_size": 3, "num_workers": 0}
        return {
            "model.class_path": "ClassificationTask",
            "model.init_args.mixup": 0.4,
            "data": {"class_path": "ImageFolders", "init_args": data},
        }
    return {"data.init_args.augment": True, "data.init_args.num_points": 5}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights at a run's end."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def unlike(left: Path, right: Path) -> list[str]:
    """Names of the weights in which two runs differ by a bit."""
    first, second = weights(left), weights(right)
    assert first.keys() == second.keys()
    return [key for key in first if not torch.equal(first[key], second[key])]


TASKS = ("classification", "landmarks", "ppo")


@pytest.mark.parametrize(
    "task", [pytest.param("classification", marks=pytest.mark.slow), *TASKS[1:]]
)
def test_the_same_seed_gives_the_same_weights(tiny, command, class_root, task):
    tiny(**changes_of(task, class_root))
    for name in ("first", "second"):
        torch.rand(7)  # what happened before in the process does not matter
        done = command(*FIT, "--run_dir", name)
        assert done.status == 0, done.err
    assert unlike(Path("first"), Path("second")) == []


def test_another_seed_gives_other_weights(tiny, command):
    tiny(**{"trainer.max_steps": 2})
    for name, seed in (("first", 0), ("other", 1)):
        done = command(*FIT, "--run_dir", name, "--seed_everything", seed)
        assert done.status == 0, done.err
    assert len(unlike(Path("first"), Path("other"))) > 10


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_on_one_machine_end_with_the_same_weights(
    tiny, program, tmp_path, class_root, task
):
    tiny(**changes_of(task, class_root))
    for name, hashing in (("first", "1"), ("second", "2")):
        # Loaders' processes and the order of sets have no part in it.
        workers = [] if task == "ppo" else ["--data.num_workers", str(int(hashing) - 1)]
        done = subprocess.run(
            [*program.words, *FIT, "--run_dir", name, *workers],
            cwd=tmp_path, env={**program.environment, "PYTHONHASHSEED": hashing},
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert unlike(tmp_path / "first", tmp_path / "second") == []


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread")
def test_another_number_of_threads_rounds_otherwise_and_no_more(tiny, program, tmp_path):
    tiny(**{"data.init_args.num_points": 5, "trainer.max_steps": 1})
    for name, threads in (("one", "1"), ("two", "2")):
        done = subprocess.run(
            [*program.words, *FIT, "--run_dir", name], cwd=tmp_path,
            env={**program.environment, "OMP_NUM_THREADS": threads},
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    left, right = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in left.items():
        torch.testing.assert_close(right[key], value, rtol=1e-3, atol=1e-4, msg=key)
