"""What a regression run leaves for people to look at: which files, and what is in them."""

import csv
import json
from pathlib import Path

import pytest

from zoo_lightning.benchmarking.report import METRICS_OF, image_figures
from zoo_lightning.data.image_table import read_image_table
from zoo_lightning.reports.finished_run import RunFiles

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")


def read(file):
    with Path(file).open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.fixture
def numbers(tiny, number_root):
    """Write the experiment ``tiny`` on numbers, changed."""

    def write(**changes):
        data = {"root": str(number_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
        described = {"class_path": "ImageNumbers", "init_args": data | {"missing": "skip"}}
        short = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}
        tiny(**short, **{"model.class_path": "RegressionTask", "data": described}, **changes)

    write()
    return write


def test_a_run_leaves_pictures_and_a_table_of_all_test_images(numbers, command, number_root):
    path = number_root / "test.csv"
    rows = read(path)
    rows[2][2] = ""  # an unknown number
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    done = command(*FIT, "--pictures", "true")
    assert done.status == 0, done.err
    pictures = {each.name for each in Path("run/pictures").glob("*.png")}
    assert {"scatter.png", "worst.png", "val_images.png"} <= pictures
    header, *found = read("run/test_errors.csv")
    assert header == ["image", "nmae", "true bright", "predicted bright", "true red",
                      "predicted red"]  # fmt: skip
    assert [row[0] for row in found] == [row[0] for row in rows[1:]]
    assert found[1][4] == ""
    assert found[1][1]
    for row, given in zip(found, rows[1:], strict=True):
        assert float(row[2]) == pytest.approx(float(given[1]))
    summary = json.loads(Path("run/summary.json").read_text())
    errors = [abs(float(row[2]) - float(row[3])) for row in found]
    assert summary["test"]["test/mae/bright"] == pytest.approx(sum(errors) / 4, rel=1e-4)
    assert METRICS_OF["RegressionTask"].name in summary["test"]
    page = Path("run/report.html").read_text()
    assert "Predicted by true numbers of the test" in page
    assert "test NMAE, %" in page


def test_the_images_errors_average_to_the_metric_that_runs_are_compared_by(numbers, command):
    assert command(*FIT).status == 0
    metric = METRICS_OF["RegressionTask"]
    run = RunFiles(Path("run"))
    assert run.metric == metric
    found = image_figures(Path("run"), metric, run.test["test/nmae"])
    assert len(found) == 4
    assert run.main.mean == run.test["test/nmae"] > 0


def test_predictions_for_the_test_data_are_a_table_that_can_be_read_again(
    numbers, command, number_root
):
    assert command(*FIT, "--pictures", "false").status == 0
    assert not Path("run/pictures/scatter.png").exists()
    done = command("predict", "--ckpt_path", "run", "--output", "out")
    assert done.status == 0, done.err
    table = read_image_table(Path("out/predictions.csv"))
    assert table.columns == ("bright", "red")
    assert [row.image for row in table.rows] == [f"test{index:02d}.png" for index in range(4)]
    tested = read("run/test_errors.csv")[1:]
    for row, errors in zip(table.rows, tested, strict=True):
        assert float(row.cells["red"]) == pytest.approx(float(errors[5]), rel=1e-4)


def test_predictions_for_images_name_no_pictures(numbers, command, number_root):
    assert command(*FIT, "--pictures", "false").status == 0
    words = ("--images", number_root / "images", "--output", "out")
    done = command("predict", "--ckpt_path", "run", *words)
    assert done.status == 0, done.err
    assert "predictions in out/predictions.csv" in done.out
    assert "overlays" not in done.out
