"""Loggers of a run: which there are, under what names, and that their failures stop nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only

from zoo_lightning.loggers import selection as loggers
from zoo_lightning.loggers.selection import (
    OPTIONS,
    SteadyWandbLogger,
    begin_runs,
    earlier_run_id,
    make_loggers,
    split_tags,
    tolerate_failures,
    wandb_runs,
)


class Broken(WandbLogger):
    """A logger whose runs cannot begin."""

    @property
    def experiment(self):
        """Fails, as it does with a full disk."""
        raise OSError("no space left")


@pytest.fixture
def options(monkeypatch):
    """Options of a subcommand with Weights & Biases on and all else as it is by default."""
    for name in ("SWEEP_ID", "PROJECT", "RUN_GROUP", "FINISH_TIMEOUT"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    values = {name: default for name, _, default, _ in OPTIONS} | {"wandb": True}
    return SimpleNamespace(**values, trainer=SimpleNamespace(fast_dev_run=False))


@pytest.fixture
def told(monkeypatch):
    """Lines that are said of failures, from none on."""
    lines = []
    monkeypatch.setattr(loggers, "_failed", set())
    monkeypatch.setattr(loggers, "rank_zero_info", lines.append)
    return lines


def settings_of(options, folder, **given):
    _, logger = make_loggers(options, None, folder, "landmarks", **given)
    return logger._wandb_init


def test_a_run_is_in_its_experiments_group_unless_told_otherwise(options, tmp_path, monkeypatch):
    settings = settings_of(options, tmp_path)
    assert (settings["project"], settings["group"]) == ("zoo_lightning", "landmarks")
    assert settings["settings"]["finish_timeout"] > 0  # a run ends even if its upload does not
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_RUN_GROUP", "group")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "5")
    settings = settings_of(options, tmp_path)
    assert (settings["project"], settings["group"]) == ("theirs", "group")
    assert "settings" not in settings
    options.wandb_project, options.wandb_group, options.wandb_entity = "mine", "pairs", "team"
    settings = settings_of(options, tmp_path)
    assert [settings[name] for name in ("project", "group", "entity")] == ["mine", "pairs", "team"]


def test_a_sweeps_agent_decides_on_project_and_run(options, tmp_path, monkeypatch):
    (tmp_path / "wandb" / "run-20260101_000000-earlier").mkdir(parents=True)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    options.wandb, options.wandb_project, options.wandb_entity = False, "mine", "me"
    settings = settings_of(options, tmp_path, resumed_at=3)
    assert (settings["project"], settings["entity"], settings["id"]) == ("theirs", None, None)


def test_a_run_that_goes_on_goes_on_there_too(options, tmp_path):
    assert earlier_run_id(tmp_path) is None
    for name in ("offline-run-20260103_000000-c", "run-20260101_000000-a", "run-20260102_000000-b"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert settings_of(options, tmp_path, resumed_at=3)["id"] == "b"
    assert settings_of(options, tmp_path)["id"] is None


@pytest.mark.parametrize("given", ["a, b,", "[a,b]", ["a", "b"]])
def test_tags_have_commas_between_or_are_a_list(given):
    assert split_tags(given) == ["a", "b"]
    assert split_tags(None) is None


def test_a_users_own_logger_of_weights_and_biases_is_the_only_one(options, tmp_path):
    own = WandbLogger(save_dir=str(tmp_path))
    for given in (own, [own]):
        assert make_loggers(options, given, tmp_path, "x")[1:] == [own]


def test_nothing_is_logged_in_a_fast_development_run_or_by_request(options, tmp_path):
    assert make_loggers(options, False, tmp_path, "x") is False
    options.trainer.fast_dev_run = 1
    [nowhere] = make_loggers(options, None, tmp_path, "x")
    assert isinstance(nowhere, DummyLogger)


def test_a_failure_is_told_once_and_goes_no_further(told):
    for _ in range(3):
        with tolerate_failures("pictures"):
            raise ConnectionResetError("Connection\nlost")
    (line,) = told
    assert "pictures not logged (ConnectionResetError: Connection lost)" in line
    with pytest.raises(KeyboardInterrupt), tolerate_failures("pictures"):
        raise KeyboardInterrupt


def test_a_logger_that_cannot_begin_is_left_out(told, tmp_path):
    csv = CSVLogger(str(tmp_path))
    assert begin_runs([csv, Broken(save_dir=str(tmp_path))]) == [csv]
    (line,) = told
    assert "Weights & Biases not logged (OSError: no space left)" in line


def test_metrics_that_cannot_be_handed_over_stop_nothing(told, tmp_path):
    def lost(*args, **kwargs):
        raise ConnectionResetError("Connection lost")

    run = SimpleNamespace(log=lost, config=SimpleNamespace(update=lost))
    logger = SteadyWandbLogger(save_dir=str(tmp_path), experiment=run)
    for step in range(3):
        logger.log_metrics({"loss": 1.0}, step)
    logger.log_hyperparams({"lr": 0.1})
    assert len(told) == 2


def test_only_the_first_process_logs(tmp_path, monkeypatch):
    run = SimpleNamespace(disabled=False)
    logger = WandbLogger(save_dir=str(tmp_path), experiment=run)
    assert list(wandb_runs([logger, CSVLogger(str(tmp_path))])) == [(logger, run)]
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert list(wandb_runs([logger])) == []


def test_a_disabled_run_gets_nothing(tmp_path):
    run = SimpleNamespace(disabled=True)
    assert list(wandb_runs([WandbLogger(save_dir=str(tmp_path), experiment=run)])) == []
    assert list(Path(tmp_path).iterdir()) == []
