"""``resolve``: an experiment's options without building anything."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo_lightning
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.resolving import resolve


def test_options_are_resolved_from_names_files_and_overrides(tiny, tmp_path):
    tiny()
    file = tmp_path / "more.yaml"
    file.write_text("trainer: {max_epochs: 7}\n")
    resolved = zoo_lightning.resolve("tiny", file, overrides={"trainer.max_steps": 100})
    assert resolved.name == "tiny+more"
    assert resolved.options.trainer.max_epochs == 7
    assert resolved.options.trainer.max_steps == 100
    words = ["--trainer.max_steps", "100", "--config", str(file)]
    same = resolve("tiny", overrides=words)
    assert same.options.as_dict()["trainer"] == resolved.options.as_dict()["trainer"]


def test_a_nested_mapping_overrides_like_dotted_names(tiny):
    tiny()
    nested = resolve("tiny", overrides={"model": {"init_args": {"lr": 0.5}}})
    dotted = resolve("tiny", overrides={"model.init_args.lr": 0.5})
    assert nested.options.model.init_args.lr == dotted.options.model.init_args.lr == 0.5
    assert nested.name == dotted.name == "tiny"


def test_overrides_may_hold_paths_and_numbers_of_numpy(tiny, tmp_path):
    tiny()
    overrides = {"run_dir": tmp_path / "run", "model.lr": np.float32(0.5), "budget": np.int64(2)}
    options = resolve("tiny", overrides=overrides).options
    assert options.run_dir == str(tmp_path / "run")
    assert (options.model.init_args.lr, options.budget) == (0.5, 2)


def test_resolving_builds_writes_and_draws_nothing(tiny):
    tiny()
    before = {str(path) for path in Path().rglob("*")}
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    drawn = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    data = {"class_path": "LandmarkCSV", "init_args": {"root": "nowhere"}}
    resolved = resolve("tiny", overrides={"data": data, "sources": "nowhere.ckpt,b.ckpt"})
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == drawn
    assert {str(path) for path in Path().rglob("*")} == before
    init_args = resolved.options.model.init_args.backbone.init_args
    assert init_args.sources == ["nowhere.ckpt", "b.ckpt"]
    assert resolved.options.seed_everything == 0


@pytest.mark.parametrize(
    ("overrides", "option"),
    [
        ({"trainer.max_stepz": 1}, "trainer.max_stepz"),
        ({"modell": 1}, "modell"),
        ({"model.init_args.lrr": 1}, "lrr"),
        ({"budget": -1}, "budget"),
        ({"budget": "much"}, "budget"),
        (["--trainer.max_stepz", "1"], "--trainer.max_stepz"),
        (["--lr", "1"], "--model.lr"),
        (["--experiment", "tinny"], "tinny"),
        ("--trainer.max_steps 1", "overrides"),
        (5, "overrides"),
        ({"model.lr": {0.1}}, "overrides"),
    ],
)
def test_a_mistake_is_refused_in_one_line(tiny, overrides, option):
    tiny()
    with pytest.raises(ConfigError) as refused:
        resolve("tiny", overrides=overrides)
    assert option in str(refused.value)
    assert "\n" not in str(refused.value)


def test_shared_options_are_those_of_several_runs_that_are_no_defaults(tiny):
    tiny()
    given = {"run_test": False, "init_from": "a", "budget": 2, "pictures": True}
    plain = resolve("tiny", overrides=given)
    assert plain.shared().keys() == {"seed_everything", "trainer", "model", "data"}
    assert "seed" not in plain.shared()["data"]["init_args"]
    assert "num_points" not in plain.shared()["model"]["init_args"]
    changed = resolve("tiny", overrides={"on_nonfinite": "skip", "wandb_tags": ["a"]})
    assert changed.shared()["on_nonfinite"] == "skip"
    assert changed.shared()["wandb_tags"] == ["a"]


def test_a_run_can_be_resolved_again_from_its_shared_options(tiny):
    tiny()
    first = resolve("tiny", overrides={"pictures": False}).shared()
    assert resolve(overrides=first).shared() == first


def test_a_method_before_the_experiment_that_replaces_it_is_refused(tiny):
    tiny()
    with pytest.raises(ConfigError, match="methods/lite"):
        resolve("methods/lite", "classification-folders")
    assert resolve("classification-folders", "methods/lite").name.endswith("methods/lite")
