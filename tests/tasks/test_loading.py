"""A run taken up again without the command line: as a task, as a model, as a source."""

import pytest
import torch

from zoo_lightning import load_task
from zoo_lightning.cli.program import main
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn.folding import fold_state, is_aggregated


@pytest.fixture(scope="module")
def lite_run(tmp_path_factory):
    """Folder of a short lite run on drawn faces."""
    folder = tmp_path_factory.mktemp("lite") / "run"
    arguments = {
        "--run_dir": folder,
        "--trainer.max_steps": 4,
        "--trainer.val_check_interval": 2,
        "--trainer.enable_progress_bar": "false",
        "--trainer.enable_model_summary": "false",
        "--model.init_args.backbone.init_args.sources": "[random:1, random:2, random:3]",
        "--data.train_size": 32,
        "--data.val_size": 8,
        "--data.test_size": 8,
        "--data.batch_size": 8,
        "--data.image_size": 32,
        "--data.num_workers": 0,
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    assert main(["fit", "--experiment", "landmarks", *words]) == 0
    return folder


def test_a_run_is_loaded_as_it_was_and_folds_into_a_timm_model(lite_run):
    task = load_task(lite_run)
    assert task.backbone.method == "lite"
    assert all(layer.gate_updates in (2, 4) for layer in task.backbone.aggregated_layers().values())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found, folded = task(images), task.fold()(images)
        points = task.points(images)
    torch.testing.assert_close(folded, found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(task.head.points(folded), points, rtol=1e-4, atol=1e-5)
    assert points.shape == (2, 68, 2)
    assert ((points > 0) & (points < 1)).all()


def test_a_lite_run_is_a_source_like_any_other(lite_run):
    zoo = load_task(lite_run).backbone
    source = PlainBackbone("test_resnet", [str(lite_run)])
    folded = zoo.fold().state_dict()
    for key, value in source.net.state_dict().items():
        torch.testing.assert_close(value, folded[key])


def test_folding_with_given_gates_uses_those():
    zoo = ZooBackbone("test_resnet", ["random:1", "random:2"], align="none")
    state = zoo.net.state_dict()
    assert is_aggregated(state)
    only_second = {name: torch.tensor([0.0, 1.0]) for name in zoo.aggregated_layers()}
    folded = fold_state(state, only_second)
    assert not is_aggregated(folded)
    expected = PlainBackbone("test_resnet", ["random:2"]).net.state_dict()
    for name in zoo.aggregated_layers():
        torch.testing.assert_close(folded[f"{name}.weight"], expected[f"{name}.weight"])


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path):
    path = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1, 2)}}, path)
    with pytest.raises(ConfigError, match="not written by zoo_lightning"):
        load_task(path)
    with pytest.raises(ConfigError, match="no file"):
        load_task(tmp_path / "absent.ckpt")
