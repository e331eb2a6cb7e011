"""What a segmentation run leaves: pictures, scores of classes and images, predicted masks."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")
PREDICT = ("predict", "--ckpt_path", "run", "--output", "out")


def rows_of(path):
    with Path(path).open(newline="") as stream:
        return list(csv.reader(stream))


@pytest.fixture
def trained(tiny, mask_root, command):
    """Train on two rectangles of two colours; called with options of the task."""

    def train(data="ImageMasks", root=mask_root, **options):
        of_data = {"root": str(root), "image_size": 32, "batch_size": 4, "num_workers": 0}
        backbone = {
            "class_path": "PlainBackbone",
            "init_args": {"architecture": "test_resnet", "output": "stages"},
        }
        tiny(
            **{
                "pictures": True,
                "trainer.max_steps": 30,
                "trainer.val_check_interval": 30,
                "model": {
                    "class_path": "SegmentationTask",
                    "init_args": {"lr": 0.01, "backbone": backbone} | options,
                },
                "data": {"class_path": data, "init_args": of_data},
            }
        )
        done = command(*FIT)
        assert done.status == 0, done.err
        return done

    return train


def test_a_test_leaves_scores_of_classes_and_images_and_pictures(trained, caplog):
    trained(loss="both", class_weights="auto")
    assert "class_weights auto:" in caplog.text
    header, *rows = rows_of("run/class_scores.csv")
    assert header == ["class", "iou", "dice", "precision", "recall", "cells"]
    assert [row[0] for row in rows] == ["ground", "red", "blue"]
    # Two colours are easily told apart.
    assert all(float(row[1]) > 50 for row in rows), rows
    names = {row[0] for row in rows_of("run/test_errors.csv")[1:]}
    assert names == {f"test/images/test{i}.jpg" for i in range(4)}
    matrix = np.array([row[1:] for row in rows_of("run/confusion.csv")[1:]], int)
    assert matrix.sum(1).tolist() == [int(row[5]) for row in rows]
    assert matrix.sum() == 4 * 24 * 32  # without the padding
    for picture in ("val_images", "best_masks", "worst_masks"):
        assert Image.open(f"run/pictures/{picture}.png").width > 500
    assert "Worst masks of the test" in Path("run/report.html").read_text()


def test_masks_are_predicted_at_the_images_own_size_with_and_without_images(
    trained, command, mask_root
):
    trained()
    done = command(*PREDICT)
    assert done.status == 0, done.err
    header, *rows = rows_of("out/predictions.csv")
    assert header == ["image", "mask", "area ground", "area red", "area blue"]
    assert len(rows) == 4
    assert rows[0][:2] == ["test/images/test0.jpg", "masks/test0.png"]
    assert rows_of("out/classes.csv")[1] == ["0", "ground", "#000000"]
    images = command(*PREDICT[:-1], "images", "--images", mask_root / "test" / "images")
    assert "segmentation: 4 predictions" in images.out, images.err
    exported = command("export", "--ckpt_path", "run", "--format", "onnx", "--output", "onnx")
    assert exported.status == 0, exported.err
    command("predict", "--ckpt_path", "onnx", "--output", "by_onnx", "--images",
            mask_root / "test" / "images")  # fmt: skip
    right = []
    for number, row in enumerate(rows):
        mask = Image.open(Path("out", row[1]))
        assert mask.mode == "P"
        assert mask.size == (40, 30)
        for other in ("images", "by_onnx"):
            same = np.array(mask) == np.array(Image.open(Path(other, row[1])))
            assert same.mean() > 0.995
        assert sum(map(float, row[2:])) == pytest.approx(1, abs=1e-5)
        true = np.array(Image.open(mask_root / "test" / "masks" / f"test{number}.png"))
        right.append((np.array(mask) == true).mean())
        assert len(list(Path("images", "overlays").glob("*.png"))) == 4
    assert np.mean(right) > 0.85
    assert rows_of("images/predictions.csv")[1][1:] == rows[0][1:]


def test_json_lines_have_areas_by_class(trained, command, mask_root):
    trained()
    words = ("--images", mask_root / "test" / "images", "--format", "jsonl", "--overlays", 0)
    assert command(*PREDICT, *words).status == 0
    line = Path("out/predictions.jsonl").read_text().splitlines()[0]
    assert '"areas": {"ground": 0.' in line
    assert '"mask": "masks/test0.png"' in line
    assert not Path("out/overlays").exists()


def test_scenes_of_photographs_have_masks_too(trained, class_root, command):
    trained("PhotoMosaics", class_root)
    assert command(*PREDICT).status == 0
    assert Image.open("out/masks/ant/0.png").size == (32, 32)
    wide = Image.new("RGB", (90, 40))
    wide.save("wide.png")
    assert command(*PREDICT[:-1], "wide", "--images", "wide.png").status == 0
    mask = np.array(Image.open("wide/masks/wide.png"))
    # What a centre crop does not show has no class.
    assert (mask[:, :25] == 255).all()
    assert (mask[:, 65:] == 255).all()
    assert mask[:, 25:65].max() < 3


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(trained, command):
    trained(class_weights="auto")
    whole = rows_of("run/test_errors.csv")
    half = ("--trainer.max_steps", 20, "--model.schedule", "constant")
    assert command(*FIT[:-1], "half", *half, "--trainer.max_steps", 10).status == 0
    done = command("fit", "--experiment", "tiny", "--ckpt_path", "half", *half)
    assert done.status == 0, done.err
    assert command(*FIT[:-1], "full", *half).status == 0
    assert rows_of("half/test_errors.csv") == rows_of("full/test_errors.csv") != whole
