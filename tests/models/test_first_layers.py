"""First layers of sources on the zoo's one input: the source sees what it saw in its training."""

import pytest
import timm
import torch

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import ZooBackbone, load_architecture
from zoo_lightning.models.first_layers import first_layers
from zoo_lightning.models.knowledge_flow import KnowledgeFlow
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.sources.spec import parse_sources

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Normalisation of the zoo's images."""

CAFFE = {"mean": [104, 117, 123], "range": "0..255", "channels": "bgr"}
HALF = {"mean": 0.5, "std": 0.5}
GREY = {"mean": 0.45, "std": 0.23, "channels": "grey"}
SWAPPED = {"mean": MEAN[::-1], "std": STD[::-1], "channels": "bgr"}
"""Declarations of sources; the last differs in the order of the channels alone."""

LUMINANCE = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]


def shown(pixels, channels, mean, std, top=1.0):
    """Images as a source sees them, computed from pixels ``(B, 3, H, W)`` without any shortcut."""
    if channels == "bgr":
        pixels = pixels[:, [2, 1, 0]]
    elif channels == "grey":
        pixels = (pixels * LUMINANCE).sum(1, keepdim=True)
    count = pixels.shape[1]
    mean, std = (torch.tensor(each, dtype=torch.float64).expand(count) for each in (mean, std))
    return (pixels * top - mean[:, None, None]) / std[:, None, None]


def own_input(pixels, declared):
    """Images as a declared source sees them."""
    top = 255.0 if declared.get("range") == "0..255" else 1.0
    channels, std = declared.get("channels", "rgb"), declared.get("std", 1.0)
    return shown(pixels, channels, declared["mean"], std, top)


def trained(architecture, path, in_chans=3):
    """A network whose norms have statistics of their own, saved to a file; in double precision."""
    network = (
        timm.create_model(architecture, num_classes=0, in_chans=in_chans)
        if timm.is_model(architecture)
        else Architecture(architecture).plain()
    )
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.is_floating_point():  # biases, running means and embeddings are not 0 either
            value += 0.05 * torch.rand(value.shape, generator=generator)
        assert torch.isfinite(value).all(), name
    torch.save(network.state_dict(), path)
    return network.double().eval()


def pixels_of(network, side=None):
    """Pixels ``(2, 3, H, W)`` in [0, 1] of the size that a network takes."""
    config = getattr(network, "pretrained_cfg", None) or {"input_size": (3, 64, 64)}
    side = side or config["input_size"][-1]
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 3, side, side, generator=generator, dtype=torch.float64)


def output_of(network, name, image):
    """Output of the module ``name`` of a network."""
    kept = []
    hook = network.get_submodule(name).register_forward_hook(lambda *given: kept.append(given[2]))
    with torch.no_grad():
        network(image)
    hook.remove()
    return kept[0]


STEMS = {  # architecture: module after which a constant is in place, and size of the images
    "test_resnet": ("conv1.1", 48),
    "mobilenetv3_small_050": ("bn1", 64),
    "tf_efficientnet_lite0": ("bn1", 65),
    "test_convnext": ("stem.0", 64),
    "test_vit": ("patch_embed.proj", None),
    "benchmarks.mobilenet025.mobilenet025": ("stage1.0.1", 64),
    "test_mambaout": ("stem.conv1", 64),
}


@pytest.mark.parametrize(
    "declared", [CAFFE, HALF, GREY, SWAPPED], ids=["caffe", "half", "grey", "swapped"]
)
@pytest.mark.parametrize("architecture", STEMS)
def test_a_transformed_source_computes_in_the_interior_what_it_computed_on_its_own_input(
    architecture, declared, tmp_path
):
    if "grey" in declared.values() and "." in architecture:
        pytest.skip("the function builds a network of three channels")
    channels = 1 if declared is GREY else 3
    source = trained(architecture, tmp_path / "a.pth", channels)
    name, side = STEMS[architecture]
    pixels = pixels_of(source, side)
    wanted = output_of(source, name, own_input(pixels, declared))
    ours = PlainBackbone(
        architecture, [{"weights": str(tmp_path / "a.pth"), **declared}], mean=MEAN, std=STD
    )
    found = output_of(ours.net.double().eval(), name, shown(pixels, "rgb", MEAN, STD))
    inside = (..., slice(1, -1), slice(1, -1))  # a kernel at the border sees padding
    scale = wanted.abs().max()
    assert (found[inside] - wanted[inside]).abs().max() < 1e-5 * scale
    report = ours.loaded[0].report.summary()
    assert "first layer transformed from" in report
    assert "adapted to other channels" not in report


@pytest.mark.parametrize("declared", [CAFFE, HALF], ids=["caffe", "half"])
def test_without_padding_whole_features_agree(declared, tmp_path):
    source = trained("test_vit", tmp_path / "a.pth")
    pixels = pixels_of(source)
    ours = PlainBackbone(
        "test_vit", [{"weights": str(tmp_path / "a.pth"), **declared}], mean=MEAN, std=STD
    )
    with torch.no_grad():
        wanted = source(own_input(pixels, declared))
        found = ours.double().eval()(shown(pixels, "rgb", MEAN, STD))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_with_equal_means_padding_is_exact_too(tmp_path):
    source = trained("test_resnet", tmp_path / "a.pth")
    pixels = pixels_of(source, 64)
    ours = PlainBackbone(
        "test_resnet", [{"weights": str(tmp_path / "a.pth"), **SWAPPED}], mean=MEAN, std=STD
    )
    with torch.no_grad():
        wanted = source(own_input(pixels, SWAPPED))
        found = ours.double().eval()(shown(pixels, "rgb", MEAN, STD))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_a_zoo_of_other_channels_shows_a_source_the_colours_that_it_has(in_chans, tmp_path):
    source = trained("test_vit", tmp_path / "a.pth")
    mean, std = [0.4, 0.5, 0.6, 0.3][:in_chans], [0.2, 0.3, 0.25, 0.1][:in_chans]
    zoo = torch.rand(2, in_chans, 160, 160, dtype=torch.float64)
    colours = zoo.expand(2, 3, 160, 160) if in_chans == 1 else zoo[:, :3]
    ours = PlainBackbone(
        "test_vit",
        [{"weights": str(tmp_path / "a.pth"), **CAFFE}],
        in_chans=in_chans,
        mean=mean,
        std=std,
    )
    middle, width = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (mean, std))
    with torch.no_grad():
        wanted = source(own_input(colours, CAFFE))
        found = ours.double().eval()((zoo - middle) / width)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    ["resnet50", "swin_tiny_patch4_window7_224", "vit_base_patch32_clip_224", "tresnet_m",
     "mobileone_s0", "repvgg_a0", "hrnet_w18_small", "densenet121"],
)  # fmt: skip
def test_large_architectures_are_transformed_without_a_problem(architecture):
    found = first_layers(architecture, 3)
    assert not found.problem
    assert all(layer.constant is not None for layer in found.layers)


def test_a_patch_embedding_without_bias_puts_the_constant_into_the_position_embedding(tmp_path):
    source = trained("tests.models.test_first_layers.clip_like", tmp_path / "a.pth")
    pixels = pixels_of(source, 64)
    ours = PlainBackbone(
        "tests.models.test_first_layers.clip_like",
        [{"weights": str(tmp_path / "a.pth"), **CAFFE}],
        mean=MEAN,
        std=STD,
    )
    assert (ours.net.pos_embed[:, 0] == source.pos_embed[:, 0].float()).all()  # the class token's
    with torch.no_grad():
        wanted = source(own_input(pixels, CAFFE))
        found = ours.double().eval()(shown(pixels, "rgb", MEAN, STD))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def clip_like():
    """A small vision transformer as CLIP has it: no bias in its patch embedding."""
    return timm.models.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=0, pre_norm=True
    )


def group_norm_stem():
    """A stem without bias before a group norm, which no other tensor can stand in for."""
    layers = torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.GroupNorm(2, 8), torch.nn.ReLU()
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def two_scales():
    """A network that sees the image at two scales, in two convolutions."""
    return TwoScales()


class TwoScales(torch.nn.Module):
    """Sum of a convolution of the image and one of its half."""

    def __init__(self):
        super().__init__()
        self.whole = torch.nn.Conv2d(3, 4, 3)
        self.smaller = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x):
        """Add both."""
        half = torch.nn.functional.avg_pool2d(x, 2)
        return self.whole(x).mean((2, 3)) + self.smaller(half).mean((2, 3))


HERE = "tests.models.test_first_layers"


@pytest.mark.parametrize(
    "architecture", [f"{HERE}.group_norm_stem", f"{HERE}.two_scales", "test_nfnet"]
)
def test_what_cannot_be_transformed_is_refused_if_declared_and_else_a_warning(
    architecture, tmp_path
):
    network = trained(architecture, tmp_path / "a.pth")
    with pytest.raises(SourceError, match="'a' cannot be put into its first layer"):
        load_architecture(
            Architecture(architecture, mean=MEAN, std=STD),
            parse_sources([{"weights": str(tmp_path / "a.pth"), **HALF}]),
        )
    facts = {"data": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    content = {"state_dict": network.float().state_dict(), "zoo_lightning": facts}
    torch.save(content, tmp_path / "b.pth")
    ours = PlainBackbone(architecture, [str(tmp_path / "b.pth")], mean=MEAN, std=STD)
    assert "warning       Sources see images that are normalised otherwise" in ours.describe()
    for key, value in ours.net.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])


def test_a_stem_without_place_for_a_constant_serves_sources_of_the_same_mean(tmp_path):
    source = trained(f"{HERE}.group_norm_stem", tmp_path / "a.pth")
    pixels = pixels_of(source, 16)
    ours = PlainBackbone(
        f"{HERE}.group_norm_stem",
        [{"weights": str(tmp_path / "a.pth"), **SWAPPED}],
        mean=MEAN,
        std=STD,
    )
    with torch.no_grad():
        wanted = source(own_input(pixels, SWAPPED))
        found = ours.double().eval()(shown(pixels, "rgb", MEAN, STD))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_declared_source_needs_the_normalisation_of_the_zoos_images(tmp_path):
    trained("test_resnet", tmp_path / "a.pth")
    source = {"weights": str(tmp_path / "a.pth"), **CAFFE}
    with pytest.raises(SourceError, match="give the backbone mean and std"):
        PlainBackbone("test_resnet", [source])
    for wrong in (
        {"mean": MEAN},
        {"mean": MEAN, "std": [0.1, 0.0, 0.1]},
        {"mean": [1], "std": "x"},
    ):
        with pytest.raises(ConfigError, match="std"):
            PlainBackbone("test_resnet", [source], **wrong)
    with pytest.raises(ConfigError, match="in_chans"):
        PlainBackbone("test_resnet", [source], in_chans=4, mean=MEAN, std=STD)


@pytest.mark.parametrize("mode", ["lite", "full"])
def test_every_source_of_a_zoo_sees_its_own_input(mode, tmp_path):
    declared = [CAFFE, HALF]
    networks = [trained("test_convnext", tmp_path / f"{i}.pth") for i in range(2)]
    sources = [{"weights": str(tmp_path / f"{i}.pth"), **each} for i, each in enumerate(declared)]
    zoo = ZooBackbone("test_convnext", sources, mode=mode, gate_init=[0.7, 0.3], mean=MEAN, std=STD)
    pixels = pixels_of(networks[0], 64)
    gates = torch.tensor([0.7, 0.3], dtype=torch.float64)
    wanted = sum(
        gate * output_of(network, "stem.0", own_input(pixels, each))
        for gate, network, each in zip(gates, networks, declared, strict=True)
    )
    stem = zoo.double().net.get_submodule("stem.0")
    torch.nn.init.zeros_(stem.gate.expand.weight)  # the gates are then those of the start
    zoo.eval()
    found = output_of(zoo.net, "stem.0", shown(pixels, "rgb", MEAN, STD))
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[inside], wanted[inside], rtol=1e-4, atol=1e-4)


def test_averages_and_teachers_are_of_transformed_sources(tmp_path):
    networks = [trained("test_resnet", tmp_path / f"{i}.pth") for i in range(2)]
    sources = [
        {"weights": str(tmp_path / "0.pth"), **CAFFE},
        {"weights": str(tmp_path / "1.pth"), **HALF},
    ]
    images = {"mean": MEAN, "std": STD}
    alone = [PlainBackbone("test_resnet", [each], **images).net.state_dict() for each in sources]
    average = PlainBackbone("test_resnet", sources, weights=[0.25, 0.75], **images).net.state_dict()
    key = "conv1.0.weight"
    torch.testing.assert_close(average[key], 0.25 * alone[0][key] + 0.75 * alone[1][key])
    assert not torch.equal(alone[0][key], networks[0].state_dict()[key].float())
    flow = KnowledgeFlow("test_resnet", sources, **images)
    for teacher, state in zip(flow._teachers, alone, strict=True):
        for name, value in teacher.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_known_statistics_that_agree_up_to_rounding_change_nothing(tmp_path):
    network = trained("test_resnet", tmp_path / "a.pth")
    source = {"weights": str(tmp_path / "a.pth"), "mean": [0.48503, 0.456, 0.406], "std": STD}
    ours = PlainBackbone("test_resnet", [source], mean=MEAN, std=STD)
    for key, value in ours.net.state_dict().items():
        assert torch.equal(value, network.state_dict()[key].to(value.dtype))


def test_a_folded_backbone_is_on_the_zoos_input(tmp_path):
    trained("test_convnext", tmp_path / "a.pth")
    source = {"weights": str(tmp_path / "a.pth"), **CAFFE}
    zoo = ZooBackbone("test_convnext", [source, "random:1"], mode="lite", mean=MEAN, std=STD).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(zoo.fold()(image), zoo(image), rtol=1e-4, atol=1e-5)
    assert zoo.config["mean"] == MEAN
    assert zoo.config["sources"][0]["mean"] == [104.0, 117.0, 123.0]
    assert "mean" not in zoo.config["sources"][1]


@pytest.mark.parametrize(
    "file", ["faces.pth", "faces_b.pth", "plates.pth", "plates_white.pth", "stop_lines.pth"]
)
def test_published_detectors_compute_what_they_did_on_bgr_in_0_to_255(file, real_data):
    path = str(real_data("zoo_mobilenet025") / file)
    architecture = "benchmarks.mobilenet025.mobilenet025"
    images = {"mean": MEAN, "std": STD}
    source = PlainBackbone(architecture, [path]).net.double().eval()
    ours = PlainBackbone(architecture, [{"weights": path, **CAFFE}], **images).net.double().eval()
    pixels = pixels_of(source, 96)
    wanted = output_of(source, "stage1.0.1", own_input(pixels, CAFFE))
    found = output_of(ours, "stage1.0.1", shown(pixels, "rgb", MEAN, STD))
    inside = (..., slice(1, -1), slice(1, -1))
    assert (found[inside] - wanted[inside]).abs().max() < 1e-5 * wanted.abs().max()
