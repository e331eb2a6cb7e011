"""``gate_init: greedy`` and the like in an experiment: found once, saved as numbers."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from zoo_lightning import load_task

BACKBONE = "model.init_args.backbone.init_args"
FIT = ["fit", "--experiment", "tiny"]


@pytest.fixture
def greedy(tiny):
    """Write the experiment ``tiny`` with a start from the data; called with changes, anew."""

    def write(**changes):
        start = {f"{BACKBONE}.gate_init": "greedy", f"{BACKBONE}.norm_weights": "gates"}
        steps = {"trainer.max_steps": 2, "trainer.val_check_interval": 1}
        return tiny(**start, **steps, **changes)

    write()
    return write


def saved_start(folder):
    config = yaml.safe_load(Path(folder, "config.yaml").read_text())
    return config["model"]["init_args"]["backbone"]["init_args"]["gate_init"]


def weights(folder):
    return torch.load(Path(folder, "checkpoints", "last.ckpt"), weights_only=True)["state_dict"]


def test_a_word_becomes_numbers_in_all_that_a_run_leaves(greedy, command, caplog):
    assert command(*FIT, "--run_dir", "run").status == 0
    numbers = saved_start("run")
    assert len(numbers) == 2
    assert caplog.text.count("gate_init     greedy: held-out share") == 1
    saved = load_task("run").hparams["backbone"]["init_args"]
    assert (saved["gate_init"], saved["norm_weights"]) == (numbers, "gates")
    # The same run as one that is given the numbers, to the bit.
    told = command(*FIT, "--run_dir", "told", f"--{BACKBONE}.gate_init", numbers)
    assert told.status == 0, told.err
    assert caplog.text.count("gate_init     greedy") == 1
    summaries = [json.loads(Path(run, "summary.json").read_text()) for run in ("run", "told")]
    assert summaries[0]["start_seconds"] > 0
    assert "start_seconds" not in summaries[1]
    left, right = weights("run"), weights("told")
    assert all(torch.equal(left[key], right[key]) for key in right)


def test_one_network_starts_from_the_weights_that_the_data_suggest(tiny, command, monkeypatch):
    backbone = {"architecture": "test_resnet", "sources": ["random:1", "random:2"]}
    described = {"class_path": "PlainBackbone", "init_args": {**backbone, "weights": "greedy"}}
    tiny(**{"model.init_args.backbone": described, "trainer.max_steps": 2})
    assert command(*FIT, "--run_dir", "run").status == 0
    config = yaml.safe_load(Path("run", "config.yaml").read_text())
    weights = config["model"]["init_args"]["backbone"]["init_args"]["weights"]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    summary = json.loads(Path("run", "summary.json").read_text())
    assert summary["method"] == "start"
    assert summary["compute"]["parts"]["start"] > 0
    assert load_task("run").backbone.weights == weights
    # One source or none leaves nothing to average, and no data are looked at.
    monkeypatch.setattr("zoo_lightning.experiments.parts.find_start", None)
    for sources, method in (([], "scratch"), (["random:1"], "single:random-1")):
        described["init_args"]["sources"] = sources
        tiny(**{"model.init_args.backbone": described, "trainer.max_steps": 2})
        done = command(*FIT, "--run_dir", method)
        assert done.status == 0, done.err
        assert json.loads(Path(method, "summary.json").read_text())["method"] == method


def test_going_on_and_testing_with_the_experiments_word_find_nothing_anew(
    greedy, command, caplog, monkeypatch
):
    greedy(**{"model.init_args.schedule": "constant"})
    assert command(*FIT, "--run_dir", "run").status == 0
    numbers = saved_start("run")
    seconds = json.loads(Path("run", "summary.json").read_text())["start_seconds"]
    monkeypatch.setattr("zoo_lightning.experiments.parts.find_start", None)
    more = command(*FIT, "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_steps=3")
    assert more.status == 0, more.err
    assert saved_start("run") == numbers
    assert json.loads(Path("run", "summary.json").read_text())["start_seconds"] == seconds > 0
    for subcommand in ("test", "validate", "predict"):
        done = command(
            subcommand, "--experiment", "tiny", "--ckpt_path", "run", "--output", subcommand
        )
        assert done.status == 0, done.err
    anew = command(*FIT, "--init_from", "run", "--run_dir", "anew")
    assert anew.status == 0, anew.err
    assert saved_start("anew") == numbers


def test_a_run_that_began_otherwise_is_tested_but_does_not_go_on_with_the_word(greedy, command):
    other = [f"--{BACKBONE}.gate_init=released", f"--{BACKBONE}.norm_weights=uniform"]
    assert command(*FIT, *other, "--run_dir", "run").status == 0
    refused = command(*FIT, "--run_dir", "run", "--ckpt_path", "last").refused()
    assert "backbone.gate_init is 'released' in the checkpoint, 'greedy' here" in refused
    tested = command("test", "--experiment", "tiny", "--ckpt_path", "run", "--output", "other")
    assert tested.status == 0, tested.err
    three = [f"--{BACKBONE}.sources=[random:1,random:2,random:3]", "--ckpt_path", "run"]
    assert "are 2 in the checkpoint, 3 here" in command(*FIT, *three).refused()


@pytest.mark.parametrize("how", [pytest.param("rank", marks=pytest.mark.slow), "probe"])
def test_sources_of_the_short_form_and_a_dry_run_need_no_numbers(greedy, command, how, caplog):
    options = ["--sources=random:1,builtin:faces5,random:2", f"--{BACKBONE}.gate_init={how}"]
    done = command(*FIT, *options, "--data.image_size=64", "--trainer.fast_dev_run=true")
    assert done.status == 0, done.err
    assert "start         [0.05, 0.9, 0.05], mostly faces5" in caplog.text
    assert "norm_weights" not in caplog.text


def test_classes_have_a_start_too(greedy, command, class_root):
    data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
    described = {"class_path": "ImageFolders", "init_args": data}
    greedy(**{"model.class_path": "ClassificationTask", "data": described})
    done = command(*FIT, "--run_dir", "run")
    assert done.status == 0, done.err
    assert len(saved_start("run")) == 2


def test_data_that_nothing_can_be_scored_by_are_refused_by_the_options_name(greedy, command):
    words = ["--data.train_size=1", "--run_dir", "run"]
    refused = command(*FIT, *words).refused()
    assert "gate_init 'greedy' cannot be found from these data" in refused
    assert "give gate_init a number for each source" in refused
    mistyped = command(*FIT, f"--{BACKBONE}.gate_init=gredy").refused()
    assert "gate_init" in mistyped
    absent = command(*FIT, "--data=ImageFolders", "--data.root=nowhere").refused()
    assert "nowhere" in absent


@pytest.mark.parametrize("how", ["rank", "probe", "greedy"])
def test_sources_of_masks_are_scored_by_the_areas_of_the_classes(tiny, command, mask_root, how):
    data = {"root": str(mask_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    tiny(
        **{
            "model": {
                "class_path": "SegmentationTask",
                "init_args": {
                    "backbone": {
                        "class_path": "ZooBackbone",
                        "init_args": {
                            "architecture": "test_resnet",
                            "sources": ["random:1", "random:2"],
                            "output": "stages",
                            "gate_init": how,
                        },
                    }
                },
            },
            "data": {"class_path": "ImageMasks", "init_args": data},
        }
    )
    done = command(*FIT, "--run_dir", "run", "--trainer.max_steps", "1")
    assert done.status == 0, done.err
    assert len(saved_start("run")) == 2


def test_a_zoos_option_for_one_network_says_how_to_train_a_zoo(command):
    words = ("fit", "--experiment", "classification-folders")
    named = (*words, "--experiment", "methods/start", f"--{BACKBONE}.mode", "full")
    command(*named).refused("unknown option 'mode'", "--experiment methods/lite")
    typo = (*words, f"--{BACKBONE}.weight", "uniform")
    command(*typo).refused("unknown option 'weight'", "Did you mean 'weights'?")
