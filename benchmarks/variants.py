"""What the speed benchmark compares: networks with a head, a training step and an evaluation step.

Every variant fine-tunes one ``ZooBackbone``'s (or one plain network's) parameters on random images
with ten classes, by SGD with Nesterov momentum as in the paper. Images and parameters lie channels
last, as the package's tasks have them, except for the reference: its grouped convolution over the
merged batch wants them contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference import reference_network
from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.layers import AggregatedLayer
from zoo_lightning.methods import PlainBackbone

VARIANTS = ("plain", "reference_full", "reference_lite", "full", "lite", "folded")
CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """One point of the benchmark: what is run, and on how much.

    Attributes:
        architecture: timm name.
        batch: images a step.
        size: side of the square images, in pixels.
        sources: ``m``.
        plan: of the aggregated layers.
    """

    architecture: str = "resnet50"
    batch: int = 16
    size: int = 112
    sources: int = 5
    plan: str = "auto"


class Variant:
    """One network with all that it takes to train it.

    Args:
        name: one of ``VARIANTS``.
        setting: what to run it on.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        torch.manual_seed(0)
        self.name = name
        backbone = _backbone(name, setting)
        features = backbone.num_features
        layout = torch.channels_last
        if name == "folded":
            backbone = backbone.fold()
        elif name.startswith("reference"):
            backbone, layout = reference_network(backbone), torch.contiguous_format
        self.network = nn.Sequential(backbone, nn.Linear(features, CLASSES))
        if name in ("plain", "folded"):
            self.network.to(memory_format=layout)
        self.layers = [m for m in self.network.modules() if isinstance(m, AggregatedLayer)]
        shape = (setting.batch, 3, setting.size, setting.size)
        self.images = torch.randn(shape).contiguous(memory_format=layout)
        self.labels = torch.randint(CLASSES, (setting.batch,))
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.001, momentum=0.9, nesterov=True
        )

    def train_step(self) -> None:
        """Forward, backward, the gates' moving average, optimiser."""
        self.network.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.images), self.labels).backward()
        for layer in self.layers:
            layer.update_gate_ema(layer.gate_sum / layer.gate_count, 0.1)
            layer.gate_sum, layer.gate_count = None, 0
        self.optimizer.step()

    @torch.no_grad()
    def eval_step(self) -> Tensor:
        """Forward; the mode is only changed where it differs, as in a loop over batches."""
        if self.network.training:
            self.network.eval()
        return self.network(self.images)


def _backbone(name: str, setting: Setting) -> nn.Module:
    if name == "plain":
        return PlainBackbone(setting.architecture, ["random:1"])
    sources = [f"random:{i + 1}" for i in range(setting.sources)]
    mode = "full" if name.endswith("full") else "lite"
    return ZooBackbone(setting.architecture, sources, mode=mode, plan=setting.plan)
