"""The folder of a new run: claimed by one run, the same in all of its processes."""

import csv
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.utilities import rank_zero_only

from zoo_lightning.errors import ConfigError
from zoo_lightning.files.paths import expand, expand_word, replace_values
from zoo_lightning.runs import folders
from zoo_lightning.runs.folders import claim_run_folder, remove_if_unused, shared_run_folder
from zoo_lightning.runs.run_folder import find_checkpoint


@pytest.fixture
def rank(tmp_path, monkeypatch):
    """Be a process of some rank, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_NTASKS", folders.HANDED)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    return lambda number: monkeypatch.setattr(rank_zero_only, "rank", number)


def test_runs_that_begin_at_once_get_folders_of_their_own(rank):
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(claim_run_folder, ["it"] * 40))
    assert len(set(found)) == 40
    assert all(folder.is_dir() for folder in found)


def test_processes_that_a_run_starts_write_to_its_folder(rank):
    rank(0)
    first = shared_run_folder("it")
    rank(1)
    assert shared_run_folder("it") == first
    rank(0)
    assert shared_run_folder("it") != first  # another run of the same process


@pytest.mark.parametrize(
    "environment",
    [
        {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0"},
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"},
    ],
)
def test_processes_that_a_launcher_starts_find_the_folder_of_the_first(
    rank, monkeypatch, environment
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(folders, "PATIENCE", 0.0)
    rank(1)
    with pytest.raises(ConfigError, match="give --run_dir"):
        shared_run_folder("it")
    rank(0)
    first = shared_run_folder("it")
    monkeypatch.setenv(folders.HANDED, "that of another training")
    rank(1)
    assert shared_run_folder("it") == first


def test_processes_on_several_machines_are_not_left_to_guess(rank, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    rank(1)
    with pytest.raises(ConfigError, match="several machines"):
        shared_run_folder("it")


def test_notes_of_earlier_trainings_are_removed(rank, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    rank(0)
    shared_run_folder("it")
    [note] = Path("runs/it").glob(".torchrun-*")
    old = note.rename(note.with_name(".torchrun-1-0"))
    os.utime(old, (0, 0))
    shared_run_folder("it")
    assert not old.exists()
    assert note.exists()


def test_a_mistake_leaves_no_empty_folder(tiny, command):
    command("fit", "--experiment", "tiny", "--model.num_points", "3").refused("num_points")
    command("fit", "--experiment", "tiny", "--budget", "0.001").refused("budget")
    assert not list(Path("runs").glob("*/*"))
    assert command("fit", "--experiment", "tiny", "--trainer.fast_dev_run", "true").status == 0
    assert not list(Path("runs").glob("*/*"))
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/notes.txt").touch()
    remove_if_unused(Path("runs/mine"))
    assert Path("runs/mine/notes.txt").exists()


def test_the_newest_run_is_the_one_that_saved_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("mine", "20260101-000000-2", "20260101-000000-10", "20250101-000000")
    for age, name in enumerate(reversed(names)):
        path = Path("runs/it", name, "checkpoints/last.ckpt")
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1000 + age, 1000 + age))
    assert find_checkpoint("last", None, "it").parts[2] == "mine"
    os.utime("runs/it/20260101-000000-10/checkpoints/last.ckpt", (2000, 2000))
    assert find_checkpoint("last", None, "it").parts[2] == "20260101-000000-10"


def test_two_processes_share_a_folder_and_write_all_images_to_it(tiny, program):
    words = ["--experiment", "tiny", "--trainer.strategy", "ddp", "--trainer.devices", "2",
             "--trainer.accelerator", "cpu", "--data.batch_size", "2"]  # fmt: skip
    short = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]
    done = subprocess.run(
        [*program.words, "fit", *words, *short],
        env=program.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [folder] = Path("runs/tiny").iterdir()
    assert str(folder) in done.stdout
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 2
    with (folder / "test_errors.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["image"] for row in rows}) == len(rows) == 6
    mean = sum(float(row["nme"]) for row in rows) / len(rows)
    assert mean == pytest.approx(summary["test"]["test/nme"], rel=1e-4)
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    # The run's own options, two processes among them.
    done = subprocess.run(
        [*program.words, "predict", "--ckpt_path", str(folder), "--output", "predicted"],
        env=program.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Path("predicted/predictions.csv").open(newline="") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == [row["image"] for row in rows]


# Home folders


def test_homes_in_words_and_files_become_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_word("--run_dir=~/x") == "--run_dir=/home/me/x"
    assert expand_word("~/x,b,~/c") == "/home/me/x,b,/home/me/c"
    assert expand_word("--sources=a~b,~") == "--sources=a~b,/home/me"
    assert expand_word("--model.lr=1e-3") == "--model.lr=1e-3"
    content = {"a": ["~/b", {"c": "~"}], "d": 1, "e": "x~"}
    replace_values(content, expand)
    assert content == {"a": ["/home/me/b", {"c": "/home/me"}], "d": 1, "e": "x~"}


def test_a_run_and_its_data_may_lie_in_a_home(tiny, command, monkeypatch, landmark_root, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    files = {"root": "~", "image_size": 32, "batch_size": 4, "num_workers": 0}
    tiny(data={"class_path": "LandmarkCSV", "init_args": files},
         **{"trainer.max_steps": 2, "trainer.val_check_interval": 2})  # fmt: skip
    done = command("fit", "--experiment", "tiny", "--run_dir=~/run", "--run_test", "false")
    assert done.status == 0, done.err
    assert not Path("~").exists()
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["init_args"]["root"] == str(landmark_root)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


OTHERS = {
    "another rate": ["--model.lr", "0.5"],
    "another size": ["--data.image_size", "48"],
    "another length": ["--trainer.max_steps", "16"],
    "another seed": ["--seed_everything", "7"],
    "another architecture": ["--architecture", "resnet18"],
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_run_is_left_as_it_was_by_what_it_refuses_to_be_resumed_with(finished, command, what):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    words = ["fit", "--experiment", "tiny", "--ckpt_path", "done", *OTHERS[what]]
    command(*words).refused("the checkpoint has other options")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("experiment", [["--experiment", "tiny"], []])
@pytest.mark.parametrize("words", [["--run_dir", "new"], ["--run_dir=new"]])
def test_a_run_may_be_resumed_into_another_folder(finished, command, experiment, words):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    resumed = command("fit", *experiment, "--ckpt_path", "done", *words)
    assert resumed.status == 0, resumed.err
    assert Path("new/summary.json").is_file()
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("words", [[], ["--init_from", "done"], ["--model.lr", "0.5"]])
def test_no_training_begins_in_the_folder_of_another_one(finished, command, words):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    done = command("fit", "--experiment", "tiny", "--run_dir", "done", *words)
    done.refused("--run_dir done has the checkpoints", "--ckpt_path done/checkpoints/last.ckpt")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
