"""What each transfer method makes of an experiment's options."""

import copy
from pathlib import Path

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipe import FinishedRun, Setting
from zoo_lightning.methods.recipes import RECIPES, find_recipes

SOURCES = {"a": "builtin:a", "b": {"weights": "b.ckpt"}, "c": "c.pth"}

OPTIONS = {
    "trainer": {"callbacks": [{"class_path": "X"}]},
    "model": {
        "class_path": "LandmarkTask",
        "init_args": {
            "weight_decay": 0.05,
            "backbone": {
                "class_path": "zoo_lightning.models.backbone.ZooBackbone",
                "init_args": {
                    "architecture": "resnet18",
                    "sources": list(SOURCES.values()),
                    "output": "stages",
                    "mode": "lite",
                    "gate_init": "greedy",
                },
            },
        },
    },
}

RUNS = [FinishedRun(Path(f"runs/{name}"), name, figure) for name, figure in
        (("a", 5.0), ("b", 4.0), ("c", 6.0))]  # fmt: skip


def configured(name, variant="", higher=False, options=OPTIONS):
    changed = copy.deepcopy(options)
    setting = Setting(SOURCES, variant, {"single": RUNS}, higher)
    RECIPES[name].configure(changed, setting)
    return changed


def backbone(changed):
    described = changed["model"]["init_args"]["backbone"]
    return described["class_path"].rpartition(".")[2], described["init_args"]


@pytest.mark.parametrize(
    ("name", "variant", "sources"),
    [
        ("scratch", "", []),
        ("single", "b", [SOURCES["b"]]),
        ("soup", "", list(SOURCES.values())),
        ("l2-sp", "", [SOURCES["b"]]),
        ("distillation", "", [SOURCES["b"]]),
    ],
)
def test_baselines_are_the_ordinary_network_from_their_sources(name, variant, sources):
    kind, init_args = backbone(configured(name, variant))
    assert kind == "PlainBackbone"
    assert init_args == {"architecture": "resnet18", "output": "stages", "sources": sources}


def test_the_best_single_source_depends_on_what_is_better():
    assert backbone(configured("l2-sp", higher=True))[1]["sources"] == [SOURCES["c"]]


def test_l2_sp_takes_the_place_of_weight_decay_and_other_callbacks_stay():
    changed = configured("l2-sp")
    assert changed["model"]["init_args"]["weight_decay"] == 0
    kinds = [callback["class_path"] for callback in changed["trainer"]["callbacks"]]
    assert kinds == ["X", "zoo_lightning.methods.L2SP"]


def test_distillation_has_all_fine_tuned_sources_for_teachers():
    teachers = configured("distillation")["model"]["init_args"]["teachers"]
    assert teachers == ["runs/a", "runs/b", "runs/c"]


def test_feature_transfer_starts_informed_and_follows_all_sources():
    changed = configured("feature-transfer")
    assert backbone(changed)[1]["weights"] == "greedy"
    teachers = changed["model"]["init_args"]["teachers"]
    assert [each["name"] for each in teachers] == list(SOURCES)
    assert {(each["architecture"], each["teach"]) for each in teachers} == {
        ("resnet18", "features")
    }


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("full", {"mode": "full"}),
        ("lite", {"mode": "lite"}),
        ("lite-unaligned", {"mode": "lite", "align": "none"}),
        ("full-released", {"mode": "full", "gate_init": "released", "norm_weights": "uniform"}),
    ],
)
def test_zoos_keep_the_experiments_other_options(name, changes):
    kind, init_args = backbone(configured(name))
    assert kind == "ZooBackbone"
    before = OPTIONS["model"]["init_args"]["backbone"]["init_args"]
    expected = {**before, **changes}
    assert {key: init_args[key] for key in expected} == expected


def test_an_experiment_without_a_zoo_gets_one_that_finds_its_start():
    options = copy.deepcopy(OPTIONS)
    options["model"]["init_args"]["backbone"] = {
        "class_path": "PlainBackbone",
        "init_args": {"architecture": "resnet18", "sources": list(SOURCES.values())},
    }
    kind, init_args = backbone(configured("full", options=options))
    assert kind == "ZooBackbone"
    assert init_args["gate_init"] == "greedy"
    assert init_args["sources"] == list(SOURCES.values())


def test_methods_that_are_needed_come_first_and_unknown_ones_are_refused():
    found = [recipe.name for recipe in find_recipes(["ensemble", "lite"], "LandmarkTask")]
    assert sorted(found) == ["ensemble", "lite", "single"]
    assert found.index("single") < found.index("ensemble")
    with pytest.raises(ConfigError, match=r"unknown method 'lit'.*Did you mean 'lite'"):
        find_recipes(["lit"], "LandmarkTask")
    with pytest.raises(ConfigError, match="'ensemble' is for ClassificationTask and LandmarkTask"):
        find_recipes(["ensemble"], "PPOTask")


def test_one_source_can_be_named():
    [lite, one] = find_recipes(["lite", "single:b"], "PPOTask")
    assert (lite.name, one.name) == ("lite", "single")
    assert one.variants(["a", "b"]) == ["b"]
    two = find_recipes(["single:a", "single:b"], "PPOTask")
    assert [recipe.variants(["a", "b"]) for recipe in two] == [["a"], ["b"]]
    with pytest.raises(ConfigError, match=r"'single:bb': no such source.*Did you mean 'bbb'"):
        find_recipes(["single:bb"], "PPOTask")[0].variants(["aaa", "bbb"])
    with pytest.raises(ConfigError, match="'lite:a': lite is no training of one source"):
        find_recipes(["lite:a"], "PPOTask")


def test_a_named_source_is_not_trained_twice_beside_all():
    found = find_recipes(["single:a", "ensemble"], "LandmarkTask")
    assert [recipe.name for recipe in found] == ["single", "ensemble"]
    assert found[0].variants(["a", "b"]) == ["a", "b"]
