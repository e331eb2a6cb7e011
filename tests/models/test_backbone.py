"""A zoo of any architecture: builds, trains, is saved and restored, and folds exactly."""

import copy

import pytest
import timm
import torch
from torch import nn

from zoo_lightning.errors import ArchitectureError, ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import Headed, ZooBackbone
from zoo_lightning.nn import AggregatedLayer, ZooConv2d, ZooLinear
from zoo_lightning.sources.zoo import without_weights

RANDOM = ["random:1", "random:2"]
ARCHITECTURES = [
    "resnet18",
    pytest.param("resnet50", marks=pytest.mark.slow),
    "test_resnet",
    "mobilenetv3_small_050",
    "tf_efficientnet_lite0",
    pytest.param("hrnet_w18_small", marks=pytest.mark.slow),
]


def randomize(backbone: ZooBackbone) -> None:
    """Alignment, gates' averages and statistics away from their plain starts."""
    for module in backbone.modules():
        if isinstance(module, AggregatedLayer):
            module.gate_ema.uniform_(0.2, 0.8)
            if module.alignment is not None:
                with torch.no_grad():
                    module.alignment.add_(torch.randn_like(module.alignment), alpha=0.02)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mode", ["full", "lite"])
def test_a_zoo_trains_a_step_is_restored_and_folds_exactly(architecture, mode):
    backbone = ZooBackbone(architecture, RANDOM, mode=mode)
    x = torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.01)
    backbone(x).square().mean().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    before = copy.deepcopy(backbone.state_dict())
    optimizer.step()
    assert any(not torch.equal(v, before[k]) for k, v in backbone.state_dict().items())

    randomize(backbone)
    backbone.eval()
    with without_weights():
        restored = ZooBackbone(architecture, RANDOM, mode=mode)
    restored.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        y = backbone(x)
        torch.testing.assert_close(restored.eval()(x), y, rtol=0, atol=0)
        folded = backbone.fold()
        assert set(folded.state_dict()) == set(
            timm.create_model(architecture, num_classes=0).state_dict()
        )
        if mode == "full":
            return  # its fold is an approximation
        torch.testing.assert_close(folded(x), y, rtol=1e-4, atol=1e-4 * y.abs().max().item())


@pytest.mark.parametrize("output", ["map", "stages"])
@pytest.mark.parametrize("architecture", ["test_resnet", "mobilenetv3_small_050",
                                          "hrnet_w18_small"])  # fmt: skip
def test_feature_maps_and_stages_fold_too(architecture, output):
    backbone = ZooBackbone(architecture, RANDOM, mode="lite", output=output)
    randomize(backbone)
    backbone.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found, folded = backbone(x), backbone.fold()
        expected = backbone.architecture.features(folded, x)
    maps = found if output == "stages" else [found]
    for left, right in zip(maps, expected if output == "stages" else [expected], strict=True):
        scale = right.abs().max().item()
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * scale)
    assert [m.shape[1] for m in maps] == [shape[0] for shape in backbone.feature_shapes]


def test_full_with_the_same_gates_for_all_equals_lite():
    full = ZooBackbone("test_resnet", RANDOM, mode="full", gate_init="sum_to_one").eval()
    lite = ZooBackbone("test_resnet", RANDOM, mode="lite").eval()
    lite.load_state_dict(full.state_dict())
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(full(x), lite(x), rtol=1e-4, atol=1e-5)


def test_identical_sources_with_gates_summing_to_one_reproduce_the_source():
    zoo = ZooBackbone("test_resnet", ["random:1"] * 3, gate_init="sum_to_one")
    plain = PlainBackbone("test_resnet", ["random:1"])
    x = torch.randn(2, 3, 64, 64)  # in training: statistics of the batch, as both start anew
    torch.testing.assert_close(zoo(x), plain(x), rtol=1e-4, atol=1e-4)


def test_every_convolution_is_aggregated_downsampling_ones_too():
    backbone = ZooBackbone("resnet50", RANDOM, mode="lite")
    convolutions = [m for m in timm.create_model("resnet50").modules() if isinstance(m, nn.Conv2d)]
    layers = backbone.aggregated_layers()
    assert len(layers) == len(convolutions) == 53
    assert all(layer.mode == "lite" for layer in layers.values())
    assert sum(layer.alignment is not None for layer in layers.values()) == 17


@pytest.mark.parametrize(("align", "aligned"), [("none", 0), ("spatial", 10), ("all", 15)])
def test_alignment_can_be_chosen(align, aligned):
    layers = ZooBackbone("test_resnet", RANDOM, align=align).aggregated_layers().values()
    assert sum(layer.alignment is not None for layer in layers) == aligned


def test_gates_start_by_whether_a_norm_layer_follows():
    layers = ZooBackbone("mobilenetv3_small_050", RANDOM).aggregated_layers()
    assert layers["conv_stem"].gate.expand.weight.abs().sum() > 0
    squeeze = layers["blocks.0.0.se.conv_reduce"].gate
    assert squeeze.expand.weight.abs().sum() == 0
    torch.testing.assert_close(squeeze.initial(), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_a_shared_gate_is_that_of_the_second_layer_in_all_later_ones(mode):
    backbone = ZooBackbone("test_resnet", RANDOM, mode=mode, gating="shared")
    x = torch.randn(3, 3, 32, 32)
    seen = {}
    for name, layer in backbone.aggregated_layers().items():
        layer.gate.register_forward_hook(lambda *a, name=name: seen.update({name: a[-1]}))
    backbone(x).square().mean().backward()
    first, second, *others = seen.values()
    assert len(others) > 5
    assert all(torch.equal(second, gates) for gates in others)
    assert not torch.equal(first, second)
    assert sum("gate.reduce" in name for name, _ in backbone.named_parameters()) == 2
    assert all(p.grad is not None for p in backbone.parameters())
    # A copy made after a pass has a gate of its own to share.
    copied = copy.deepcopy(backbone).eval()
    leader = list(copied.aggregated_layers().values())[1].gate
    with torch.no_grad():
        torch.testing.assert_close(copied(x), backbone.eval()(x))
        leader.expand.bias.add_(1)
        changed = copied(x)
    assert torch.allclose(changed, backbone(x)) == (mode == "lite")  # which has its averages


def test_norm_layers_take_the_sources_average_by_the_given_weights():
    first, second = (PlainBackbone("test_resnet", [s]).net.state_dict() for s in RANDOM)
    for state in (first, second):
        for key in state:
            if key.endswith("bn1.weight"):
                assert state[key].min() == 1  # random sources start alike
    options = {"gate_init": [0.9, 0.1], "norm_weights": "gates"}
    zoo = ZooBackbone("test_resnet", RANDOM, **options)
    for layer in zoo.aggregated_layers().values():
        torch.testing.assert_close(layer.gate_ema, torch.tensor([0.9, 0.1]))
    for module in zoo.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.abs().sum() == 0
            assert (module.running_var == 1).all()


def test_the_average_of_what_is_not_aggregated_follows_the_weights(tmp_path):
    files = []
    for value in (1.0, 5.0):
        state = timm.create_model("test_resnet", num_classes=0).state_dict()
        state = {k: torch.full_like(v, value) if "bn" in k else v for k, v in state.items()}
        files.append(str(tmp_path / f"{value}.pth"))
        torch.save(state, files[-1])
    zoo = ZooBackbone("test_resnet", files, norm_weights=[3, 1])
    assert zoo.net.state_dict()["layer1.0.bn1.weight"].unique().item() == 2.0


class Attentive(nn.Module):
    """A network with a linear layer inside, and one layer that a zoo cannot aggregate."""

    def __init__(self, odd: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=True)
        self.hidden = nn.Linear(4 * 6 * 6, 10)
        self.scale = nn.Parameter(torch.randn(10))
        self.input_size = (3, 8, 8)
        self.odd = nn.ConvTranspose2d(4, 4, 1) if odd else nn.Identity()

    def forward(self, x):
        """Features ``(B, 10)``."""
        return self.hidden(self.odd(self.conv(x).relu()).flatten(1)) * self.scale


an_instance = nn.Identity()


def odd_network() -> nn.Module:
    """Factory of the network that is refused."""
    return Attentive(odd=True)


def test_any_function_that_makes_a_module_can_be_a_zoo():
    backbone = ZooBackbone(Attentive, RANDOM, mode="lite").eval()
    assert isinstance(backbone.net.conv, ZooConv2d)
    assert isinstance(backbone.net.hidden, ZooLinear)
    assert backbone.num_features == 10
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(backbone.fold()(x), backbone(x), rtol=1e-5, atol=1e-5)
    # Without norm layers nothing would absorb a kernel of another size: gates sum to one.
    total = sum(layer.gate_ema.sum() for layer in backbone.aggregated_layers().values())
    torch.testing.assert_close(total, torch.tensor(2.0))


def test_the_head_folds_into_the_classifier():
    backbone = ZooBackbone("test_resnet", RANDOM, mode="lite").eval()
    head = nn.Linear(backbone.num_features, 7)
    folded = backbone.fold(head)
    assert set(folded.state_dict()) == set(
        timm.create_model("test_resnet", num_classes=7).state_dict()
    )
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(folded(x), head(backbone(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("architecture", "place"), [("dla46_c", nn.Conv2d), ("repvit_m0_9", None)])
def test_a_classifier_of_another_kind_takes_the_head_or_leaves_it_outside(architecture, place):
    backbone = PlainBackbone(architecture).eval()
    head = nn.Linear(backbone.num_features, 7)
    folded, x = backbone.fold(head), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), head(backbone(x)), rtol=1e-4, atol=1e-4)
    if place:
        assert isinstance(folded.get_classifier(), place)
        whole = timm.create_model(architecture, num_classes=7).state_dict()
        assert set(folded.state_dict()) == set(whole)
    else:
        assert isinstance(folded, Headed)


def test_a_zoo_of_a_network_with_a_convolution_as_classifier_folds_exactly():
    backbone = ZooBackbone("dla46_c", RANDOM, mode="lite")
    randomize(backbone)
    backbone.eval()
    head, x = nn.Linear(backbone.num_features, 7), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.fold(head)(x), head(backbone(x)), rtol=1e-4, atol=1e-4)


def test_other_numbers_of_input_channels_work():
    backbone = ZooBackbone("test_resnet", RANDOM, in_chans=4)
    assert backbone(torch.randn(1, 4, 32, 32).expand(2, -1, -1, -1)).shape == (2, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "resnet5o"}, "resnet50"),
        ({"architecture": "no.such.module"}, "can it be imported"),
        ({"architecture": f"{__name__}.odd_network"}, "'odd' is a .*ConvTranspose2d"),
        ({"architecture": "torch.nn"}, "'torch.nn' must be a function .* got a module"),
        ({"architecture": "torchvision.models.resnet.ResNet"}, "it needs block, layers; name a"),
        ({"architecture": nn.Linear}, "it needs in_features, out_features"),
        (
            {"architecture": f"{__name__}.an_instance"},
            "must be a function .* got a Identity",
        ),
        ({"architecture": "os.getcwd"}, "'os.getcwd' must return an nn.Module, got a str"),
        ({"architecture": "nf_resnet26"}, "ScaledStdConv2d|StdConv2d"),
        ({"sources": []}, "at least one source"),
        ({"mode": "light"}, "mode must be one of full, lite"),
        ({"gate_init": [0.5]}, "1 numbers for 2 sources"),
        ({"gate_init": [0.5, 1.0]}, "between 0 and 1"),
        ({"norm_weights": [0, 0]}, "not all be 0"),
        ({"norm_weights": "gates"}, "norm_weights .* gate_init"),
        ({"output": "features"}, "output must be one of pooled, map, stages"),
    ],
)
def test_mistakes_are_named_when_the_backbone_is_built(options, message):
    options = {"architecture": "test_resnet", "sources": RANDOM} | options
    with pytest.raises((ArchitectureError, ConfigError), match=message):
        ZooBackbone(**options)


def test_plain_backbones_name_their_method():
    assert PlainBackbone("test_resnet").method == "scratch"
    assert PlainBackbone("test_resnet", ["random:1"]).method == "single:random-1"
    soup = PlainBackbone("test_resnet", RANDOM)
    assert soup.method == "soup"
    singles = [PlainBackbone("test_resnet", [s]).net.conv1[0].weight for s in RANDOM]
    torch.testing.assert_close(soup.net.conv1[0].weight, (singles[0] + singles[1]) / 2)


def test_the_released_alignment_is_that_of_stem_and_last_two_stages():
    zoo = ZooBackbone("test_resnet", ["random:1", "random:2"], align="released")
    layers = zoo.aggregated_layers()
    aligned = {name for name, layer in layers.items() if layer.alignment is not None}
    spatial = {name for name, layer in layers.items() if layer.weight.shape[-1] > 1}
    assert aligned == {name for name in spatial if name[:6] not in ("layer1", "layer2")}
    assert {name.partition(".")[0] for name in aligned} == {"conv1", "layer3", "layer4"}
    with pytest.raises(ConfigError, match="align 'released'"):
        ZooBackbone("test_efficientnet", ["random:1"], align="released")
