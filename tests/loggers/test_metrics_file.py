"""``metrics.csv``: what was written stays, whatever happens while more is written."""

import os

import pytest
import torch

from zoo_lightning.errors import StorageError
from zoo_lightning.loggers.metrics_file import MetricsWriter
from zoo_lightning.loggers.selection import make_loggers
from zoo_lightning.runs.run_folder import earlier_metrics


def test_rows_are_appended_and_new_columns_written_anew(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.log_metrics({"train/loss": torch.tensor(0.5)}, 0)
    writer.save()
    node = (tmp_path / "metrics.csv").stat().st_ino
    writer.log_metrics({"train/loss": 0.25}, 1)
    writer.save()
    assert (tmp_path / "metrics.csv").stat().st_ino == node
    table = (tmp_path / "metrics.csv").read_text()
    assert table.split() == ["step,train/loss", "0,0.5", "1,0.25"]
    writer.log_metrics({"val/loss": 0.3}, 1)
    writer.save()
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "step,train/loss,val/loss", "0,0.5,", "1,0.25,", "1,,0.3",
    ]  # fmt: skip
    writer.save()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("name", ["train/loss", "val/loss"])
def test_a_full_disk_loses_no_row_that_was_written(tmp_path, name):
    resource = pytest.importorskip("resource")
    writer = MetricsWriter(tmp_path)
    for step in range(50):
        writer.log_metrics({"train/loss": 0.5}, step)
    writer.save()
    size = (tmp_path / "metrics.csv").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer.log_metrics({name: 0.1234}, 50)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4, hard))
    try:
        with pytest.raises(StorageError, match=r"metrics\.csv: File too large"):
            writer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # What got onto the disk of the last row does not pass for a row.
    assert [row["step"] for row in earlier_metrics(tmp_path, 51)] == list(range(50))
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_a_run_that_goes_on_keeps_its_rows_till_new_ones_are_written(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,3\n1,2\n2,1\n3,0.")
    before = (tmp_path / "metrics.csv").read_bytes()
    trainer = type("Trainer", (), {"fast_dev_run": False})
    options = type("Options", (), {"trainer": trainer, "wandb": False})
    [logger] = make_loggers(options, None, tmp_path, "faces", resumed_at=2)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    logger.log_metrics({"train/loss": 0.75, "val/loss": 9}, 2)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "step,train/loss,val/loss", "0,3,", "1,2,", "2,0.75,9",
    ]  # fmt: skip
