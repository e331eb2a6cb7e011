"""Gates are kept at every validation, survive a checkpoint, and are drawn by layer and source."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from zoo_lightning.callbacks import gate_pictures
from zoo_lightning.callbacks.gate_pictures import GatePictures
from zoo_lightning.callbacks.gates import GateLog
from zoo_lightning.models.backbone import ZooBackbone

PICTURES = {"gates.png", "gates_over_time.png"}


def two_layers() -> nn.Module:
    """Two convolutions."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.fixture
def task():
    zoo = ZooBackbone(two_layers, ["random:1", "random:2"], gate_init=[0.9, 0.1])
    return SimpleNamespace(backbone=zoo)


@pytest.fixture
def trainer(tmp_path):
    run = SimpleNamespace(disabled=False, logged=[])
    run.log = run.logged.append
    return SimpleNamespace(
        is_global_zero=True,
        sanity_checking=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        loggers=[CSVLogger(str(tmp_path)), WandbLogger(save_dir=str(tmp_path), experiment=run)],
        callbacks=[],
        global_step=0,
        run=run,
    )


def validate(callback, trainer, task, step, gate):
    """A validation at a step, with the first gate of each layer at a value."""
    trainer.global_step = step
    for layer in task.backbone.aggregated_layers().values():
        layer.gate_ema[0] = gate
    callback.on_validation_epoch_end(trainer, task)


def names(folder):
    return {path.name for path in (folder / "pictures").glob("*")}


def test_every_layer_and_source_has_its_series(trainer, task, tmp_path):
    callback = GatePictures(str(tmp_path))
    validate(callback, trainer, task, 10, 0.5)
    series = [row for row in trainer.run.logged if "gates/0/random-1" in row]
    assert series == [
        {
            "gates/0/random-1": 0.5,
            "gates/0/random-2": pytest.approx(0.1),
            "gates/2/random-1": 0.5,
            "gates/2/random-2": pytest.approx(0.1),
            "trainer/global_step": 10,
        }
    ]
    trainer.callbacks = [GateLog(every_batch=True)]  # which logs them itself
    trainer.run.logged.clear()
    validate(callback, trainer, task, 20, 0.5)
    assert not any("gates/0/random-1" in row for row in trainer.run.logged)


def test_pictures_are_drawn_in_good_time_and_at_the_end(trainer, task, tmp_path, monkeypatch):
    drawn, now = [], [0.0]
    monkeypatch.setattr(gate_pictures.time, "monotonic", lambda: now[0])
    plot = gate_pictures.plot_gate_history
    monkeypatch.setattr(
        gate_pictures,
        "plot_gate_history",
        lambda h, s, *a: (drawn.append(list(s)), plot(h, s, *a))[1],
    )
    callback = GatePictures(str(tmp_path))
    for step, now[0] in ((10, 29.0), (20, 31.0), (30, 60.0)):
        validate(callback, trainer, task, step, 0.5)
    assert names(tmp_path) == PICTURES
    assert drawn == [[10, 20]]  # the first is too early, the last too soon after
    callback.on_train_end(trainer, task)
    callback.on_train_end(trainer, task)
    assert drawn == [[10, 20], [10, 20, 30]]
    logged = set().union(*trainer.run.logged)
    assert {"pictures/gates", "pictures/gates_over_time"} <= logged


def test_the_history_survives_a_checkpoint_in_plain_types(trainer, task, tmp_path):
    first = GatePictures(str(tmp_path))
    assert first.state_dict() == {}
    for step, gate in ((10, 0.25), (20, 0.5)):
        validate(first, trainer, task, step, gate)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = GatePictures(str(tmp_path))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    validate(second, trainer, task, 30, 0.75)
    assert second.steps == [10, 20, 30]
    assert [gates[0, 0].item() for gates in second.gates] == [0.25, 0.5, 0.75]
    assert second.state_dict()["gates"].shape == (3, 2, 2)


def test_other_processes_keep_the_gates_but_draw_and_log_nothing(trainer, task, tmp_path):
    trainer.is_global_zero = False
    callback = GatePictures(str(tmp_path))
    validate(callback, trainer, task, 10, 0.5)
    callback.on_train_end(trainer, task)
    assert (callback.steps, trainer.run.logged, names(tmp_path)) == ([10], [], set())


def test_validation_alone_and_models_without_gates_leave_no_pictures(trainer, task, tmp_path):
    callback = GatePictures(str(tmp_path))
    trainer.state.fn = TrainerFn.VALIDATING
    callback.on_validation_epoch_end(trainer, task)
    trainer.state.fn, trainer.sanity_checking = TrainerFn.FITTING, True
    callback.on_validation_epoch_end(trainer, task)
    trainer.sanity_checking = False
    plain = SimpleNamespace(backbone=two_layers())
    callback.on_validation_epoch_end(trainer, plain)
    callback.on_train_end(trainer, plain)
    assert (callback.steps, names(tmp_path)) == ([], set())
