"""Options that only zoos have make a zoo of an experiment that trains one network."""

from pathlib import Path

import pytest
import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.finding import known_experiments
from zoo_lightning.experiments.words import ZOO_ONLY, implied_zoo, run_without_experiment

FOLDERS = ("fit", "--experiment", "classification-folders")


@pytest.mark.parametrize("option", sorted(ZOO_ONLY - {"mode"}))
@pytest.mark.parametrize("spelling", ["model.init_args.backbone.init_args", "model.backbone"])
def test_an_option_of_zoos_trains_a_lite_zoo(option, spelling):
    words, line = implied_zoo([*FOLDERS, f"--{spelling}.{option}", "x"])
    assert words == [*FOLDERS, "--experiment", "methods/lite", f"--{spelling}.{option}", "x"]
    assert line.startswith(f"{option}: only zoos have it")


@pytest.mark.parametrize("mode", ["lite", "full"])
def test_the_mode_says_which_zoo(mode):
    words, line = implied_zoo([*FOLDERS, f"--model.backbone.mode={mode}"])
    assert words[3:5] == ["--experiment", f"methods/{mode}"]
    assert f"{mode} zoo" in line


def test_a_users_file_over_the_experiment_says_it_too(tmp_path):
    file = tmp_path / "mine.yaml"
    backbone = {"init_args": {"gate_init": "uniform"}}
    file.write_text(yaml.safe_dump({"model": {"init_args": {"backbone": backbone}}}))
    words, line = implied_zoo([*FOLDERS, "--config", str(file)])
    assert words == [*FOLDERS, "--experiment", "methods/lite", "--config", str(file)]
    assert line.startswith("gate_init")


@pytest.mark.parametrize(
    "words",
    [
        FOLDERS,
        (*FOLDERS, "--model.backbone.sources", "[a]"),  # of one network, too
        (*FOLDERS, "--experiment", "methods/start", "--model.backbone.mode", "full"),
        (*FOLDERS, "--experiment", "methods/full", "--model.backbone.align", "auto"),
        (*FOLDERS, "--model.backbone", "ZooBackbone", "--model.backbone.mode", "full"),
        ("fit", "--experiment", "landmarks", "--model.backbone.mode", "full"),
        ("test", "--ckpt_path", "run"),
    ],
)
def test_nothing_is_implied_where_a_zoo_or_a_method_is_named(words):
    assert implied_zoo(words) == (list(words), None)


def test_every_shipped_experiment_can_be_asked():
    for name in known_experiments():
        implied_zoo(["fit", "--experiment", name])


def test_such_a_command_line_trains_the_zoo(tiny, command):
    content = yaml.safe_load(Path(tiny()).read_text())
    backbone = content["model"]["init_args"]["backbone"]
    backbone["class_path"] = "PlainBackbone"
    for name in ZOO_ONLY:
        backbone["init_args"].pop(name, None)
    Path("one.yaml").write_text(yaml.safe_dump(content))
    done = command(
        "fit", "--experiment", "one.yaml", "--run_dir", "run", "--run_test", "false",
        "--model.backbone.gate_init", "sum_to_one", "--model.backbone.norm_weights", "uniform",
    )  # fmt: skip
    assert done.status == 0, done.err
    kept = yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]["backbone"]
    assert kept["class_path"].endswith("ZooBackbone")
    assert kept["init_args"]["gate_init"] == "sum_to_one"


@pytest.mark.parametrize("subcommand", ["fit", "test", "validate"])
def test_a_checkpoint_that_is_missing_is_named_where_no_experiment_is(subcommand):
    with pytest.raises(ConfigError, match="--ckpt_path nowhere"):
        run_without_experiment([subcommand, "--ckpt_path", "nowhere"])
