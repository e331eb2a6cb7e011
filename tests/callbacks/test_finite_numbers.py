"""NaN and infinity in a training: noticed at once, named, and left out if wanted."""

import copy

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from zoo_lightning import ClassificationTask, ImageFolders, ZooBackbone
from zoo_lightning.callbacks.finite_numbers import OVERFLOWS, FiniteNumbers
from zoo_lightning.errors import ConfigError, NumbersError

WRONG = 2
"""The step whose batch is spoilt."""


class Spoil(Callback):
    """Puts NaN into a batch's images, or another number into a gradient."""

    def __init__(self, what, steps=(WRONG,)):
        self.what, self.steps, self.batches = what, steps, 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):  # noqa: D102
        self.batches += 1
        if self.what == "image" and batch_idx in self.steps:
            batch["image"][1] = float("nan")

    def on_after_backward(self, trainer, module):  # noqa: D102
        if self.what != "image" and trainer.global_step in self.steps:
            module.head.weight.grad[0, 0] = {"gradient": float("inf"), "square": 1e30}[self.what]


class Keep(Callback):
    """All of the state after each step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, module, *args):  # noqa: D102
        self.states.append(copy.deepcopy(module.state_dict()))


class ScaledStep(Callback):
    """Leaves out steps of infinite gradients, as the scaler of mixed precision does."""

    def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: D102
        gradient = module.head.weight.grad
        if gradient is not None and not gradient.isfinite().all():
            optimizer.zero_grad()


def train(class_root, policy, what, steps=4, spoilt=(WRONG,), batch_size=4, **options):
    data = ImageFolders(root=str(class_root), image_size=32, batch_size=batch_size, num_workers=0)
    backbone = ZooBackbone("test_resnet", ["random:1", "random:2"], mode="lite")
    task = ClassificationTask(backbone, num_classes=3, schedule="constant")
    numbers, keep = FiniteNumbers(policy), Keep()
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=[Spoil(what, spoilt), numbers, ScaledStep(), keep],
        **options,
    )  # fmt: skip
    return trainer, task, data, numbers, keep


def test_a_spoilt_batch_stops_the_run_and_its_files_are_named(class_root):
    trainer, task, data, _, keep = train(class_root, "stop", "image")
    with pytest.raises(NumbersError) as stopped:
        trainer.fit(task, data)
    told = str(stopped.value)
    assert told.startswith(f"step {WRONG}: the loss is nan; image of 1 of 4 samples is not finite")
    assert told.count(str(class_root / "train")) == 4
    assert "--on_nonfinite skip" in told
    # The step was not taken.
    weights = {key for key, _ in task.named_parameters()}
    assert all(torch.equal(task.state_dict()[key], keep.states[-1][key]) for key in weights)


def test_an_infinite_gradient_stops_the_run_and_its_parameter_is_named(class_root):
    trainer, task, data, *_ = train(class_root, "stop", "gradient")
    with pytest.raises(NumbersError, match="the first that of head"):
        trainer.fit(task, data)


def test_a_gradient_whose_square_alone_is_infinite_is_no_fault(class_root):
    trainer, task, data, *_ = train(class_root, "stop", "square")
    trainer.fit(task, data)
    assert trainer.global_step == 4


@pytest.mark.parametrize("what", ["image", "gradient"])
def test_a_step_that_is_left_out_changes_nothing(class_root, what):
    trainer, task, data, numbers, keep = train(class_root, "skip", what)
    with pytest.warns(UserWarning, match=f"step {WRONG} is skipped"):
        trainer.fit(task, data)
    assert numbers.skipped == 1
    before, spoilt = keep.states[WRONG - 1], keep.states[WRONG]
    # The moving averages of gates and the norm statistics, too.
    assert all(torch.equal(before[key], spoilt[key]) for key in before)
    assert any(not torch.equal(spoilt[key], keep.states[-1][key]) for key in before)
    assert all(value.isfinite().all() for value in task.state_dict().values())
    assert trainer.callback_metrics["skipped_steps"] == 1


def test_a_sum_of_batches_is_left_out_as_a_whole(class_root):
    trainer, task, data, numbers, keep = train(
        class_root, "skip", "image", steps=3, batch_size=2, accumulate_grad_batches=2
    )
    with pytest.warns(UserWarning, match="step 1 is skipped"):
        trainer.fit(task, data)
    assert numbers.skipped == 1
    assert all(value.isfinite().all() for value in task.state_dict().values())
    changed = [k for k, v in keep.states[1].items() if not torch.equal(v, keep.states[3][k])]
    assert not changed


def test_overflow_of_half_precision_is_no_fault_until_it_does_not_end(class_root):
    trainer, task, data, numbers, _ = train(class_root, "stop", "gradient", 2, (0,))

    class Scaler:
        """Stands in for that of mixed precision, which needs a GPU."""

    trainer.precision_plugin.scaler = Scaler()
    numbers._overflows = OVERFLOWS - 1
    trainer.fit(task, data)  # once more is allowed, and it ends
    assert numbers._overflows == 0
    trainer, task, data, numbers, _ = train(class_root, "stop", "gradient", 2, (0,))
    trainer.precision_plugin.scaler = Scaler()
    numbers._overflows = OVERFLOWS
    with pytest.raises(NumbersError):
        trainer.fit(task, data)


class ManySteps(LightningModule):
    """Three steps on a batch, as on a rollout, of which the last but one has a loss of NaN."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.register_buffer("average", torch.zeros(()))
        self.states = []

    def configure_optimizers(self):  # noqa: D102
        return torch.optim.SGD(self.net.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):  # noqa: D102
        optimizer = self.optimizers()
        for factor in (1.0, float("nan"), 2.0):
            optimizer.zero_grad()
            self.manual_backward(self.net(batch).square().mean() * factor)
            optimizer.step()
            self.states.append(copy.deepcopy(self.state_dict()))


class Average(Callback):
    """Follows the steps that are taken, as the gates' moving average does."""

    def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: D102
        if module.net[0].weight.grad is not None:
            module.average += 1


def test_a_step_of_many_on_one_batch_that_is_left_out_undoes_none_before_it():
    module, numbers = ManySteps(), FiniteNumbers("skip")
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[numbers, Average()],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="is skipped: the loss is nan"):
        trainer.fit(module, DataLoader(torch.randn(8, 2), batch_size=4))
    assert numbers.skipped == 2
    for first, spoilt, last in (module.states[:3], module.states[3:]):
        assert all(torch.equal(first[key], spoilt[key]) for key in first)
        assert not torch.equal(last["net.1.running_mean"], spoilt["net.1.running_mean"])
    assert [int(state["average"]) for state in module.states] == [1, 1, 2, 3, 3, 4]
    assert not module.optimizers().optimizer._optimizer_step_post_hooks


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="on_nonfinite"):
        FiniteNumbers("ignore")
