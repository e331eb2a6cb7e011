"""Training steps read at most two numbers from the device, for which the host would wait."""

from collections import Counter

import lightning.pytorch as pl
import pytest
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from zoo_lightning import (
    AtariData,
    ClassificationTask,
    DrawnFaces,
    ImageFolders,
    LandmarkTask,
    PPOTask,
    ZooBackbone,
)
from zoo_lightning.callbacks.averaged_weights import AveragedWeights
from zoo_lightning.callbacks.finite_numbers import FiniteNumbers

ALLOWED = 2
SOURCES = ["random:1", "random:2"]

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select")
"""Operations whose result the host waits for; ``aten::is_nonzero`` ends in the first."""

CALLS = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__",
         "new_tensor", "tensor", "nonzero", "equal", "allclose"}  # fmt: skip
"""Calls that read from a GPU or copy to it; on a CPU some of them run no operation at all."""


ON_HOST = ("Optimizer.step#", "aten::_fused_", "aten::multinomial", "aten::std", "aten::var")
"""Operations that read on CPUs only: optimisers their own counts of steps, which stay on the host
for a GPU, too; the sampling of actions, which takes place on the host; and deviations, which have a
kernel of their own on CPUs."""


class Calls(TorchFunctionMode):
    """Counts calls that would make the host wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        options = kwargs or {}
        to_host = name == "tensor" and options.get("device") is None
        if name in CALLS and not to_host:
            self.seen[name] += 1
        return function(*args, **options)


class OneStep(pl.Callback):
    """Counts in one batch, which is one step, or one rollout with its steps."""

    on_host = 0
    """Reads of numbers that a test knows to lie on the host."""

    def __init__(self, number=3):
        self.number = number

    def on_train_batch_start(self, trainer, module, batch, batch_idx):  # noqa: D102
        if batch_idx == self.number:
            self.before, self.calls = trainer.global_step, Calls()
            self.recorded = profile(activities=[ProfilerActivity.CPU])
            self.calls.__enter__()
            self.recorded.__enter__()

    def end(self, trainer, batch_idx):
        """After all callbacks."""
        if batch_idx == self.number:
            self.recorded.__exit__(None, None, None)
            self.calls.__exit__(None, None, None)
            self.steps = trainer.global_step - self.before

    @property
    def operations(self):
        """Reads by operation, without those of :data:`ON_HOST`."""
        found = Counter()
        for event in self.recorded.events():
            if event.name in READS and not any(map(_is_on_host, ancestors(event))):
                found[event.name] += 1
        return found


def ancestors(event):
    while event is not None:
        yield event
        event = event.cpu_parent


def _is_on_host(event):
    return event.name.startswith(ON_HOST)


def counted(task, data, *callbacks, **options):
    """The counts of one step of a training as the command line has it."""
    step = OneStep()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[step, FiniteNumbers(), *callbacks], **options,
    )  # fmt: skip
    # Lightning calls the task's own hook last.
    task.on_train_batch_end = lambda outputs, batch, batch_idx: step.end(trainer, batch_idx)
    trainer.fit(task, data)
    return step


def images(class_root, **options):
    return ImageFolders(root=str(class_root), image_size=32, batch_size=3, num_workers=0, **options)


def check(step, steps=1):
    assert step.steps == steps
    assert sum(step.operations.values()) - step.on_host <= ALLOWED * steps
    # An optimiser of many weights calls `item` for each; its counts are on the host.
    step.calls.seen.pop("item", None)
    assert sum(step.calls.seen.values()) <= ALLOWED * steps, step.calls.seen


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_a_step_of_classification_waits_at_most_twice(class_root, mode):
    task = ClassificationTask(
        ZooBackbone("test_resnet", SOURCES, mode=mode), num_classes=3, fused=True
    )
    step = counted(task, images(class_root), max_steps=5, max_epochs=-1, limit_val_batches=0)
    check(step)
    assert step.operations == {}  # the one read is a list of two numbers
    assert step.calls.seen == {"tolist": 1}


@pytest.mark.parametrize(("mode", "head"), [("full", "coordinates"), ("lite", "heatmaps")])
def test_a_step_of_landmarks_waits_at_most_twice(mode, head):
    data = DrawnFaces(train_size=24, val_size=6, image_size=32, batch_size=4, num_workers=0)
    output = "stages" if head == "heatmaps" else "pooled"
    backbone = ZooBackbone("test_resnet", SOURCES, mode=mode, output=output)
    task = LandmarkTask(backbone, num_points=data.num_points, head=head)
    check(counted(task, data, max_steps=5, max_epochs=-1, limit_val_batches=0))


def test_a_step_with_mixed_images_and_averaged_weights_waits_at_most_twice(class_root):
    task = ClassificationTask(
        ZooBackbone("test_resnet", SOURCES, mode="lite"), num_classes=3, mixup=0.5
    )
    options = {"max_steps": 5, "max_epochs": -1, "check_val_every_n_epoch": None}
    step = counted(
        task, images(class_root), AveragedWeights(norm_images=4), val_check_interval=5, **options
    )
    # The average asks twice for its number of updates, which stays on the host.
    assert step.calls.seen.pop("__bool__") == 2
    step.on_host = 2
    check(step)


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_policies_wait_at_most_twice_a_step_and_once_for_each_action(mode):
    pytest.importorskip("ale_py")
    acts, passes, parts = 8, 2, 2
    data = AtariData("pong", total_steps=4 * 2 * acts, num_envs=2, num_steps=acts)
    task = PPOTask(
        ZooBackbone("nature_cnn", SOURCES, mode=mode), num_actions=data.num_actions,
        update_epochs=passes, num_minibatches=parts,
    )  # fmt: skip
    step = counted(task, data, max_epochs=1, limit_val_batches=0)
    acted = step.calls.seen["cpu"]
    assert acted == acts
    del step.calls.seen["cpu"], step.calls.seen["numpy"]  # actions, which are on the host already
    check(step, passes * parts)
