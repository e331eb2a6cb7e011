"""Variants of the speed benchmark: networks with a head, a training step and an evaluation step.

Every variant fine-tunes a ``ZooBackbone`` or a plain network on random images with ten classes, by
SGD with Nesterov momentum as in the paper. Images and parameters are in the channels-last format of
the package's tasks, except for the reference, whose grouped convolution over the merged batch is
faster on contiguous ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference import reference_network
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import Align, ZooBackbone
from zoo_lightning.nn import AggregatedLayer
from zoo_lightning.nn.aggregated import update_gate_emas

VARIANTS = ("plain", "reference_full", "reference_lite", "full", "lite", "folded")
FUSED = ("plain_fused", "full_fused", "lite_fused")
"""The same with PyTorch's fused SGD."""

CLASSES = 10


@dataclass(frozen=True)
class SpeedSetting:
    """Setting of the speed benchmark.

    Attributes:
        architecture: timm name.
        batch: images in a step.
        size: side of the square images, in pixels.
        sources: number of sources.
        plan: plan of the aggregated layers.
        align: which layers of a zoo have a channel alignment.
        device: type of the device.
        precision: ``fp32``, or the type of autocast: ``bf16`` or ``fp16`` with scaled gradients.
        fused: whether the optimiser is fused.
    """

    architecture: str = "resnet50"
    batch: int = 16
    size: int = 112
    sources: int = 5
    plan: str = "auto"
    align: Align = "spatial"
    device: str = "cpu"
    precision: str = "fp32"
    fused: bool = False


class Variant:
    """Network with images, labels and an optimizer.

    Args:
        name: one of ``VARIANTS`` or ``FUSED``.
        setting: architecture, sources and images.
    """

    def __init__(self, name: str, setting: SpeedSetting) -> None:
        torch.manual_seed(0)
        if name in FUSED:
            name, setting = name.removesuffix("_fused"), replace(setting, fused=True)
        self.name = name
        backbone = _backbone(name, setting)
        features = backbone.num_features
        layout = torch.channels_last
        if name == "folded":
            backbone = backbone.fold()
        elif name.startswith("reference"):
            backbone, layout = reference_network(backbone), torch.contiguous_format
        self.network = nn.Sequential(backbone, nn.Linear(features, CLASSES)).to(setting.device)
        if name in ("plain", "folded"):
            self.network.to(memory_format=layout)
        self.layers = [m for m in self.network.modules() if isinstance(m, AggregatedLayer)]
        shape = (setting.batch, 3, setting.size, setting.size)
        images = torch.randn(shape).to(setting.device)
        self.images = images.contiguous(memory_format=layout)
        self.labels = torch.randint(CLASSES, (setting.batch,)).to(setting.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.001, momentum=0.9, nesterov=True, fused=setting.fused
        )
        dtype = {"fp16": torch.float16}.get(setting.precision, torch.bfloat16)
        self.autocast = torch.autocast(
            setting.device, dtype=dtype, enabled=setting.precision != "fp32"
        )
        self.scaler = torch.amp.GradScaler(setting.device, enabled=setting.precision == "fp16")

    def train_step(self) -> None:
        """Train one step: forward, backward, moving average of the gates, optimizer."""
        self.network.train()
        self.optimizer.zero_grad()
        with self.autocast:
            loss = F.cross_entropy(self.network(self.images).float(), self.labels)
        self.scaler.scale(loss).backward()
        update_gate_emas(self.layers, [layer.take_gate_sum() for layer in self.layers], 0.1)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    @torch.no_grad()
    def eval_step(self) -> Tensor:
        """Evaluate a batch; only the first one after training changes the mode."""
        if self.network.training:
            self.network.eval()
        with self.autocast:
            return self.network(self.images)


def _backbone(name: str, setting: SpeedSetting) -> nn.Module:
    config = timm.get_pretrained_cfg(setting.architecture)
    fixed = config is not None and config.fixed_input_size
    size = {"image_size": setting.size} if fixed else {}
    if name == "plain":
        return PlainBackbone(setting.architecture, ["random:1"], **size)
    sources = [f"random:{i + 1}" for i in range(setting.sources)]
    mode = "full" if name.endswith("full") else "lite"
    options: dict[str, Any] = {"mode": mode, "plan": setting.plan, "align": setting.align, **size}
    return ZooBackbone(setting.architecture, sources, **options)
