"""Networks of methods are built before anything is trained."""

import copy
import re
from pathlib import Path

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.checking import check_networks
from zoo_lightning.methods.recipes import RECIPES, find_recipes

OWN = "benchmarks.mobilenet025.mobilenet025"
"""A network without timm's stages."""

SOURCES = {"a": "random:1", "b": "random:2"}


def options(architecture, **init_args):
    backbone = {
        "architecture": architecture,
        "sources": list(SOURCES.values()),
        "gate_init": "greedy",
        **init_args,
    }
    described = {"class_path": "zoo_lightning.ZooBackbone", "init_args": backbone}
    return {
        "trainer": {},
        "model": {"class_path": "ClassificationTask", "init_args": {"backbone": described}},
    }


def test_every_method_is_built_of_an_ordinary_network_and_options_stay_as_they_are():
    given = options("test_resnet")
    before = copy.deepcopy(given)
    check_networks(find_recipes(list(RECIPES), "ClassificationTask"), given, SOURCES)
    assert given == before


@pytest.mark.parametrize(
    ("method", "architecture"), [("knowledge-flow", OWN), ("lite-released", "test_vit")]
)
def test_a_method_that_a_network_is_not_for_is_refused_by_name(method, architecture):
    with pytest.raises(ConfigError, match=f"'{method}'"):
        check_networks(find_recipes([method], "ClassificationTask"), options(architecture), SOURCES)


@pytest.mark.parametrize("words", [("compare", "--methods", "scratch,knowledge-flow"),
                                   ("fit", "--method", "knowledge-flow")])  # fmt: skip
def test_nothing_is_trained_before_a_late_method_is_refused(tiny, command, words):
    refused = command(*words, "--experiment", "tiny", "--run_dir", "run", "--architecture",
                      OWN, "--model.backbone.output", "pooled")  # fmt: skip
    assert refused.status != 0
    assert re.search(r"method 'knowledge-flow'.*stages", refused.err), refused.err
    assert not list(Path("run").rglob("last.ckpt"))
