"""Checkpoints under fire: killed writers, full disks, other file systems."""

import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from zoo_lightning.errors import StorageError
from zoo_lightning.files.atomic import remove_parts
from zoo_lightning.runs.checkpoint_files import AtomicCheckpointIO, write_checkpoints_atomically

FORKING = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system cannot fork"
)
KILLS = 30


def content(number: int) -> dict[str, torch.Tensor]:
    """A checkpoint of two megabytes, wholly of one number."""
    return {f"part{i}": torch.full((128, 1024), float(number)) for i in range(4)}


def save_for_ever(path: Path) -> None:
    """Save one checkpoint after the other under one name."""
    torch.set_num_threads(1)  # threads do not survive a fork
    number = 0
    while True:
        AtomicCheckpointIO().save_checkpoint(content(number), path)
        number += 1


@FORKING
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_process_that_is_killed_while_saving_leaves_a_whole_checkpoint(tmp_path, halves):
    path, draw = tmp_path / "checkpoints" / "last.ckpt", random.Random(0)
    found, cut = set(), 0
    for _ in range(KILLS):
        process = multiprocessing.get_context("fork").Process(target=save_for_ever, args=(path,))
        before = path.stat().st_mtime_ns if path.exists() else None
        process.start()
        deadline = time.monotonic() + 60
        # Each process saves once in peace, or a slow start would be all that is ever killed.
        while not path.is_file() or path.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        saved = torch.load(path, weights_only=True)
        values = {float(value) for part in saved.values() for value in part.unique()}
        assert len(values) == 1
        found |= values
        cut += len(halves(tmp_path))
        remove_parts(path.parent)
        assert list(path.parent.iterdir()) == [path]
    assert cut > 0, "no kill was in the middle of a writing"


def test_a_full_disk_keeps_the_earlier_checkpoint_and_says_so(tmp_path, file_limit):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1), path)
    with file_limit(2**20), pytest.raises(StorageError) as caught:
        AtomicCheckpointIO().save_checkpoint(content(2), path)
    assert str(caught.value) == (
        f"cannot write {path}: {os.strerror(errno.EFBIG)}. What was there before is still there; "
        "have the limit on the size of files raised (ulimit -f)"
    )
    assert torch.equal(torch.load(path, weights_only=True)["part0"], content(1)["part0"])
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_is_written_beside_its_place_and_to_the_disk(tmp_path, monkeypatch):
    # Lightning's own way begins in the folder for temporary files, maybe on another file system.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append("synced"))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(Path(a).parent), real(a, b)))
    AtomicCheckpointIO().save_checkpoint(content(1), tmp_path / "checkpoints" / "a.ckpt")
    assert seen == ["synced", tmp_path / "checkpoints", "synced"]
    with pytest.raises(FileNotFoundError):
        TorchCheckpointIO().save_checkpoint(content(1), tmp_path / "checkpoints" / "b.ckpt")


def test_all_checkpoints_of_a_run_are_written_so(tiny, command, monkeypatch):
    saved, real = set(), AtomicCheckpointIO.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        saved.add(Path(path).name)
        real(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
    keep = {"dirpath": "kept", "filename": "{step}", "save_top_k": -1, "every_n_train_steps": 3}
    tiny(**{"trainer.callbacks": [{"class_path": "ModelCheckpoint", "init_args": keep}]})
    done = command("fit", "--experiment", "tiny", "--run_dir", "run", "--run_test", "false")
    assert done.status == 0, done.err
    assert saved == {"best.ckpt", "last.ckpt", "step=3.ckpt", "step=6.ckpt"}


def test_a_users_own_way_to_write_checkpoints_is_kept():
    class Mine(TorchCheckpointIO):
        pass

    trainer = pl.Trainer(accelerator="cpu", plugins=[Mine()], logger=False)
    assert type(write_checkpoints_atomically(trainer).strategy.checkpoint_io) is Mine
    trainer = pl.Trainer(accelerator="cpu", logger=False)
    assert type(write_checkpoints_atomically(trainer).strategy.checkpoint_io) is AtomicCheckpointIO


def test_a_run_that_was_stopped_before_it_saved_anything_says_how_it_starts(tiny, command):
    tiny()
    Path("run").mkdir()
    refused = command("fit", "--experiment", "tiny", "--run_dir", "run", "--ckpt_path", "last")
    assert refused.status == 2
    last = refused.err.strip().splitlines()[-1]
    assert "there is no file run/checkpoints/last.ckpt" in last
    assert "stopped before it saved anything is started again without it" in last
