"""The command line: what each subcommand does, leaves behind, and takes as options."""

import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from zoo_lightning import load_task

FIT = ["fit", "--experiment", "tiny"]
BACKBONE = "model.init_args.backbone.init_args"
ONE_STEP = ["--trainer.max_steps=1", "--trainer.val_check_interval=1"]


def read_config(folder: str) -> dict:
    """The resolved configuration that a run has left."""
    return yaml.safe_load(Path(folder, "config.yaml").read_text())


def summary_of(folder: str | Path) -> dict:
    """What a run says of itself."""
    return json.loads(Path(folder, "summary.json").read_text())


# Training and what it leaves


def test_fit_leaves_all_that_a_run_folder_holds(finished, tiny):
    folder = finished
    summary = summary_of(folder)
    assert list(summary) == [
        "experiment",
        "method",
        "seed",
        "steps",
        "seconds",
        "checkpoint",
        "parameters",
        "preprocessing",
        "peak_memory_mb",
        "compute",
        "validation",
        "test_images",
        "test",
    ]
    assert summary["peak_memory_mb"] > 100
    assert summary["validation"].keys() == {"val/nme"}
    assert summary["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert (summary["experiment"], summary["method"]) == ("tiny", "lite")
    assert (summary["seed"], summary["steps"]) == (0, 8)
    assert summary["seconds"] > 0
    assert summary["checkpoint"] == "checkpoints/best.ckpt"
    assert summary["parameters"]["training"] > 2 * summary["parameters"]["folded"] > 0
    assert set(summary["test"]) == {
        "test/nme",
        "test/failure_rate",
        "test/auc",
        "test/nme_box",
        "test/nme_diagonal",
        "test/nme_height",
        "test/nme_interpupil",
    }
    assert read_config(finished)["model"]["class_path"].endswith("LandmarkTask")
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(bool(row["train/loss"]) for row in rows) == 8
    assert sum(bool(row["val/nme"]) for row in rows) == 2
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    for name in ("val_faces", "test_faces", "error_curve"):
        with Image.open(folder / "pictures" / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert np.asarray(picture.convert("L")).std() > 1
    with (folder / "test_errors.csv").open(newline="") as stream:
        errors = [float(row["nme"]) for row in csv.DictReader(stream)]
    assert len(errors) == 6
    assert np.mean(errors) == pytest.approx(summary["test"]["test/nme"], abs=1e-3)


def test_a_checkpoint_holds_no_code_and_the_last_one_is_the_last(finished):
    for name, steps in (("best", (4, 8)), ("last", (8,))):
        content = torch.load(Path(finished, "checkpoints", f"{name}.ckpt"), weights_only=True)
        assert content["global_step"] in steps
        assert content["hyper_parameters"]["backbone"]["init_args"]["architecture"] == "test_resnet"


def test_a_runs_folder_is_by_default_named_after_experiment_and_time(tiny, command):
    tiny()
    for _ in range(2):  # in the same second, perhaps
        assert command(*FIT, *ONE_STEP).status == 0
    runs = sorted(Path("runs", "tiny").iterdir())
    assert len(runs) == 2
    assert all(run.name[:15].replace("-", "").isdigit() for run in runs)


def test_a_run_starts_from_its_own_resolved_configuration(finished, command):
    again = command("fit", "--config", "done/config.yaml", "--run_dir", "again")
    assert again.status == 0, again.err
    assert summary_of("again")["test"] == summary_of(finished)["test"]


def test_later_experiments_override_earlier_ones_and_options_override_both(tiny, command):
    tiny()
    Path("experiments", "other.yaml").write_text(
        "trainer: {max_steps: 3}\nmodel: {init_args: {lr: 0.5, loss: l1}}\n"
    )
    options = ["--experiment", "other", "--model.init_args.lr=0.25", "--run_dir", "run"]
    done = command(*FIT, *options)
    assert done.status == 0, done.err
    assert summary_of("run")["experiment"] == "tiny+other"
    config = read_config("run")
    assert config["trainer"]["max_steps"] == 3
    assert config["model"]["init_args"]["loss"] == "l1"
    assert config["model"]["init_args"]["lr"] == 0.25
    assert config["data"]["init_args"]["image_size"] == 32


def test_options_in_the_form_of_sweep_agents_take_effect(tiny, command):
    tiny()
    options = [
        "--model.init_args.lr=0.001",
        f"--{BACKBONE}.mode=full",
        "--config",
        '{"model.init_args.lr": 0.003}',
        "--run_dir=run",
    ]
    done = command("fit", "--experiment=tiny", *options, *ONE_STEP)
    assert done.status == 0, done.err
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["lr"] == 0.003
    assert content["hyper_parameters"]["backbone"]["init_args"]["mode"] == "full"
    assert summary_of("run")["method"] == "zoo"


def test_the_present_folders_own_experiments_win(tiny, command):
    path = tiny()
    path.rename(path.with_name("landmarks.yaml"))
    found = command("fit", "--experiment", "landmarks", "--print_config")
    assert found.status == 0
    config = yaml.safe_load(found.out)
    assert config["data"]["init_args"]["train_size"] == 24
    assert config["trainer"]["max_steps"] == 8


def test_the_configuration_is_printed_without_training(tiny, command):
    tiny()
    found = command(*FIT, "--model.init_args.lr=0.5", "--print_config")
    assert found.status == 0
    assert yaml.safe_load(found.out)["model"]["init_args"]["lr"] == 0.5
    assert not Path("runs").exists()


def test_a_fast_development_run_leaves_nothing(tiny, command):
    tiny()
    assert command(*FIT, "--trainer.fast_dev_run=1").status == 0
    assert not Path("runs").exists()


def test_training_without_validation_tests_the_last_checkpoint(tiny, command):
    tiny()
    done = command(*FIT, "--trainer.limit_val_batches=0", "--run_dir", "run", *ONE_STEP)
    assert done.status == 0, done.err
    assert summary_of("run")["checkpoint"] == "checkpoints/last.ckpt"


@pytest.mark.slow
def test_an_offline_wandb_run_stays_inside_the_run_folder(tiny, program, tmp_path):
    tiny()
    done = subprocess.run(
        [*program.words, *FIT, "--run_dir", "run", "--wandb", "true", *ONE_STEP],
        env={**program.environment, "WANDB_MODE": "offline", "HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert list(Path("run", "wandb").glob("offline-run-*/*.wandb"))
    assert not Path("wandb").exists()
    assert Path("run", "config.yaml").is_file()
    assert not Path("config.yaml").exists()


# test, validate, predict


@pytest.mark.parametrize("given", ["done", "done/checkpoints/best.ckpt"])
def test_testing_repeats_the_very_figure_of_fit(finished, command, given):
    found = command("test", "--experiment", "tiny", "--ckpt_path", given, "--output", "tested")
    assert found.status == 0, found.err
    again, first = summary_of("tested"), summary_of(finished)
    assert again["test"] == first["test"]
    assert (again["method"], again["parameters"]) == (first["method"], first["parameters"])
    checkpoint = Path("tested", again["checkpoint"]).resolve()
    assert checkpoint == Path("done/checkpoints/best.ckpt").resolve()
    assert summary_of(finished) == first  # untouched


def test_testing_does_not_read_the_sources(tiny, command, tmp_path):
    source = tmp_path / "source.pth"
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), source)
    tiny(**{f"{BACKBONE}.sources": [str(source), "random:2"]})
    assert command(*FIT, "--run_dir", "run", *ONE_STEP).status == 0
    source.unlink()
    found = command("test", "--experiment", "tiny", "--ckpt_path", "run", "--output", "tested")
    assert found.status == 0, found.err
    assert summary_of("tested")["test"] == summary_of("run")["test"]


def test_validation_of_the_best_checkpoint_repeats_its_figure(finished, command):
    found = command("validate", "--experiment", "tiny", "--ckpt_path", finished)
    assert found.status == 0, found.err
    assert "val/nme" in found.out
    content = torch.load("done/checkpoints/best.ckpt", weights_only=True)
    best = next(v["best_model_score"] for k, v in content["callbacks"].items() if "val/nme" in k)
    assert f"{best.item():.4f}"[:6] in found.out


@pytest.fixture
def five_points(tiny, landmark_root):
    """The experiment ``tiny`` on annotated image files of unequal sizes."""
    files = sorted((landmark_root / "images").glob("test*"))
    for number, file in enumerate(files):
        with Image.open(file) as image:
            image.resize((40 + 20 * number, 40)).save(file)
    data = {"class_path": "LandmarkCSV", "init_args": {"root": str(landmark_root)}}
    sizes = {"image_size": 32, "batch_size": 4, "num_workers": 0, "val_fraction": 0.2}
    data["init_args"] |= sizes
    tiny(data=data, **{"model.init_args.lr": 0.0})  # stays at the mean shape
    return landmark_root


def test_predictions_are_in_pixels_of_the_original_images(five_points, command):
    assert command(*FIT, "--run_dir", "run", *ONE_STEP).status == 0
    found = command(
        "predict", "--experiment", "tiny", "--ckpt_path", "run", "--output", "predicted"
    )
    assert found.status == 0, found.err
    with Path("predicted", "predictions.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["image", *(f"{axis}{k}" for k in range(5) for axis in "xy")]
    assert [row[0] for row in rows[1:]] == [
        "testa_00.png",
        "testa_01.png",
        "testb_00.png",
        "testb_01.png",
    ]
    points = np.array([row[1:] for row in rows[1:]], float).reshape(4, 5, 2)
    # The mean of points drawn evenly over a square of 40 pixels is near its middle; a wider image
    # is padded above and below, so in its own pixels y stays near the middle and x moves out.
    middles = points.mean(axis=1)
    for number, (x, y) in enumerate(middles):
        side = 40 + 20 * number
        assert x == pytest.approx(side / 2, abs=0.15 * side)
        assert y == pytest.approx(20, abs=0.15 * side)


def test_testing_needs_the_test_file_alone(five_points, command):
    assert command(*FIT, "--run_dir", "run", *ONE_STEP).status == 0
    (five_points / "train.csv").unlink()
    for image in (five_points / "images").glob("train*"):
        image.unlink()
    words = ["--experiment", "tiny", "--ckpt_path", "run", "--output", "tested"]
    found = command("test", *words)
    assert found.status == 0, found.err
    assert summary_of("tested")["test"] == summary_of("run")["test"]


HEAT_MAPS = {
    "model.init_args.head": "heatmaps",
    "model.init_args.flip_test": True,
    f"{BACKBONE}.output": "stages",
}


def test_heat_maps_train_test_and_leave_their_pictures(tiny, command):
    tiny(**HEAT_MAPS, pictures=True)
    done = command(*FIT, "--run_dir", "run")
    assert done.status == 0, done.err
    for name in ("val_heatmaps", "heatmaps", "test_faces", "point_errors"):
        with Image.open(f"run/pictures/{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 1
    found = command("test", "--experiment", "tiny", "--ckpt_path", "run", "--output", "tested")
    assert found.status == 0, found.err
    assert summary_of("tested")["test"] == summary_of("run")["test"]


def test_a_run_on_five_points_is_a_source_for_sixty_eight_and_back(tiny, command):
    tiny(**HEAT_MAPS)
    assert command(*FIT, "--run_dir", "68", *ONE_STEP).status == 0
    five = {"data.init_args.num_points": 5, "model.init_args.lr": 0.0}
    tiny(**five, **{f"{BACKBONE}.sources": ["68", "random:1"]})
    done = command(*FIT, "--run_dir", "5", *ONE_STEP)
    assert done.status == 0, done.err
    source = load_task("68").backbone.folded_state()
    for name, layer in load_task("5").backbone.aggregated_layers().items():
        assert torch.equal(layer.weight[0], source[f"{name}.weight"])
    tiny(**HEAT_MAPS, **{f"{BACKBONE}.sources": ["5", "random:1"]})
    done = command(*FIT, "--run_dir", "again", *ONE_STEP)
    assert done.status == 0, done.err


def test_a_run_can_leave_the_test_data_alone(tiny, command, landmark_root):
    tiny(**{"data": {"class_path": "LandmarkCSV", "init_args": {
        "root": str(landmark_root), "image_size": 32, "batch_size": 4, "num_workers": 0}},
        "trainer.max_steps": 2, "trainer.val_check_interval": 2})  # fmt: skip
    (landmark_root / "test.csv").write_text("not,a,table\n")
    fit = ("fit", "--experiment", "tiny", "--run_dir", "out")
    refused = command(*fit)
    assert refused.status == 2
    assert "test.csv" in refused.err
    done = command(*fit, "--run_test", "false")
    assert done.status == 0, done.err
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["test"] == {}
    assert "val/nme" in summary["validation"]


def test_a_training_that_diverges_stops_in_one_line_and_keeps_what_it_had(tiny, command):
    tiny(**{"model.init_args.lr": 1e30, "model.init_args.schedule": "constant",
            "trainer.val_check_interval": 1})  # fmt: skip
    done = command(*FIT, "--run_dir", "out")
    assert done.status == 2
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "step " in line
    assert "--on_nonfinite skip" in line
    assert "Traceback" not in done.err
    state = torch.load("out/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


def test_a_run_is_tested_and_validated_without_naming_its_experiment(finished, command):
    before = Path("done/summary.json").read_text()
    for given in (("--ckpt_path", "done"), ("--ckpt_path=done/checkpoints/best.ckpt",)):
        done = command("test", *given)
        assert done.status == 0, done.err
    assert command("validate", "--ckpt_path", "done").status == 0
    [first, *_] = sorted(Path("runs/tiny").iterdir())
    tested = json.loads((first / "summary.json").read_text())
    assert tested["experiment"] == "tiny"
    assert tested["test"] == json.loads(before)["test"]


@pytest.mark.parametrize("words", [("test", "--ckpt_path", "done"), ("test", "--ckpt_path", "last"),
                                   ("validate", "--ckpt_path", "done")])  # fmt: skip
def test_a_trainings_record_is_no_place_for_results(finished, command, words):
    before = {path: path.read_bytes() for path in Path("done").iterdir() if path.is_file()}
    for option in ("--output", "--run_dir"):
        command(*words, option, "done").refused("--output done", "folder of a training")
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    "words",
    [
        ("--ckpt_path", "done"),
        ("--ckpt_path=done/checkpoints/last.ckpt",),
        ("--run_dir", "done", "--ckpt_path", "last"),
    ],
)
def test_a_run_is_resumed_without_naming_its_experiment(finished, command, words):
    before = torch.load("done/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    Path("done/summary.json").unlink()  # as when it was stopped
    Path("done/checkpoints/best.ckpt").write_bytes(b"the last one is meant")
    resumed = command("fit", *words, "--run_test", "false")
    assert resumed.status == 0, resumed.err
    after = torch.load("done/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(before[key], after[key]) for key in before)  # it had no step left
    assert summary_of("done")["experiment"] == "tiny"
    assert list(Path("runs").glob("*/*")) == []
    assert "not empty" not in resumed.err
    command("fit", *words, "--model.lr", "0.5").refused("lr", "fit --ckpt_path RUN_DIR alone")


def test_without_a_run_the_experiment_is_asked_for(tiny, command):
    command("test").refused("model", "--experiment NAME")
    command("test", "--ckpt_path", "nothing.ckpt").refused("nothing.ckpt", "--ckpt_path")
    command("fit", "--data.root", "x", "--model.lr", "1").refused(
        "--data.root", "--experiment NAME"
    )
    command("fit", "--model.lr=1").refused("--model.lr", "--experiment NAME")


@pytest.mark.parametrize(
    ("option", "meant"),
    [("--trainer.max_step", "--trainer.max_steps"),
     ("--batch_size", "--data.batch_size"), ("--model.learning_rate", "--model.lr"),
     ("--data.lr", "--model.lr"), ("--max_epochs", "--trainer.max_epochs"),
     ("--data.gate_init", "--model.backbone.gate_init")],
)  # fmt: skip
def test_an_option_of_another_part_is_suggested_there(tiny, command, option, meant):
    command("fit", "--experiment", "tiny", option, "1").refused("Did you mean", meant)
