"""Runs on images of other channels: network, test, predictions and export follow from the data."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from zoo_lightning.data.band_files import read_bands
from zoo_lightning.prediction.predictor import Predictor

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")


@pytest.fixture
def bands(tiny, tmp_path):
    """Write the experiment ``tiny`` on images of five bands of 16 bits."""
    rng = np.random.default_rng(0)
    names = "".join(
        f'<Item name="DESCRIPTION" sample="{i}">{name}</Item>'
        for i, name in enumerate(("blue", "green", "red", "nir", "swir"))
    )
    for part, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("ant", "bee", "cat")):
            for i in range(count):
                pixels = rng.normal(1000, 100, (5, 20, 20))
                pixels[label + 2] += 500
                file = tmp_path / "data" / part / name / f"{i}.tif"
                file.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(
                    file, pixels.astype(np.uint16), photometric="minisblack",
                    planarconfig="separate", metadata=None,
                    extratags=[(42112, 2, 0, f"<GDALMetadata>{names}</GDALMetadata>", True)],
                )  # fmt: skip

    def write(**changes):
        data = {"root": str(tmp_path / "data"), "image_size": 16, "batch_size": 4}
        described = {"class_path": "ImageFolders", "init_args": {**data, "num_workers": 0}}
        tiny(**{"model.class_path": "ClassificationTask", "data": described, **changes})

    write()
    return write


def probabilities(file):
    """Probabilities of the most probable class by image."""
    with Path(file).open(newline="") as stream:
        return {row["image"]: float(row["probability_1"]) for row in csv.DictReader(stream)}


def test_bands_alone_set_the_network_and_a_run_can_be_used(bands, command, tmp_path):
    bands(**{"pictures": True})
    done = command(*FIT, "--data.bands", "[nir,swir,red,blue]")
    assert done.status == 0, done.err
    options = yaml.safe_load(Path("run/config.yaml").read_text())
    init_args = options["model"]["init_args"]["backbone"]["init_args"]
    assert (init_args["in_chans"], init_args["bands"]) == (4, ["nir", "swir", "red", "blue"])
    assert len(options["data"]["init_args"]["mean"]) == 4
    summary = json.loads(Path("run/summary.json").read_text())
    assert len(summary["preprocessing"]["std"]) == 4
    assert Image.open("run/pictures/val_images.png").size[0] > 100

    again = command("test", "--ckpt_path", "run", "--output", "again")
    assert again.status == 0, again.err
    assert json.loads(Path("again/summary.json").read_text())["test"] == summary["test"]

    images = str(tmp_path / "data" / "test")
    made = command("predict", "--ckpt_path", "run", "--images", images, "--output", "seen")
    assert made.status == 0, made.err
    made = command("export", "--ckpt_path", "run", "--format", "onnx", "--output", "exported")
    assert made.status == 0, made.err
    made = command("predict", "--ckpt_path", "exported", "--images", images, "--output", "onnx")
    assert made.status == 0, made.err
    mine, theirs = (probabilities(f"{name}/predictions.csv") for name in ("seen", "onnx"))
    assert mine == pytest.approx(theirs, abs=1e-4)
    assert len(mine) == 6
    card = Path("exported/README.md").read_text()
    assert "Channels, in order: `nir`, `swir`, `red`, `blue`" in card


def test_an_export_is_used_by_what_its_manifest_says_alone(bands, command, tmp_path):
    import onnxruntime

    assert command(*FIT, "--data.bands", "all").status == 0
    assert command("export", "--ckpt_path", "run", "--format", "onnx", "--output", "e").status == 0
    session = onnxruntime.InferenceSession("e/model.onnx")
    noted = json.loads(session.get_modelmeta().custom_metadata_map["zoo_lightning"])["input"]
    assert noted["size"] == [5, 16, 16]
    file = tmp_path / "data" / "test" / "ant" / "0.tif"
    pixels = tifffile.imread(file)[noted["bands"]["indices"]].astype(np.float64)
    low, high = noted["value_range"]
    values = torch.from_numpy((pixels - low) / (high - low)).float()[None]
    values = torch.nn.functional.interpolate(
        values, (16, 16), mode="bilinear", antialias=True, align_corners=False
    )
    mean, std = (torch.tensor(noted[key])[:, None, None] for key in ("mean", "std"))
    [logits] = session.run(None, {"images": ((values - mean) / std).float().numpy()})
    wanted = next(Predictor("run")([file])).probabilities
    assert torch.from_numpy(logits[0]).softmax(0).numpy() == pytest.approx(wanted, abs=1e-4)


def test_timm_opens_the_export_with_all_channels(bands, command, tmp_path):
    import timm

    assert command(*FIT, "--data.bands", "all").status == 0
    assert command("export", "--ckpt_path", "run", "--format", "timm", "--output", "e").status == 0
    model = timm.create_model(f"local-dir:{Path('e').resolve()}", pretrained=True).eval()
    assert model(torch.zeros(1, 5, 16, 16)).shape == (1, 3)
    file = tmp_path / "data" / "test" / "ant" / "0.tif"
    one, other = (next(Predictor(each)([file])).probabilities for each in ("run", "e"))
    assert one == pytest.approx(other, abs=1e-4)


def test_grey_folders_train_a_network_of_one_channel(tiny, class_root, command):
    data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
    described = {"class_path": "ImageFolders", "init_args": data}
    tiny(**{"model.class_path": "ClassificationTask", "data": described})
    done = command(*FIT, "--data.bands", "grey")
    assert done.status == 0, done.err
    options = yaml.safe_load(Path("run/config.yaml").read_text())
    assert options["model"]["init_args"]["backbone"]["init_args"]["in_chans"] == 1
    assert len(options["data"]["init_args"]["mean"]) == 1
    file = class_root / "test" / "ant" / "0.png"
    assert next(Predictor("run")([file])).probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data.bands", "red,swirl"), "has no band 'swirl'"),
        (("--data.bands", "all", "--model.backbone.in_chans", "7"), "data.bands are 5"),
        (("--data.bands", "grey"), "none is grey"),
        (("--data.bands", "all", "--data.mean", "[0.1,0.2]"), "units of `value_range`"),
        (("--model.backbone.in_chans", "1"), "--data.bands grey"),
    ],
)
def test_mistakes_are_found_before_a_run_begins(bands, command, words, said, tmp_path):
    if said == "--data.bands grey":  # usual pictures, read as such
        for file in sorted((tmp_path / "data").rglob("*.tif")):
            pixels = read_bands(file).pixels[:3].transpose(1, 2, 0) // 16
            Image.fromarray(pixels.astype(np.uint8)).save(file.with_suffix(".png"))
            file.unlink()
    command(*FIT, *words).refused(said)
    assert not list(Path("run").rglob("*.ckpt"))


@pytest.mark.parametrize("kind", ["MultiLabelImages", "ImageNumbers"])
def test_labels_and_numbers_of_grey_images_are_trained_drawn_and_predicted(
    kind, tiny, label_root, number_root, command
):
    root = label_root if kind == "MultiLabelImages" else number_root
    task = "MultiLabelTask" if kind == "MultiLabelImages" else "RegressionTask"
    options = {"root": str(root), "image_size": 16, "batch_size": 4, "num_workers": 0}
    tiny(**{"model.class_path": task, "pictures": True,
            "data": {"class_path": kind, "init_args": options}})  # fmt: skip
    done = command(*FIT, "--data.bands", "grey")
    assert done.status == 0, done.err
    assert Image.open("run/pictures/val_images.png").size[0] > 100
    predicted = command("predict", "--ckpt_path", "run", "--images", root / "images",
                        "--output", "out")  # fmt: skip
    assert predicted.status == 0, predicted.err


def test_masks_refuse_other_bands(tiny, mask_root, command):
    options = {"root": str(mask_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    tiny(**{"model.class_path": "SegmentationTask", "model.init_args.backbone.init_args.output":
            "stages", "data": {"class_path": "ImageMasks", "init_args": options}})  # fmt: skip
    command(*FIT, "--data.bands", "grey").refused("`bands` is not for ImageMasks")
