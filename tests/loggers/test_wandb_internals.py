"""Private names of wandb and Lightning that are used: what breaks if they change."""

import inspect

from lightning.pytorch.loggers import WandbLogger
from wandb.sdk.wandb_run import Run

from zoo_lightning.loggers.wandb_internals import set_offline


def test_a_logger_hands_its_options_to_wandb_init(tmp_path, monkeypatch):
    # Otherwise a run that cannot reach the server is not logged at all.
    logger = WandbLogger(save_dir=str(tmp_path), project="p")
    set_offline(logger)
    given = {}
    monkeypatch.setattr("wandb.init", lambda **options: given.update(options))
    monkeypatch.setattr("wandb.run", None)
    _ = logger.experiment
    assert (given["mode"], given["project"]) == ("offline", "p")


def test_an_artifact_can_become_an_input_without_a_server():
    # Otherwise sources are logged by `use_artifact`: not offline, and online without a time limit.
    options = inspect.signature(Run._log_artifact).parameters
    assert {"artifact_or_path", "is_user_created", "use_after_commit"} <= set(options)
