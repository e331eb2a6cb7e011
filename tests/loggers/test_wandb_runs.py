"""What Weights & Biases gets of a run, read back from the records of offline runs."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

KEY = "0123456789" * 4
SOURCES = "model.init_args.backbone.init_args.sources"


@pytest.fixture(scope="module")
def fit(program, tiny_in, wandb_records, tmp_path_factory):
    """Train ``tiny`` with Weights & Biases in a process of its own, and read what it logged."""

    def run(name, *words, **environment):
        folder = tmp_path_factory.mktemp(name)
        tiny_in(folder, **{SOURCES: ["builtin:rotation", "random:2"]})
        done = subprocess.run(
            [*program.words, "fit", "--experiment", "tiny", "--run_dir", "run", *words],
            env={**program.environment, "HOME": str(folder / "home"), **environment},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr
        records = wandb_records.read_records(folder / "run")
        return SimpleNamespace(folder=folder / "run", out=done.stdout + done.stderr, got=records)

    return run


@pytest.fixture(scope="module")
def offline(fit):
    """A run with all options."""
    options = {
        "wandb": "true",
        "pictures": "true",
        "wandb_project": "faces",
        "wandb_group": "tried",
        "wandb_tags": "small, quick",
        "wandb_notes": "a first try",
        "wandb_sources": "true",
        "gradient_norms": "true",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return fit("offline", *words, WANDB_MODE="offline")


def test_project_group_tags_and_notes_are_those_given(offline):
    (run,) = [r.run for r in offline.got if r.WhichOneof("record_type") == "run"]
    assert (run.project, run.run_group, run.notes) == ("faces", "tried", "a first try")
    assert list(run.tags) == ["small", "quick"]


def test_the_whole_configuration_is_logged(offline, wandb_records):
    config = wandb_records.config(offline.got)
    assert config["trainer"]["max_steps"] == 8
    assert config["data"]["class_path"].endswith("DrawnFaces")
    assert config["model"]["init_args"]["backbone"]["init_args"]["mode"] == "lite"
    assert config["seed_everything"] == 0


def test_metrics_gates_by_layer_and_gradients_are_curves(offline, wandb_records):
    history = wandb_records.history(offline.got)
    names = set().union(*history)
    parts = {f"gradients/{part}" for part in ("total", "backbone", "alignment", "gates", "head")}
    layers = {f"gates/layer1.0.conv1/{source}" for source in ("rotation", "random-2")}
    assert {"train/loss", "val/nme", "test/nme", "gates/rotation"} | parts | layers <= names
    steps = [r["trainer/global_step"] for r in history if "gates/layer1.0.conv1/rotation" in r]
    assert steps == [4, 8]


def test_pictures_are_those_of_the_run_folder(offline):
    media = offline.folder.glob("wandb/offline-run-*/files/media/images/pictures/*.png")
    logged = {path.read_bytes() for path in media}
    written = {path.name: path.read_bytes() for path in (offline.folder / "pictures").iterdir()}
    assert set(written) > {"val_faces.png", "test_faces.png", "gates.png", "gates_over_time.png"}
    assert [name for name, content in written.items() if content not in logged] == []


def test_the_test_is_a_table_and_figures_beside_the_curves(offline, wandb_records):
    test = json.loads((offline.folder / "summary.json").read_text())["test"]
    found = wandb_records.summary(offline.got)
    assert {name: found[name] for name in test} == pytest.approx(test)
    assert found["method"] == "lite"
    assert found["best/val/nme"] > 0
    assert found["parameters/folded"] < found["parameters/training"]
    (file,) = offline.folder.glob("wandb/offline-run-*/files/media/table/tables/test_2*.json")
    assert dict(json.loads(file.read_text())["data"]) == pytest.approx(test)


def test_errors_of_images_and_points_are_tables_of_numbers(offline):
    files = {
        path.name.rsplit("_", 2)[0]: json.loads(path.read_text())
        for path in offline.folder.glob("wandb/offline-run-*/files/media/table/tables/*.json")
    }
    assert files["test_errors"]["columns"] == ["image", "nme"]
    assert len(files["test_errors"]["data"]) == 6
    assert isinstance(files["test_errors"]["data"][0][1], float)
    assert len(files["point_errors"]["data"]) == 68


def test_the_best_checkpoint_has_sources_as_its_lineage(offline, wandb_records):
    artifacts = wandb_records.artifacts(offline.got)
    (model,) = [each for each in artifacts.values() if each.type == "model"]
    assert (model.use_after_commit, "best" in model.aliases) == (False, True)
    (page,) = [each for each in artifacts.values() if each.type == "report"]
    assert [Path(each.local_path).name for each in page.manifest.contents] == ["report.html"]
    (entry,) = model.manifest.contents
    assert Path(entry.local_path) == (offline.folder / "checkpoints" / "best.ckpt").resolve()
    summary = json.loads((offline.folder / "summary.json").read_text())
    assert json.loads(model.metadata)["test"] == pytest.approx(summary["test"])
    used = {name: each for name, each in artifacts.items() if each.use_after_commit}
    assert set(used) == {"source-rotation", "source-random-2"}
    assert {each.type for each in used.values()} == {"source"}
    for each in used.values():  # the weights themselves, as was asked for
        (entry,) = each.manifest.contents
        assert Path(entry.local_path).is_absolute()
        assert Path(entry.local_path).stat().st_size == entry.size > 1e6


def test_an_offline_run_stays_inside_the_run_folder(offline):
    assert not (offline.folder.parent / "wandb").exists()
    assert not (offline.folder.parent / "config.yaml").exists()
    assert (offline.folder / "config.yaml").is_file()


def test_without_a_server_a_users_own_logger_goes_on_offline(fit, wandb_records):
    words = ("WandbLogger", "--trainer.logger.project", "mine", "--trainer.logger.save_dir", "run")
    run = fit(
        "unreachable",
        *("--trainer.logger", *words, "--trainer.max_steps", "1"),
        "--trainer.val_check_interval=1",
        "--pictures=true",
        WANDB_MODE="online",
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY=KEY,
        WANDB_INIT_TIMEOUT="3",
    )
    assert run.out.count("Weights & Biases cannot be reached") == 1
    assert "wandb sync run/wandb/offline-run-" in run.out
    assert (run.folder / "summary.json").is_file()
    names = set().union(*wandb_records.history(run.got))
    assert {"test/nme", "pictures/gates._type", "tables/test.path"} <= names
    artifacts = wandb_records.artifacts(run.got)
    (entry,) = artifacts["source-rotation"].manifest.contents
    assert entry.ref.startswith("file:///")
    assert entry.ref.endswith("rotation.safetensors")
    assert not entry.local_path  # nothing is uploaded
    assert [each for each in artifacts.values() if each.type == "model"]


def test_an_option_of_weights_and_biases_asks_for_it(tiny, command):
    words = ("fit", "--experiment", "tiny", "--trainer.max_steps=1", "--run_test", "false")
    for wanted, given in ((True, ()), (False, ("--wandb", "false"))):
        folder = f"run-{wanted}"
        done = command(*words, "--run_dir", folder, "--wandb_project", "mine", *given)
        assert done.status == 0, done.err
        assert yaml.safe_load(Path(folder, "config.yaml").read_text())["wandb"] is wanted


def test_a_disabled_run_logs_nothing_and_is_no_trouble(tiny, command):
    words = ("--trainer.max_steps=1", "--trainer.val_check_interval=1", "--wandb", "true",
             "--pictures=true")  # fmt: skip
    done = command("fit", "--experiment", "tiny", "--run_dir", "run", *words)
    assert done.status == 0, done.err
    assert "not logged" not in done.out + done.err
    assert list(Path("run").glob("wandb/*run-*")) == []
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    (kept,) = [v for k, v in content["callbacks"].items() if "GatePictures" in k]
    assert kept["steps"] == [1]
    assert kept["gates"].shape[2:] == (2,)
