"""Networks that a zoo would compute wrongly are refused by the names of their layers."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import prune

from zoo_lightning.errors import ArchitectureError
from zoo_lightning.models.aggregable import check_network
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn import ZooConv2d

RANDOM = ["random:1", "random:2"]


class Net(nn.Module):
    """Two convolutions and a linear layer; a change is made before it is used."""

    def __init__(self, change) -> None:
        super().__init__()
        self.input_size = (3, 8, 8)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 4)
        change(self)

    def forward(self, x):
        """Features ``(B, 4)``."""
        x = self.first(x) if hasattr(self, "first") else self.conv1(x)
        return self.fc(self.conv2(x.relu()).mean((2, 3)))


def first_named_later(net):
    net.first = nn.Sequential(net.conv1, nn.BatchNorm2d(4))


def first_named_before(net):
    conv = net.conv1
    del net.conv1
    net.first = nn.Sequential(conv, nn.BatchNorm2d(4))
    net.conv1 = conv


def block_named_twice(net):
    net.blocks = nn.ModuleList([nn.Sequential(net.conv2)] * 2)


def tied(net):
    net.decoder = nn.Linear(4, 4)
    net.decoder.weight = net.fc.weight


def tied_to_a_parameter(net):
    net.scale = net.conv2.bias


CHANGES = {
    first_named_later: "layer 'conv1' is 'first.0' as well",
    first_named_before: "layer 'conv1' is 'first.0' as well",
    block_named_twice: "layer 'conv2' is 'blocks.0.0' as well",
    tied: "'fc.weight' is 'decoder.weight' as well",
    tied_to_a_parameter: "'scale' is 'conv2.bias' as well",
    lambda net: nn.utils.weight_norm(net.conv2): "'conv2' is a Conv2d whose weight is computed",
    lambda net: nn.utils.spectral_norm(net.fc): "'fc' is a Linear whose weight is computed",
    lambda net: prune.l1_unstructured(net.conv2, "bias", 0.5): "whose bias is computed",
    lambda net: nn.utils.parametrizations.weight_norm(net.conv2): "ParametrizedConv2d",
}


@pytest.mark.parametrize(("change", "message"), CHANGES.items(), ids=range(len(CHANGES)))
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_layer_that_would_be_computed_wrongly_is_named(change, message):
    with pytest.raises(ArchitectureError, match=message):
        ZooBackbone(lambda: Net(change), RANDOM, mode="lite")


def test_a_weight_that_no_aggregated_layer_has_may_be_shared():
    def change(net):
        net.first = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        net.norm = net.first[1]
        net.other = nn.BatchNorm2d(4)
        net.other.weight = net.norm.weight

    backbone = ZooBackbone(lambda: Net(change), RANDOM, mode="lite").eval()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(backbone.fold()(x), backbone(x), rtol=1e-5, atol=1e-5)


def test_a_block_may_be_there_twice_if_its_layers_are_in_it_alone():
    def change(net):
        net.blocks = nn.Sequential(*[nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))] * 2)
        net.first = nn.Sequential(net.conv1, net.blocks)
        del net.conv1

    backbone = ZooBackbone(lambda: Net(change), RANDOM, mode="lite").eval()
    assert backbone.net.blocks[1][0] is backbone.net.first[1][0][0]
    assert isinstance(backbone.net.blocks[0][0], ZooConv2d)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(backbone.fold()(x), backbone(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet50", "mobilenetv3_small_050", "hrnet_w18_small",
                                          "tf_efficientnet_lite0", "dla46_c", "densenet121",
                                          "convnext_atto"])  # fmt: skip
def test_ordinary_networks_are_not_refused(architecture):
    with torch.device("meta"):
        for output in ({"num_classes": 0}, {"features_only": True}):
            check_network(timm.create_model(architecture, **output))
