"""The best checkpoint of a run, in whatever folder the run is by now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint that is best by a metric, also after the run's folder was moved.

    Lightning notes whole paths. In another folder it forgets the best score, and the next
    checkpoint, however bad, takes the best one's place. State: as ``ModelCheckpoint`` has it.
    """

    _own_folder = True

    @property
    @override
    def state_key(self) -> str:
        # As its parent's: checkpoints written with that go on.
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # In the folder of another run that one's best checkpoint would be taken for this one's.
        # Without a path the cluster's scheduler goes on with this very run.
        given, folder = trainer.ckpt_path, self.dirpath
        self._own_folder = not given or Path(given).resolve().parent == Path(folder).resolve()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._own_folder:
            state_dict = moved(state_dict, self.dirpath)
        super().load_state_dict(state_dict)


def moved(state: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """The state of a ``ModelCheckpoint`` for the folder to which its files were moved.

    Args:
        state: with whole paths; stays as it is.
        folder: the present one. Without the best checkpoint in it nothing was moved there.
    """
    best = state.get("best_model_path")
    if not folder or not best or not _there(best, folder):
        return state
    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    kept = {_place(path, folder): score for path, score in state["best_k_models"].items()}
    changed = {name: _place(state[name], folder) for name in paths if state.get(name)}
    return {**state, "dirpath": folder, "best_k_models": kept, **changed}


def _there(path: str, folder: str) -> bool:
    return (Path(folder) / Path(path).name).is_file()


def _place(path: str, folder: str) -> str:
    return str(Path(folder) / Path(path).name) if _there(path, folder) else path
