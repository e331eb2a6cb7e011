"""Every mistake in what is given: one clear line, exit status 2, and nothing trained."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import timm
import torch

SOURCES = "--model.init_args.backbone.init_args.sources"
BACKBONE = "--model.init_args.backbone.init_args"
FIT = ["fit", "--experiment", "tiny", "--run_dir", "run"]


def assert_nothing_trained() -> None:
    """No checkpoint anywhere below the present folder's runs."""
    assert not list(Path("run").rglob("*.ckpt"))
    assert not list(Path("runs").rglob("*.ckpt"))


class Hostile:
    """An object that, when a careless reader unpickles it, makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """A folder that exists only if code in a checkpoint was run."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code in a checkpoint was executed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--experiment", "landmark"], ["unknown experiment 'landmark'", "'landmarks'"]),
        ([f"{BACKBONE}.architecture=test_resnt"], ["'test_resnt'", "Did you mean 'test_resnet'?"]),
        ([f"{BACKBONE}.architecture=no.such.net"], ["'no.such.net'", "expected a timm name"]),
        ([f"{BACKBONE}.architecture=nf_resnet26"], ["cannot be aggregated"]),
        ([f"{BACKBONE}.architecture=torch.nn"], ["'torch.nn' must be a function"]),
        (["--trainer.default_root_dir", "there"], ["default_root_dir there", "give --run_dir"]),
        (["--trainer.enable_checkpointing", "false"], ["enable_checkpointing false", "leave it"]),
        (["--trainer.use_distributed_sampler=true"], ["sampler true", "leave it out"]),
        ([f"{SOURCES}=[]"], ["at least one source"]),
        ([f"{SOURCES}=[builtin:nowhere]"], ["No shipped source 'nowhere'", "Known"]),
        ([f"{SOURCES}=[bultin:faces5]"], ["Unknown kind of weights 'bultin'", "'builtin'"]),
        ([f"{SOURCES}=[nowhere.pth]"], ["nowhere.pth does not exist"]),
        ([f"{SOURCES}=[random:x]"], ["expected random:SEED"]),
        ([f'{SOURCES}=[{{"weight": "a"}}]'], ["Unknown key 'weight'", "'weights'"]),
        ([f"{BACKBONE}.mode=light"], ["'full', 'lite'", "found 'light'"]),
        ([f"{BACKBONE}.gate_init=[0.5]"], ["gate_init has 1 numbers for 2 sources"]),
        ([f"{BACKBONE}.output=map"], ["head 'coordinates'", "'map'", "output to pooled"]),
        (["--model.head=heatmaps"], ["head 'heatmaps'", "'pooled'", "output to stages"]),
        (["--model.loss=adaptive_wing"], ["'adaptive_wing' is of heat maps", "head: heatmaps"]),
        (
            ["--model.head=heatmaps", f"{BACKBONE}.output=stages", "--model.decode=argmax"],
            ["'wing'", "decode: soft_argmax", "heatmap_mse or adaptive_wing"],
        ),
        (["--model.init_args.lrr=1"], ["unknown option 'lrr'", "Did you mean 'lr'?"]),
        (["--model.lr=fast"], ["lr", "expected float", "found 'fast'"]),
        (["--model.loss=wings"], ["loss", "'wing'", "found 'wings'"]),
        (["--model.optimizer=adamv"], ["unknown optimizer 'adamv'", "Did you mean"]),
        (["--model.schedule=step"], ["needs milestones"]),
        (["--model.gate_momentum=0"], ["gate_momentum must lie in (0, 1]"]),
        (["--model.warmup=1.5"], ["warmup must lie in (0, 1)", "1.5"]),
        (["--model.lr=-1"], ["lr must be at least 0", "-1"]),
        (["--model.normalization=eyes"], ["normalization", "'interocular', 'interpupil', 'box'"]),
        (["--model.normalization=given"], ["no distance 'given'", "interocular, interpupil, box"]),
        (["--model.thresholds=[0]"], ["thresholds must be numbers above 0"]),
        (["--trainer.max_steps=-1"], ["needs the training's length", "trainer.max_steps"]),
        (["--trainer.max_stesp=3"], ["'--trainer.max_stesp'", "'--trainer.max_steps'"]),
        (["--trainer.max_steps=many"], ["trainer.max_steps", "expected int", "found 'many'"]),
        (["--ckpt_pth=x"], ["unknown option '--ckpt_pth'", "'--ckpt_path'"]),
        (["--data.image_size=0"], ["`image_size` must be at least 1, got 0"]),
        (["--data.num_workers=-1"], ["`num_workers` must be at least 0, got -1"]),
        (["--data.num_points=7"], ["68 or 5 points", "7"]),
        (["--data=DrawFaces"], ["unknown class 'DrawFaces'", "Did you mean 'DrawnFaces'?"]),
        (["--model.class_path=LandmarksTask"], ["'LandmarksTask'", "Did you mean 'LandmarkTask'?"]),
        (["--ckpt_path", "nowhere"], ["--ckpt_path nowhere", "no file", "'last' or 'best'"]),
        (["--ckpt_path", "last"], ["no file run/checkpoints/last.ckpt"]),
        (["--init_from", "nowhere"], ["--init_from nowhere", "no file"]),
    ],
    ids=lambda value: " ".join(value) if "--" in str(value[0]) else "",
)
def test_a_mistaken_option_is_named_before_anything_is_trained(tiny, command, options, words):
    tiny()
    command(*FIT, *options).refused(*words)
    assert_nothing_trained()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [", ["experiments/bad.yaml"]),
        ("trainer:\n  max_step: 3\n", ["trainer.max_step", "trainer.max_steps"]),
        ("modell:\n  init_args: {lr: 1}\n", ["modell", "Did you mean 'model'?"]),
        ("model:\n  init_args: {lrr: 1}\n", ["'lrr'", "Did you mean 'lr'?"]),
        ("just text", ["experiments/bad.yaml"]),
    ],
)
def test_a_mistake_in_an_experiments_file_is_named(tiny, command, text, words):
    tiny()
    Path("experiments", "bad.yaml").write_text(text)
    command(*FIT, "--experiment", "bad").refused(*words)
    assert_nothing_trained()


# Sources


def state_of(architecture: str) -> dict[str, torch.Tensor]:
    """Weights of a headless network."""
    return timm.create_model(architecture, num_classes=0).state_dict()


def test_a_source_of_another_architecture_is_named(tiny, command):
    tiny()
    torch.save(state_of("resnet18"), "other.pth")
    command(*FIT, f"{SOURCES}=[random:1, other.pth]").refused("'other'", "conv1")
    assert_nothing_trained()


def test_a_truncated_source_is_refused(tiny, command):
    tiny()
    torch.save(state_of("test_resnet"), "whole.pth")
    whole = Path("whole.pth").read_bytes()
    Path("half.pth").write_bytes(whole[: len(whole) // 2])
    result = command(*FIT, f"{SOURCES}=[random:1, half.pth]")
    result.refused("half.pth", "truncated or damaged", "again")
    assert_nothing_trained()


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_code_in_a_source_is_refused_and_not_run(tiny, command, marker, protocol):
    tiny()
    content = {"state_dict": {**state_of("test_resnet"), "extra": Hostile(marker)}}
    if protocol == "torch":
        torch.save(content, "evil.pth")
    else:
        Path("evil.pth").write_bytes(pickle.dumps(content))
    result = command(*FIT, f"{SOURCES}=[random:1, evil.pth]")
    result.refused("evil.pth", "is refused", "state_dict()")
    assert_nothing_trained()


# Data


@pytest.fixture
def annotated(tiny, landmark_root):
    """The experiment ``tiny`` on annotated image files of five points."""
    sizes = {"image_size": 32, "batch_size": 4, "num_workers": 0, "val_fraction": 0.2}
    data = {"class_path": "LandmarkCSV", "init_args": {"root": str(landmark_root), **sizes}}
    tiny(data=data)
    return landmark_root


def drop_column(lines: list[str]) -> list[str]:
    """Without y4."""
    return [line.rpartition(",")[0] for line in lines]


def put(column: int, value: str) -> object:
    """Put another value into the third line."""

    def change(lines: list[str]) -> list[str]:
        cells = lines[2].split(",")
        cells[column] = value
        return [*lines[:2], ",".join(cells), *lines[3:]]

    return change


@pytest.mark.parametrize("table", ["train", "test"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_column, ["line 1", "column 11", "nothing, expected 'y4'"]),
        (put(2, "abc"), ["line 3", "column y0", "found 'abc'", "expected a number"]),
        (put(2, ""), ["line 3", "column y0"]),
        (put(10, "1,2,3"), ["line 3", "found 13 values, expected 11"]),
        (put(0, "absent.png"), ["'absent.png'", "is not in"]),
        (put(0, "../up.png"), ["'../up.png'", "leads out"]),
        (lambda lines: lines[:1], ["no images"]),
        (lambda lines: [], ["line 1", "expected 'image'"]),
    ],
    ids=["column", "text", "empty", "values", "absent", "outside", "no rows", "no lines"],
)
def test_a_fault_in_a_landmark_file_is_named_before_training(
    annotated, command, table, change, words
):
    path = annotated / f"{table}.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    command(*FIT).refused(path, *words)
    assert_nothing_trained()


@pytest.mark.parametrize("table", ["train", "test"])
@pytest.mark.parametrize("how", ["truncated", "text", "empty"])
def test_a_broken_image_is_named_before_training(annotated, command, table, how):
    image = next((annotated / "images").glob(f"{table}*"))
    data = image.read_bytes()
    image.write_bytes({"truncated": data[:300], "text": b"no image", "empty": b""}[how])
    command(*FIT).refused(image, "cannot be read", "replace it")
    assert_nothing_trained()


def test_a_test_file_of_another_number_of_points_is_refused(annotated, command):
    path = annotated / "test.csv"
    path.write_text(
        "\n".join(",".join(line.split(",")[:9]) for line in path.read_text().splitlines())
    )
    command(*FIT).refused(path, "4 points", "has 5")
    assert_nothing_trained()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.root=nowhere"], ["The folder nowhere does not exist", "`root`"]),
        (["--data.images=pictures"], ["pictures does not exist", "`images`"]),
        (["--data.train_csv=trian.csv"], ["trian.csv", "Did you mean 'train.csv'?"]),
        (["--data.val_fraction=2"], ["`val_fraction` must be between 0 and 1", "2"]),
        (["--data.scheme=ibug68"], ["ibug68", "68", "5"]),
        (["--data.group_pattern=["], ["`group_pattern`", "no regular expression"]),
    ],
)
def test_a_wrong_folder_or_option_of_the_data_is_named(annotated, command, options, words):
    command(*FIT, *options).refused(*words)
    assert_nothing_trained()


HRNET = "image_name,scale,center_w,center_h,original_0_x,original_0_y,original_1_x,original_1_y\n"
COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [
    {"id": 2, "image_id": 1, "keypoints": [1, 2, 2, 3, 4, 2], "bbox": [1, 2, 0, 4]}]}  # fmt: skip
WFLW_LIST = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt"


@pytest.mark.parametrize(
    ("kind", "name", "content", "words"),
    [
        ("HRNetCSV", "train.csv", HRNET + "a.png,0,5,6,1,2,3,4\n", ["line 2", "`scale` is 0"]),
        ("HRNetCSV", "train.csv", "image,x0,y0,x1,y1\n", ["line 1", "expected 'image_name'"]),
        ("WFLW", WFLW_LIST, "1 2 3 a.png\n", ["line 1", "found 4 columns, expected 207"]),
        ("COFW", "COFW_train_color.mat", "no MATLAB", ["version 5 or 7.3"]),
        ("COCOKeypoints", "train.json", json.dumps(COCO), ["annotation 2 of image 1", "`bbox`"]),
        ("W300", "afw/a.pts", "version: 1\nn_points: x\n", ["expected `n_points: K`"]),
    ],
    ids=["scale", "header", "column", "version", "box", "pts"],
)
def test_a_fault_in_a_published_format_is_named_before_training(
    tiny, tmp_path, command, kind, name, content, words
):
    tiny(data={"class_path": kind, "init_args": {"root": str(tmp_path / "faces")}})
    path = tmp_path / "faces" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    if kind == "W300":
        path.with_suffix(".png").touch()
    command(*FIT).refused(path, *words)
    assert_nothing_trained()


def test_points_outside_their_image_are_allowed_and_counted(annotated, command, caplog):
    path = annotated / "train.csv"
    lines = put(1, "-3")(path.read_text().splitlines())
    path.write_text("\n".join(put(4, "55")(lines)) + "\n")
    done = command(*FIT, "--trainer.max_steps=1", "--trainer.val_check_interval=1")
    assert done.status == 0, done.err
    # Two points, x0 and y1, of one image, which is either trained on or validated on.
    counted = [line for line in caplog.messages if "outside their image" in line]
    assert len(counted) == 1
    assert counted[0].startswith("2 of ")
    assert "in 1 of " in counted[0]


def test_a_head_for_other_points_than_the_data_have_is_refused(tiny, command, annotated):
    tiny()
    steps = ["--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    assert command("fit", "--experiment", "tiny", "--run_dir", "faces68", *steps).status == 0
    data = ["--data=LandmarkCSV", f"--data.root={annotated}", "--data.num_workers=0"]
    found = command("test", "--experiment", "tiny", *data, "--ckpt_path", "faces68")
    found.refused("num_points is 68 in the checkpoint, 5 here")


# Checkpoints


@pytest.mark.parametrize("option", ["--ckpt_path", "--init_from"])
@pytest.mark.parametrize("kind", ["truncated", "code", "foreign", "text", "empty"])
def test_a_checkpoint_that_cannot_be_trusted_is_refused(finished, command, marker, option, kind):
    best, bad = finished / "checkpoints/best.ckpt", Path("bad.ckpt")
    content = torch.load(best, weights_only=True)
    if kind == "truncated":
        bad.write_bytes(best.read_bytes()[:20000])
    elif kind == "code":
        torch.save({**content, "extra": Hostile(marker)}, bad)
    elif kind == "foreign":
        torch.save({"state_dict": content["state_dict"]}, bad)
    else:
        bad.write_bytes(b"no checkpoint" if kind == "text" else b"")
    words = {
        "truncated": ["truncated or damaged"],
        "code": ["is refused", "posix.mkdir"],
        "foreign": ["not written by zoo_lightning", "as a source"],
        "text": ["is not a checkpoint"],
        "empty": ["is empty"],
    }[kind]
    command(*FIT, option, bad).refused("bad.ckpt", *words)
    assert_nothing_trained()
    if option == "--ckpt_path":
        found = command("test", "--experiment", "tiny", "--ckpt_path", bad)
        found.refused("bad.ckpt", *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([f"{BACKBONE}.mode=full"], ["backbone.mode is 'lite' in the checkpoint, 'full' here"]),
        ([f"{BACKBONE}.align=none"], ["backbone.align is 'spatial'"]),
        ([f"{SOURCES}=[random:1]"], ["backbone.sources are 2 in the checkpoint, 1 here"]),
        (
            ["--model.init_args.backbone=PlainBackbone", f"{BACKBONE}.architecture=test_resnet"],
            ["backbone is ZooBackbone in the checkpoint, PlainBackbone here"],
        ),
    ],
)
@pytest.mark.parametrize(
    "subcommand",
    ["test", *(pytest.param(n, marks=pytest.mark.slow) for n in ("validate", "predict"))],
)
def test_a_checkpoint_of_another_network_is_refused(finished, command, subcommand, options, words):
    found = command(subcommand, "--experiment", "tiny", "--ckpt_path", finished, *options)
    found.refused(*words, "--config RUN_DIR/config.yaml")


@pytest.mark.parametrize("subcommand", ["test", "validate", "predict"])
def test_data_of_other_points_than_the_checkpoints_are_called_so(finished, command, subcommand):
    found = command(subcommand, "--ckpt_path", finished, "--data.num_points=5")
    words = ("num_points is 68 in the checkpoint, 5 here", "come from the data", "--sources")
    found.refused("the data are not those", *words)


def test_a_run_folder_without_checkpoints_is_named(finished, command):
    shutil.rmtree(finished / "checkpoints")
    found = command("test", "--experiment", "tiny", "--ckpt_path", finished)
    found.refused("no file done/checkpoints/best.ckpt")


@pytest.mark.parametrize(
    ("option", "name", "missing"),
    [
        ("trainer.logger", "TensorBoardLogger", ["save_dir"]),
        ("trainer.callbacks", "EarlyStopping", ["monitor"]),
        ("trainer.callbacks", "LearningRateFinderr", []),
        ("trainer.plugins", "lightning.pytorch.plugins.MixedPrecision", ["precision", "device"]),
        ("data", "ListFiles", ["root"]),
        ("model", "ClassificationTask", ["backbone"]),
    ],
)
def test_a_class_that_needs_more_options_names_them(tiny, command, option, name, missing):
    tiny()
    words = [] if option in ("data", "model") else ["--experiment", "tiny"]
    wanted = [f"--{option}.{each}" for each in missing]
    line = command("fit", *words, f"--{option}", name).refused(option, *wanted)
    assert name.rpartition(".")[2] in line
