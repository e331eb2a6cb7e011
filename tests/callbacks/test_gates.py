"""The gates' moving average: one update an optimiser step, whatever a step is made of."""

import socket
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from zoo_lightning.callbacks.gates import GateEMA
from zoo_lightning.data.synthetic.drawn_faces import DrawnFaces
from zoo_lightning.errors import ConfigError
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import LandmarkTask


class Plain(nn.Module):
    """Two convolutions and no norm layer: what a batch gives does not depend on its other half."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 12, 3, stride=2)
        self.input_size = (3, 32, 32)

    def forward(self, x):
        """Features ``(B, 12)``."""
        return self.second(self.first(x).relu()).relu().mean(dim=(2, 3))


def make_task(mode="lite", momentum=0.1, **options) -> LandmarkTask:
    """A task that learns by SGD, so that gradients show in the weights as large as they are."""
    torch.manual_seed(0)
    options = {"optimizer": "sgd", "schedule": "constant", "lr": 0.01} | options
    backbone = ZooBackbone(Plain, ["random:1", "random:2"], mode=mode, gate_init="released")
    return LandmarkTask(backbone, 5, loss="l1", gate_momentum=momentum, **options)


def make_data(batch_size=4) -> DrawnFaces:
    """Sixteen faces of 32 pixels with five points."""
    return DrawnFaces(16, 4, 4, 32, 5, batch_size, num_workers=0)


def make_trainer(folder, callbacks=(), **options) -> pl.Trainer:
    """A quiet Trainer with nothing but what is asked for."""
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
        "default_root_dir": str(folder),
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**{**quiet, **options})


class GateRecord(Callback):
    """Notes, after every batch, what gates the first layer would give the batch that comes next."""

    def __init__(self) -> None:
        self.means: list[torch.Tensor] = []
        self.emas: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """Gates of the batch with the weights that it will meet."""
        layer = pl_module.backbone.net.first
        with torch.no_grad():
            self.means.append(layer.gate(layer.pool(batch["image"])).mean(dim=0))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """The average after the batch."""
        self.emas.append(pl_module.backbone.net.first.gate_ema.clone())


def emas(task) -> torch.Tensor:
    """Averages of all layers, end to end."""
    return torch.cat([layer.gate_ema for layer in task.backbone.aggregated_layers().values()])


def updates(task) -> set[int]:
    """Numbers of updates over all layers."""
    return {int(layer.gate_updates) for layer in task.backbone.aggregated_layers().values()}


def test_the_first_update_is_the_first_batchs_mean_and_later_ones_have_momentum(tmp_path):
    record = GateRecord()
    task = make_task(momentum=0.25)
    make_trainer(tmp_path, [record], max_steps=3).fit(task, datamodule=make_data())
    first, second, third = record.means
    expected = [first]
    for mean in (second, third):
        expected.append(0.75 * expected[-1] + 0.25 * mean)
    torch.testing.assert_close(torch.stack(record.emas), torch.stack(expected))
    assert not torch.equal(record.emas[0], record.emas[1])
    assert updates(task) == {3}


@pytest.mark.parametrize(("mode", "steps"), [("full", 3), ("lite", 1)])
def test_accumulated_batches_update_once_as_the_doubled_batch_does(tmp_path, mode, steps):
    once, twice = make_task(mode), make_task(mode)
    make_trainer(tmp_path, max_steps=steps).fit(once, datamodule=make_data(8))
    trainer = make_trainer(tmp_path, max_steps=steps, accumulate_grad_batches=2)
    trainer.fit(twice, datamodule=make_data(4))
    assert updates(once) == updates(twice) == {steps}
    if mode == "full":
        torch.testing.assert_close(emas(twice), emas(once))
        return
    # Lite micro-batches have kernels of their own: only what the first layer sees is the same.
    torch.testing.assert_close(twice.backbone.net.first.gate_ema, once.backbone.net.first.gate_ema)


def test_unequal_micro_batches_count_by_their_samples():
    layer = make_task().backbone.net.first.train()
    images = torch.randn(7, 3, 32, 32)
    layer(images[:2])
    layer(images[2:])
    mean = layer.gate(layer.pool(images)).mean(dim=0)
    torch.testing.assert_close(layer.gate_sum / layer.gate_count, mean.detach())


def test_validation_and_the_sanity_check_leave_the_average_alone(tmp_path):
    plain, validated = make_task(), make_task()
    make_trainer(tmp_path, max_steps=4).fit(plain, datamodule=make_data())
    options = {"limit_val_batches": 1.0, "num_sanity_val_steps": 2, "val_check_interval": 1}
    make_trainer(tmp_path, max_steps=4, **options).fit(validated, datamodule=make_data())
    assert updates(validated) == {4}
    assert torch.equal(emas(validated), emas(plain))

    before = emas(validated)
    make_trainer(tmp_path, limit_val_batches=1.0).validate(validated, make_data(), verbose=False)
    make_trainer(tmp_path).test(validated, make_data(), verbose=False)
    assert torch.equal(emas(validated), before)
    assert all(layer.gate_count == 0 for layer in validated.backbone.aggregated_layers().values())


@pytest.mark.parametrize("mode", ["lite", "full"])
def test_mixed_precision_gives_nearly_the_same_average_in_float32(tmp_path, mode):
    exact, mixed = make_task(mode), make_task(mode)
    make_trainer(tmp_path, max_steps=3).fit(exact, datamodule=make_data())
    trainer = make_trainer(tmp_path, max_steps=3, precision="bf16-mixed")
    trainer.fit(mixed, datamodule=make_data())
    assert emas(mixed).dtype == torch.float32
    assert updates(mixed) == {3}
    torch.testing.assert_close(emas(mixed), emas(exact), rtol=0, atol=0.01)


def test_the_average_goes_on_exactly_from_a_checkpoint(tmp_path):
    straight = make_task()
    make_trainer(tmp_path, max_steps=6).fit(straight, datamodule=make_data())

    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
    make_trainer(tmp_path, [keep], max_steps=6).fit(make_task(), datamodule=make_data())
    resumed = make_task()
    path = tmp_path / "step=3.ckpt"
    make_trainer(tmp_path, max_steps=6).fit(resumed, datamodule=make_data(), ckpt_path=path)
    assert updates(resumed) == {6}
    for key, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_no_run_of_a_zoo_is_without_the_average(tmp_path):
    task = make_task(momentum=0.3)
    trainer = make_trainer(tmp_path, fast_dev_run=1)
    trainer.fit(task, datamodule=make_data())
    found = [callback for callback in trainer.callbacks if isinstance(callback, GateEMA)]
    assert [callback.momentum for callback in found] == [0.3]
    assert updates(task) == {1}


def test_a_lite_checkpoint_evaluates_alike_without_the_callback(tmp_path):
    task = make_task()
    trainer = make_trainer(tmp_path, max_steps=4)
    trainer.fit(task, datamodule=make_data())
    expected = trainer.test(task, make_data(), verbose=False)
    trainer.save_checkpoint(tmp_path / "run.ckpt")

    restored = make_task()
    state = torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]
    restored.load_state_dict(state)
    restored.configure_callbacks = list
    trainer = make_trainer(tmp_path)
    found = trainer.test(restored, make_data(), verbose=False)
    assert not any(isinstance(callback, GateEMA) for callback in trainer.callbacks)
    assert found == expected


@pytest.mark.parametrize("momentum", [0.0, -0.1, 1.5])
def test_a_momentum_outside_its_range_is_refused(momentum):
    with pytest.raises(ConfigError, match=r"\(0, 1\]"):
        GateEMA(momentum)


def train_share(folder: Path, mode: str, world_size: int) -> None:
    """Train a few steps on eight faces a step over all processes; rank 0 saves what it got."""
    task = make_task(mode, lr=0.05)
    options = {}
    if world_size > 1:
        # Every step computes with the same parameters, which is all that a static graph asks for.
        strategy = DDPStrategy(static_graph=mode == "full", gradient_as_bucket_view=mode == "full")
        options = {"devices": world_size, "strategy": strategy}
    trainer = make_trainer(folder, max_steps=5, gradient_clip_val=100.0, **options)
    trainer.fit(task, datamodule=make_data(8 // world_size))
    if trainer.is_global_zero:
        torch.save(task.state_dict(), folder / f"{mode}-{world_size}.pt")


def test_two_processes_train_as_one_does_on_the_joint_batch(tmp_path, program):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **program.environment,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
    }
    words = [sys.executable, __file__, str(tmp_path)]
    ranks = [
        subprocess.Popen(
            words,
            env={**environment, "LOCAL_RANK": str(rank), "RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
    for mode in ("lite", "full"):
        train_share(tmp_path, mode, 1)
        joint = torch.load(tmp_path / f"{mode}-1.pt")
        shared = torch.load(tmp_path / f"{mode}-2.pt")
        start = make_task(mode).state_dict()
        assert int(shared["backbone.net.first.gate_updates"]) == 5
        for key, value in joint.items():
            torch.testing.assert_close(shared[key], value, rtol=1e-4, atol=1e-5, msg=key)
        moved = (joint["backbone.net.second.weight"] - start["backbone.net.second.weight"]).abs()
        assert moved.max() > 1e-3  # far more than the tolerance


if __name__ == "__main__":
    for each in ("lite", "full"):
        train_share(Path(sys.argv[1]), each, 2)
