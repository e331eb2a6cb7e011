"""First layers of sources on images of named bands: what the source knows, it sees as it did."""

import pytest
import timm
import torch
from timm.models import adapt_input_conv

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.stems import band_map

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BANDS = ["nir", "red", "green", "blue", "swir"]
OF_BANDS = [0.2, 0.3, 0.31, 0.32, 0.1], [0.1, 0.11, 0.12, 0.13, 0.05]
"""Mean and deviation of the zoo's images, band by band."""


def trained(path, in_chans=3):
    """A network whose norms have statistics of their own, saved to a file; in double precision."""
    network = timm.create_model("test_resnet", num_classes=0, in_chans=in_chans)
    generator = torch.Generator().manual_seed(1)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value += 0.05 * torch.rand(value.shape, generator=generator)
    torch.save(network.state_dict(), path)
    return network.double().eval()


def inner(network, images):
    """Output of the stem, without its outermost pixels, where padding is another colour."""
    with torch.no_grad():
        return network.conv1[:2](images)[..., 2:-2, 2:-2]


def column(values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def on_bands(path, names=BANDS, statistics=OF_BANDS, **declared):
    """The source of a file, on images of bands, and its loading report."""
    architecture = Architecture("test_resnet", "pooled", len(names), *statistics, bands=names)
    [loaded] = load_architecture(
        architecture, parse_sources([{"weights": str(path), "name": "one"} | declared])
    )
    network = architecture.plain(loaded.state).double().eval()
    return network, loaded


def test_a_source_of_colours_sees_the_colours_among_the_bands_as_it_did(tmp_path):
    plain = trained(tmp_path / "a.pth")
    network, loaded = on_bands(tmp_path / "a.pth", mean=MEAN, std=STD)
    pixels = torch.rand(2, 3, 48, 48, dtype=torch.float64)
    # The bands that are new to it show their means.
    images = torch.zeros(2, 5, 48, 48, dtype=torch.float64)
    mean, std = (column(each) for each in OF_BANDS)
    images[:, 1:4] = (pixels - mean[1:4]) / std[1:4]
    wanted = inner(plain, (pixels - column(MEAN)) / column(STD))
    assert torch.allclose(inner(network, images), wanted, atol=1e-5)
    assert "takes red, green, blue, and 2 other bands" in loaded.report.summary()
    assert not loaded.problem


def test_bands_that_are_new_share_the_mean_of_the_kernels(tmp_path):
    kernel = trained(tmp_path / "a.pth").conv1[0].weight
    network, _ = on_bands(tmp_path / "a.pth", mean=MEAN, std=STD)
    for band in (0, 4):
        assert torch.allclose(network.conv1[0].weight[:, band], kernel.mean(dim=1) / 2)


def test_bands_that_are_new_take_the_colours_that_the_data_lack():
    colours = Normalisation((0.5,) * 3, (0.25,) * 3)
    given = Normalisation((0.4,) * 3, (0.1,) * 3)
    found = band_map(colours, given, ("red", "green", "blue"), ("red", "nir", "swir"))
    assert found.matrix[0].tolist() == pytest.approx([0.1 / 0.25, 0, 0])
    assert found.matrix[1].tolist() == pytest.approx([0, 0.5, 0.5])
    assert found.offset.tolist() == pytest.approx([(0.4 - 0.5) / 0.25, 0, 0])


def test_without_a_shared_name_the_kernel_follows_timms_rule(tmp_path):
    kernel = trained(tmp_path / "a.pth").conv1[0].weight.float()
    names = [str(i) for i in range(13)]
    network, loaded = on_bands(tmp_path / "a.pth", names, ([0.1] * 13, [0.2] * 13), mean=MEAN)
    assert torch.allclose(network.conv1[0].weight.float(), adapt_input_conv(13, kernel))
    assert loaded.report.adapted_input
    assert not loaded.problem


def test_a_source_of_bands_gives_those_that_the_data_have(tmp_path):
    own = ["swir", "red", "vv", "nir"]
    kernel = trained(tmp_path / "a.pth", 4).conv1[0].weight
    statistics = ([0.1] * 3, [0.2] * 3)
    network, loaded = on_bands(
        tmp_path / "a.pth", ["nir", "red", "vh"], statistics, bands=own, mean=0.1, std=0.2
    )
    found = network.conv1[0].weight
    assert torch.allclose(found[:, 0], kernel[:, 3], atol=1e-6)
    assert torch.allclose(found[:, 1], kernel[:, 1], atol=1e-6)
    assert torch.allclose(found[:, 2], kernel[:, 0] + kernel[:, 2], atol=1e-6)
    assert "takes red, nir, and 1 other band" in loaded.report.summary()


def test_a_source_of_many_bands_fits_data_of_fewer(tmp_path):
    own = [f"B{i}" for i in range(13)]
    kernel = trained(tmp_path / "a.pth", 13).conv1[0].weight
    network, _ = on_bands(tmp_path / "a.pth", ["B8", "B3"], ([0] * 2, [1] * 2), bands=own)
    assert torch.allclose(network.conv1[0].weight, kernel[:, [8, 3]], atol=1e-6)


def test_a_source_of_grey_images_sees_the_luminance_of_the_colours(tmp_path):
    plain = trained(tmp_path / "a.pth", 1)
    network, _ = on_bands(tmp_path / "a.pth", mean=0.4, std=0.3, channels="grey")
    pixels = torch.rand(2, 3, 48, 48, dtype=torch.float64)
    images = torch.zeros(2, 5, 48, 48, dtype=torch.float64)
    mean, std = (column(each) for each in OF_BANDS)
    images[:, 1:4] = (pixels - mean[1:4]) / std[1:4]
    grey = (pixels * column([0.299, 0.587, 0.114])).sum(dim=1, keepdim=True)
    assert torch.allclose(inner(network, images), inner(plain, (grey - 0.4) / 0.3), atol=1e-5)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"bands": ["a", "b", "c"]}, "have none of them but nir, red"),
        ({"bands": ["a", "a", "c"]}, "must be different names"),
        ({"bands": [1, 2, 3]}, "must be a list of names"),
        ({"bands": ["nir", "red", "c"], "channels": "bgr"}, "leave one of them out"),
        ({"bands": ["nir", "red", "c"], "mean": [0.1, 0.2]}, "a number or three"),
    ],
)
def test_a_declaration_that_fits_nothing_is_refused(tmp_path, declared, said):
    trained(tmp_path / "a.pth")
    with pytest.raises(SourceError) as error:
        on_bands(tmp_path / "a.pth", **declared)
    assert said in str(error.value)


def test_names_are_as_many_as_channels():
    with pytest.raises(ConfigError, match="bands must name all 5 channels"):
        Architecture("test_resnet", in_chans=5, bands=["red"])


def test_a_backbone_is_built_again_from_its_config():
    backbone = PlainBackbone("test_resnet", in_chans=2, bands=["nir", "red"])
    again = PlainBackbone(**{**backbone.config, "sources": []})
    assert again.architecture == backbone.architecture
    assert "bands" not in PlainBackbone("test_resnet").config
