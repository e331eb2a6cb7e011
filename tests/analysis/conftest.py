"""A zoo of one layer in which it is known what each source is worth."""

import pytest
import torch
from torch import nn

from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import ClassificationTask


def colour_network() -> nn.Module:
    """Three channels in, three out, a batch norm after them."""
    return nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3))


def state_with(kernel: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights of a colour network with a kernel ``(3, 3)``."""
    return colour_network().state_dict() | {"0.weight": kernel[..., None, None].float()}


SEEING = torch.eye(3)
BLIND = torch.zeros(3, 3)


@pytest.fixture
def colours(class_root):
    """Three classes told apart by their colour, six images each to train on, two to test."""
    return ImageFolders(
        str(class_root), image_size=8, batch_size=4, num_workers=0, val_fraction=0.34
    )


@pytest.fixture
def task_of(tmp_path):
    """Make a task whose head reads colours, of sources with given kernels; its gates are even."""

    def make(mode: str, **kernels: torch.Tensor) -> ClassificationTask:
        sources = []
        for name, kernel in kernels.items():
            torch.save(state_with(kernel), tmp_path / f"{name}.pth")
            sources.append(str(tmp_path / f"{name}.pth"))
        start = [1 / len(sources)] * len(sources)
        backbone = ZooBackbone(colour_network, sources, mode, gate_init=start)
        task = ClassificationTask(backbone, num_classes=3)
        with torch.no_grad():
            task.head.weight.copy_(torch.eye(3))
        return task.eval()

    return make


@pytest.fixture
def seeing_and_blind(task_of):
    """A task of a source that sees colours, one that sees nothing, and a copy of the latter."""
    return lambda mode: task_of(mode, seeing=SEEING, blind=BLIND, dark=BLIND)
