"""Callbacks for a run's checkpoints: when they are saved, and what they contain."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import may_stop_early
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import copy_file
from zoo_lightning.runs.stopping import StopSignals


class TrainingInterrupted(BaseException):
    """Raised when a training that was interrupted by a signal has saved its state and stopped.

    Not an ``Exception``, so that no handler of errors catches it.

    Attributes:
        signal_number: number of the signal.
        checkpoint: file to resume the run from; ``None`` if it was stopped before there was
            anything to save.
        trained: whether the training was finished, and its test or summary was interrupted.
    """

    def __init__(self, signal_number: int, checkpoint: Path | None, trained: bool = False) -> None:
        name = signal.Signals(signal_number).name
        saved = f"the state of training is in {checkpoint}" if checkpoint else "nothing was saved"
        if trained:
            saved = f"the training is finished, its state is in {checkpoint}; its test is not"
        super().__init__(f"stopped by {name}; {saved}")
        self.signal_number = signal_number
        self.checkpoint = checkpoint


class LastCheckpoint(Checkpoint):
    """Save ``last.ckpt`` at every validation, at the end, and on a signal before stopping.

    Signals are SIGINT, SIGTERM and, unless ``nohup`` ignores it, SIGHUP. Lightning's ``save_last``
    saves only when the best checkpoint improves. After a signal, the current step finishes first,
    so that a resumed run gets exactly the weights of an uninterrupted one. A second signal stops at
    once.

    A run that is resumed where it ends keeps the checkpoint that it was resumed from.

    It is a ``Checkpoint`` so that Lightning calls it last: the saved state includes what other
    callbacks did in the step, such as finding a new best checkpoint.

    Args:
        folder: folder that ``last.ckpt`` is written to.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.path = Path(folder) / "last.ckpt"
        self.requested = 0
        self._signals = StopSignals(self._request)
        self._begun = 0  # steps when this process began
        self._steps = 0  # before the batch
        self._stepped = False  # in the last batch
        self._saved = -1
        self._stopping = False

    def _request(self, signal_number: int) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = signal_number

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._signals.install()
        self._begun = trainer.global_step

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._stop()
        self._steps = trainer.global_step

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Between two batches whose gradients are accumulated, a checkpoint would lose the former's.
        self._stepped = trainer.global_step > self._steps
        # A resumed run does not make up for the validation that was due when it was interrupted.
        due = validation_follows(trainer, batch_idx)
        if self._stepped and not due and self._stop_requested(trainer):
            self._save(trainer)
            self._stopping = True  # as soon as the step's metrics are logged

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not self._stepped:
            return
        self._save(trainer)
        self._stopping = self._stop_requested(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        self._stop()

    def _stop_requested(self, trainer: pl.Trainer) -> bool:
        requested = bool(self.requested)
        if trainer.world_size > 1:  # all ranks must stop at the same step
            requested = trainer.strategy.reduce_boolean_decision(requested, all=False)
        return requested

    def _save(self, trainer: pl.Trainer) -> None:
        if self._saved == trainer.global_step:
            return
        self._saved = trainer.global_step
        if trainer.global_step == self._begun and trainer.ckpt_path:
            # Loops that were resumed and did nothing would continue with other batches.
            given = Path(trainer.ckpt_path)
            if given.resolve() != self.path.resolve() and trainer.is_global_zero:
                copy_file(given, self.path)
            trainer.strategy.barrier()
            return
        # The default, given because Lightning otherwise says at every save that it takes it.
        trainer.save_checkpoint(self.path, weights_only=False)

    def _stop(self) -> None:
        if self._stopping:
            raise TrainingInterrupted(self.requested or signal.SIGTERM, self.path)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._signals.restore()


def validation_follows(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the Trainer validates right after the batch that just ended."""
    if not trainer.enable_validation:
        return False
    interval = trainer.val_check_batch
    if interval is None or not math.isfinite(interval):
        return False
    every, batches = trainer.check_val_every_n_epoch, batch_idx + 1
    if every is None:
        batches = trainer.fit_loop.total_batch_idx + 1  # over all epochs
    elif (trainer.current_epoch + 1) % every:
        return False
    if trainer.should_stop and may_stop_early(trainer):
        return True
    return batches % interval == 0


class LastValidation(Callback):
    """Validate also after the last training step, and end a training early if wanted.

    Lightning validates only at multiples of ``val_check_interval``: later weights, trained at the
    lowest learning rate, could not become the best checkpoint, and a training shorter than the
    interval would have no validation. A training that ends early is validated at half of its steps,
    too: two losses, the second after twice the steps of the first, say how fast it learns.

    Hooks: ``on_train_start`` checks, and ends a resumed run that has all of its steps already,
    ``on_train_batch_end`` stops, ``on_validation_end`` keeps the losses. State: the losses.

    Args:
        stop_after: fraction of the training's steps, in (0, 1], after which it ends; learning rates
            are those of the whole training.

    Attributes:
        losses: ``val/loss``, or the task's ``monitor`` if it has none, by optimiser step.

    Raises:
        ConfigError: at the start of training, ``stop_after`` is below 1, and the resumed run has
            more steps already, or the training has no end.
    """

    def __init__(self, stop_after: float = 1.0) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.losses: dict[int, float] = {}
        self._stop_at: int | None = None
        self._step = 0
        self._only_validates = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        if self.stop_after == 1:
            return
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ConfigError(
                f"stop_after {self.stop_after:g} is a fraction of the training's steps, whose "
                "number is not known; set trainer.max_steps or trainer.max_epochs"
            )
        self._stop_at = max(round(self.stop_after * steps), 1)
        if trainer.global_step == self._stop_at:  # stopped by a signal before it could end
            trainer.should_stop = True
        elif trainer.global_step > self._stop_at:
            raise ConfigError(
                f"stop_after {self.stop_after:g} ends the training after {self._stop_at} of "
                f"{int(steps)} steps, and the resumed run has {trainer.global_step}; give a larger "
                "--stop_after, or --stop_after 1 to train to the end"
            )

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        before, self._step = self._step, trainer.global_step
        half = self._stop_at is not None and before < self._stop_at // 2 <= self._step
        stops = self._stop_at is not None and self._step >= self._stop_at
        ends = trainer.should_stop or stops or is_last_step(trainer)
        # Asked to stop, Lightning validates; without this it would stop after this step as well.
        trainer.should_stop = ends or half
        self._only_validates = half and not ends
        if self._only_validates and not validation_follows(trainer, batch_idx):
            self._only_validates = trainer.should_stop = False

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if self._only_validates:
            self._only_validates = trainer.should_stop = False
        found = trainer.callback_metrics
        loss = found.get("val/loss", found.get(getattr(pl_module, "monitor", "")))
        if loss is not None:
            self.losses[trainer.global_step] = float(loss)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"losses": dict(self.losses)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = dict(state_dict["losses"])


def is_last_step(trainer: pl.Trainer) -> bool:
    """Whether the batch that just ended is the training's last by steps or epochs."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    return trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs


class MovedRun(Callback):
    """Let every ``ModelCheckpoint`` find its files after the run's folder was moved or copied.

    Lightning saves absolute paths. In another folder it discards the best score, and the next
    checkpoint replaces the best one even if it is worse; a copied run would write to the files of
    the original. Hook: ``on_load_checkpoint``, before the callbacks load their states. No state.
    """

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # In the folder of another run its best checkpoint would be taken for this run's.
        # Without a path the cluster's scheduler resumes this very run.
        given, folder = trainer.ckpt_path, Path(trainer.default_root_dir).resolve()
        if given and folder not in Path(given).resolve().parents:
            return
        states = checkpoint.get("callbacks", {})
        for keeper in trainer.checkpoint_callbacks:
            if isinstance(keeper, ModelCheckpoint) and keeper.state_key in states:
                states[keeper.state_key] = moved(states[keeper.state_key], keeper.dirpath)


def moved(state: dict[str, Any], folder: str | Path | None) -> dict[str, Any]:
    """Adapt the state of a ``ModelCheckpoint`` to the folder to which its files were moved.

    Args:
        state: state with absolute paths; not modified.
        folder: current folder; if it does not contain the best checkpoint, the state is returned
            unchanged.
    """
    best = state.get("best_model_path")
    if not folder or not best or not _there(best, folder):
        return state
    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    kept = {_place(path, folder): score for path, score in state["best_k_models"].items()}
    changed = {name: _place(state[name], folder) for name in paths if state.get(name)}
    return {**state, "dirpath": folder, "best_k_models": kept, **changed}


def _there(path: str, folder: str | Path) -> bool:
    return (Path(folder) / Path(path).name).is_file()


def _place(path: str, folder: str | Path) -> str:
    return str(Path(folder) / Path(path).name) if _there(path, folder) else path


class ValidatedWeights(Callback):
    """Refuse to save weights other than those that were validated at the same step.

    Callbacks that swap in averaged weights only for validation would otherwise select checkpoints
    by weights that no checkpoint contains.

    Args:
        suspects: names of callbacks that may change weights, for the message.
    """

    def __init__(self, suspects: Iterable[str]) -> None:
        self.suspects = sorted(set(suspects))
        self._step = -1
        self._validated: dict[str, Tensor] = {}

    @override
    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or dataloader_idx:
            return
        self._step = trainer.global_step
        self._validated = {name: _norm(each) for name, each in pl_module.named_parameters()}

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check that the saved weights are the validated ones.

        Raises:
            ConfigError: the weights differ from the validated ones.
        """
        if trainer.global_step != self._step:
            return
        saved = checkpoint["state_dict"]
        for name, norm in self._validated.items():
            if name in saved and not torch.equal(_norm(saved[name]).to(norm.device), norm):
                raise ConfigError(
                    f"step {self._step} was validated with other weights than those that would be "
                    f"saved ({name} differs): trainer.callbacks {', '.join(self.suspects)} changes "
                    "weights for validations; leave it out, and for averages set average_weights: "
                    "true"
                )


def _norm(weights: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weights.detach().float())
