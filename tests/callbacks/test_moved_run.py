"""Checkpoints of a run are found again in a folder that was moved or copied."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from zoo_lightning.callbacks.checkpoints import MovedRun

OPTIONS = {"filename": "best", "monitor": "val/nme", "mode": "min", "enable_version_counter": False}


@pytest.fixture
def state(tmp_path):
    """Of a run in ``old`` whose best checkpoint is there."""
    best = tmp_path / "old" / "best.ckpt"
    best.parent.mkdir()
    best.write_text("the best")
    keeper = ModelCheckpoint(best.parent, **OPTIONS)
    keeper.best_model_path = keeper.kth_best_model_path = str(best)
    keeper.best_model_score = keeper.kth_value = torch.tensor(3.0)
    keeper.best_k_models = {str(best): torch.tensor(3.0)}
    return keeper.state_dict()


def resumed(folder, state, ckpt_path):
    """A keeper in a folder that takes the state of a checkpoint, as the Trainer has it do."""
    keeper = ModelCheckpoint(folder, **OPTIONS)
    trainer = SimpleNamespace(
        ckpt_path=ckpt_path, default_root_dir=str(folder), checkpoint_callbacks=[keeper]
    )
    content = {"callbacks": {keeper.state_key: state}}
    MovedRun().on_load_checkpoint(trainer, None, content)
    keeper.load_state_dict(content["callbacks"][keeper.state_key])
    return keeper


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_the_state_follows_the_files(tmp_path, state, move):
    move(tmp_path / "old", tmp_path / "new")
    before = dict(state)
    keeper = resumed(tmp_path / "new", state, str(tmp_path / "new" / "last.ckpt"))
    best = str(tmp_path / "new" / "best.ckpt")
    assert keeper.best_model_path == keeper.kth_best_model_path == best
    assert keeper.best_k_models == {best: 3.0}
    assert keeper.best_model_score == keeper.kth_value == 3.0
    assert state == before


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_folder_without_the_best_checkpoint_is_not_its_new_place(tmp_path, state):
    keeper = resumed(tmp_path / "new", state, str(tmp_path / "new" / "last.ckpt"))
    assert keeper.best_model_path == state["best_model_path"]
    assert keeper.best_k_models == {}


def test_a_run_that_was_moved_keeps_its_best_checkpoint(tiny, command):
    tiny(**{"model.init_args.schedule": "constant", "trainer.max_steps": 4})
    words = ("fit", "--experiment", "tiny", "--run_test", "false")
    assert command(*words, "--run_dir", "old").status == 0
    checkpoints = Path(shutil.move("old", "new")) / "checkpoints"
    # A score that no later validation reaches.
    content = torch.load(checkpoints / "last.ckpt", weights_only=True)
    [state] = [s for key, s in content["callbacks"].items() if key.startswith("ModelCheckpoint")]
    state["best_model_score"] = state["kth_value"] = torch.tensor(0.0)
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(0.0))
    torch.save(content, checkpoints / "last.ckpt")
    before = (checkpoints / "best.ckpt").read_bytes()
    done = command(*words, "--ckpt_path", "new", "--run_dir", "new", "--trainer.max_steps", 8)
    assert done.status == 0, done.err
    assert "dirpath has changed" not in done.err
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["global_step"] == 8
    assert (checkpoints / "best.ckpt").read_bytes() == before
    assert not Path("old").exists()


def test_a_run_that_goes_on_in_another_runs_folder_does_not_take_that_ones_best(tmp_path, state):
    other = tmp_path / "new"
    shutil.copytree(tmp_path / "old", other)
    with pytest.warns(UserWarning, match="dirpath has changed"):
        keeper = resumed(other, state, str(tmp_path / "old" / "last.ckpt"))
    assert keeper.best_k_models == {}
    for own in (str(other / "last.ckpt"), None):
        assert resumed(other, state, own).best_k_models == {str(other / "best.ckpt"): 3.0}
