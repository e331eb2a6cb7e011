"""Which layers a norm follows, over architectures whose numbers their construction tells."""

import pytest
import torch
import torchvision
from torch import nn

from zoo_lightning import ZooBackbone
from zoo_lightning.models.architecture import Architecture, trace


def found_and_all(architecture):
    """Number of convolutions and linear layers that a norm follows, and of all that run."""
    build = Architecture(architecture)
    network = build.build()
    seen = trace(build, network)
    modules = dict(network.named_modules())
    ran = {name for name in seen.called if isinstance(modules[name], (nn.Conv2d, nn.Linear))}
    assert seen.before_norm <= ran
    return len(seen.before_norm), len(ran)


@pytest.mark.parametrize(
    ("architecture", "found", "layers"),
    [
        # Each convolution has its batch norm: stem, 8 blocks of two, 3 shortcuts.
        ("resnet18", 20, 20),
        # 58 layers of two convolutions, of which the second is put beside others before the next
        # norm; 3 transitions, which pool first; the stem.
        ("densenet121", 120, 120),
        # Norms come first: of 8 blocks the first convolutions, and the stem through a pooling.
        ("resnetv2_18", 9, 20),
        # Flattened between linear layer and batch norm: 4 layers of the stem, 4 of each of 9
        # blocks, 5 of each of 2 blocks between stages.
        ("levit_128s", 50, 50),
        # The patch embedding through a permutation, and 3 mergings of patches; all other layers add
        # to their input.
        ("swin_tiny_patch4_window7_224", 4, 52),
        # Positions are added to the patches.
        ("vit_tiny_patch16_224", 0, 49),
        # Stem, 2 of the first block, 3 of each of 10 blocks, the last of the stages; not two of
        # each of 9 squeeze-and-excitations, and not the head.
        ("mobilenetv3_small_050", 34, 53),
    ],
)
def test_norms_are_found_behind_what_keeps_a_scale(architecture, found, layers):
    assert found_and_all(architecture) == (found, layers)


def torchvision_convnext():
    return torchvision.models.convnext_tiny()


def test_norms_are_found_behind_a_permutation():
    # The stem, and the depthwise convolution of each of 18 blocks, which is permuted for its norm;
    # not two linear layers of each, 3 downsampling convolutions and the classifier.
    assert found_and_all(torchvision_convnext) == (19, 19 + 36 + 3 + 1)


class Small(nn.Module):
    """Two convolutions, what lies between them and a norm, and the norm."""

    def __init__(self, between, norm):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.between, self.norm = between, norm

    def forward(self, x):
        """``(B, C)``."""
        return self.norm(self.between(self.one(x), self.two(x))).mean((2, 3))


@pytest.mark.parametrize(
    ("between", "norm", "found"),
    [
        (lambda a, b: a, nn.BatchNorm2d(4), {"one"}),
        (lambda a, b: torch.cat([a, b], 1), nn.BatchNorm2d(8), {"one", "two"}),
        # Over all channels together the scale of some of them matters.
        (lambda a, b: torch.cat([a, b], 1), nn.GroupNorm(1, 8), set()),
        (lambda a, b: torch.cat([a, a], 1), nn.GroupNorm(1, 8), {"one"}),
        (lambda a, b: a + b, nn.BatchNorm2d(4), set()),
        (lambda a, b: a * 2 + 1, nn.BatchNorm2d(4), set()),
        (lambda a, b: a.relu(), nn.BatchNorm2d(4), set()),
        (lambda a, b: a.relu_(), nn.BatchNorm2d(4), set()),
        (lambda a, b: nn.Dropout().eval()(nn.Identity()(b)), nn.BatchNorm2d(4), {"two"}),
        (lambda a, b: nn.functional.max_pool2d(a, 2), nn.BatchNorm2d(4), {"one"}),
        (lambda a, b: a[:, :2], nn.BatchNorm2d(2), set()),
        (lambda a, b: nn.functional.pixel_unshuffle(a, 2), nn.BatchNorm2d(16), {"one"}),
        (
            lambda a, b: a.flatten(2).transpose(1, 2).reshape(1, 64, 64, 4),
            nn.LayerNorm(4),
            {"one"},
        ),
    ],
)
def test_a_scale_matters_as_soon_as_something_else_comes_to_it(between, norm, found):
    build = Architecture(lambda: Small(between, norm), "pooled")
    network = build.build()
    assert trace(build, network).before_norm == found


def test_gates_of_all_layers_of_a_densenet_begin_as_released():
    zoo = ZooBackbone("densenet121", ["random:0", "random:1"], mode="lite", align="none")
    layers = zoo.aggregated_layers()
    assert len(layers) == 120
    # From another start the gates do not depend on the input.
    assert all(layer.gate.expand.weight.any() for layer in layers.values())
