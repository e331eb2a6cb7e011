"""MobileNetV1 of width 0.25 as in RetinaFace detectors, for a zoo of published weights.

timm has no such network: LeakyReLU with slope 0.1 in place of ReLU6, batch norm after both
convolutions of a block, 13 blocks in three stages, keys such as ``stage1.1.3.weight``. It is for
measurements only:

    --architecture benchmarks.mobilenet025.mobilenet025 --sources imagenet.tar,faces.pth

Howard et al., *MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications*,
2017, table 1, with width multiplier 0.25.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = (
    ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)),
    ((64, 128, 2), *((128, 128, 1),) * 5),
    ((128, 256, 2), (256, 256, 1)),
)
"""Input channels, output channels and stride of each separable block."""

SLOPE = 0.1


class MobileNet025(nn.Module):
    """Network of features ``(B, 256)`` of images ``(B, 3, H, W)``, averaged over positions."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(3, STAGES[0][0][0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(STAGES[0][0][0]),
            nn.LeakyReLU(SLOPE),
        )
        first, second, third = ([separable(*block) for block in stage] for stage in STAGES)
        self.stage1 = nn.Sequential(stem, *first)
        self.stage2 = nn.Sequential(*second)
        self.stage3 = nn.Sequential(*third)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the pooled features."""
        return self.stage3(self.stage2(self.stage1(x))).mean(dim=(2, 3))


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A depthwise and a pointwise convolution, each with norm and activation.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        stride: stride of the depthwise convolution.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(SLOPE),
    )


def mobilenet025() -> MobileNet025:
    """Build the network with random weights."""
    return MobileNet025()
