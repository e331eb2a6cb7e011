"""Figures and tables: in the run's folder always, and with the loggers that can show them."""

import csv
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from zoo_lightning.loggers import figures_and_tables
from zoo_lightning.loggers import selection as loggers
from zoo_lightning.loggers.figures_and_tables import as_numbers, save_figures, save_table, step_of
from zoo_lightning.plotting.figures import new_figure


class Run:
    """A run of Weights & Biases that keeps what it is given."""

    disabled = False

    def __init__(self):
        self.logged = []

    def log(self, values):
        """Keep it."""
        self.logged.append(values)


@pytest.fixture
def trainer(tmp_path):
    run = Run()
    logger = WandbLogger(save_dir=str(tmp_path), experiment=run)
    return SimpleNamespace(loggers=[logger], global_step=7, run=run)


def figure():
    drawn = new_figure(2, 2)
    drawn.subplots().plot([0, 1])
    return drawn


def test_a_picture_is_a_file_and_goes_to_weights_and_biases(trainer, tmp_path):
    save_figures(trainer, None, tmp_path, {"a.png": figure(), "b.png": figure()})
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"a.png", "b.png"}
    first, second = trainer.run.logged
    assert (first["trainer/global_step"], set(second)) == (7, {"pictures/b", "trainer/global_step"})
    (image,) = first["pictures/a"]
    with Image.open(tmp_path / "pictures" / "a.png") as written:
        assert (image._width, image._height) == written.size


def test_tensorboard_gets_the_same_pictures(trainer, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    trainer.loggers.append(logger)
    save_figures(trainer, None, tmp_path, {"a.png": figure()})
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path)).Reload()
    (image,) = events.Images("pictures/a")
    with Image.open(tmp_path / "pictures" / "a.png") as written:
        assert (image.step, image.width, image.height) == (7, *written.size)


def test_the_axis_counts_optimiser_steps_or_those_of_an_agent(trainer):
    assert step_of(trainer, SimpleNamespace()) == 7
    assert step_of(trainer, SimpleNamespace(agent_steps=torch.tensor(4096))) == 4096


def test_a_table_is_a_csv_and_goes_to_weights_and_biases(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(figures_and_tables, "LONGEST", 3)
    path = tmp_path / "run" / "errors.csv"
    rows = ([f"é{k}.png", f"{k / 3:.2f}"] for k in range(5))
    save_table(trainer, None, path, ["image", "nme"], rows)
    with path.open(newline="", encoding="utf-8") as stream:
        written = list(csv.reader(stream))
    assert written[:3] == [["image", "nme"], ["é0.png", "0.00"], ["é1.png", "0.33"]]
    assert len(written) == 6  # the file has all rows
    (logged,) = trainer.run.logged
    table = logged["tables/errors"]
    assert table.columns == ["image", "nme"]
    assert table.data == [["é0.png", 0.0], ["é1.png", 0.33], ["é2.png", 0.67]]


def test_an_empty_table_will_do(trainer, tmp_path):
    save_table(trainer, None, tmp_path / "none.csv", ["image", "nme"], [])
    assert (tmp_path / "none.csv").read_text().split() == ["image,nme"]
    (logged,) = trainer.run.logged
    assert logged["tables/none"].data == []


def test_columns_are_numbers_only_throughout():
    assert as_numbers(["1", "nan", 2]) == pytest.approx([1.0, float("nan"), 2.0], nan_ok=True)
    assert as_numbers(["1", "one"]) == ["1", "one"]


def test_a_lost_connection_leaves_the_folder_complete(trainer, tmp_path, monkeypatch):
    def lost(values):
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(loggers, "_failed", set())
    trainer.run.log = lost
    save_figures(trainer, None, tmp_path, {"a.png": figure(), "b.png": figure()})
    save_table(trainer, None, tmp_path / "errors.csv", ["image"], [["a"]])
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"a.png", "b.png"}
    assert (tmp_path / "errors.csv").is_file()
    assert loggers._failed == {"pictures to Weights & Biases", "tables to Weights & Biases"}
