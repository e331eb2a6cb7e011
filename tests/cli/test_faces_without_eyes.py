"""Runs on faces of which some lack the points of the distance that errors are divided by."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo_lightning.analysis.measuring import score_batch
from zoo_lightning.data.landmarks.published import LandmarkCSV
from zoo_lightning.runs.run_folder import errors_in_test
from zoo_lightning.tasks.loading import load_task

SMALL = {"image_size": 32, "batch_size": 4, "num_workers": 0, "val_fraction": 0.3}
LACKING = ("testa_01.png", "testb_00.png")


@pytest.fixture
def eyeless(landmark_root):
    """Four test faces, two without an eye, and training faces, every third without one."""
    for part in ("train", "test"):
        path = landmark_root / f"{part}.csv"
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines[1:], 1):
            name, _, _, *others = line.split(",")
            if name in LACKING or (part == "train" and number % 3 == 0):
                lines[number] = ",".join([name, "", "", *others])
        path.write_text("\n".join(lines) + "\n")
    return landmark_root


def test_they_count_in_no_figure_and_are_counted(eyeless, tiny, command):
    init = SMALL | {"root": str(eyeless), "check_annotations": False}
    tiny(**{"data": {"class_path": "LandmarkCSV", "init_args": init},
            "model.init_args.normalization": "interocular"})  # fmt: skip
    with pytest.warns(UserWarning, match="lack points of `interocular`") as caught:
        done = command("fit", "--experiment", "tiny", "--run_dir", "run", "--pictures", "true")
    assert done.status == 0, done.err
    lines = [str(each.message) for each in caught if "lack points" in str(each.message)]
    assert len(lines) == 2  # of validation and of test
    assert "test faces: 2 of 4 lack points of `interocular`" in lines[1]

    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["test_images"] == 4
    assert summary["test_images_by_distance"]["interocular"] == 2
    assert summary["test_images_by_distance"]["box"] == 4
    with Path("run/test_errors.csv").open(newline="") as stream:
        errors = {row["image"]: row["nme"] for row in csv.DictReader(stream)}
    assert {name for name, error in errors.items() if not error} == set(LACKING)
    assert 100 * np.mean(errors_in_test(Path("run"))) == pytest.approx(
        summary["test"]["test/nme"], rel=1e-4
    )
    assert np.isfinite(list(summary["validation"].values())).all()
    assert {"test_faces.png", "error_curve.png"} <= {
        path.name for path in Path("run/pictures").iterdir()
    }

    task = load_task("run")
    data = LandmarkCSV(**init)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    scores = score_batch(task, data.on_after_batch_transfer(batch, 0))
    assert scores.error.shape == (2,)
    assert torch.isfinite(scores.error).all()
    assert float(scores.error.mean()) == pytest.approx(summary["test"]["test/nme"], rel=1e-4)


def test_where_none_is_left_the_command_is_refused(eyeless, tiny, command):
    path = eyeless / "test.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line for line in lines if line.startswith(LACKING))]))
    init = SMALL | {"root": str(eyeless), "check_annotations": False}
    tiny(**{"data": {"class_path": "LandmarkCSV", "init_args": init}})
    done = command("fit", "--experiment", "tiny", "--run_dir", "run", "--pictures", "true")
    done.refused("`interocular`", "2 of 2 faces", "--data.normalizations")
    assert not Path("run").exists()
