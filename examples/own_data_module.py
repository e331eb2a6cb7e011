"""A data module of your own: any LightningDataModule that yields ``image`` and ``label``.

python examples/own_data_module.py
"""

from __future__ import annotations

import argparse
import math

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo_lightning import ClassificationTask, ZooBackbone


class Stripes(Dataset[dict[str, Tensor]]):
    """Drawn images of stripes in four directions, which are the classes.

    Args:
        count: number of images.
        seed: seed of their widths, phases and noise.
        size: side of an image, pixels.
    """

    def __init__(self, count: int, seed: int, size: int = 32) -> None:
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        label = index % 4
        width, phase = torch.rand(2, generator=draw).tolist()
        rows, columns = torch.meshgrid(2 * [torch.arange(self.size)], indexing="ij")
        angle = label * math.pi / 4
        place = columns * math.cos(angle) + rows * math.sin(angle)
        image = torch.sin(place / (1 + width) + 6 * phase)
        image = image + 0.5 * torch.randn(image.shape, generator=draw)
        return {"image": image.expand(3, -1, -1).float(), "label": torch.tensor(label)}


class StripesData(LightningDataModule):
    """Data module of striped images.

    Args:
        train_size: number of training images; half as many validate, and test.
        batch_size: images in a batch.
    """

    def __init__(self, train_size: int = 512, batch_size: int = 32) -> None:
        super().__init__()
        self.train_size, self.batch_size = train_size, batch_size

    def train_dataloader(self) -> DataLoader:
        """Shuffled training images."""
        return DataLoader(Stripes(self.train_size, 0), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Images to validate on."""
        return DataLoader(Stripes(self.train_size // 2, 1), self.batch_size)

    def test_dataloader(self) -> DataLoader:
        """Images to test on."""
        return DataLoader(Stripes(self.train_size // 2, 2), self.batch_size)


def main() -> None:
    """Train a lite zoo on the data module, and test it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--train_size", type=int, default=512)
    options = parser.parse_args()

    seed_everything(0, verbose=False)
    backbone = ZooBackbone(
        "test_resnet", ["builtin:tiny-imagenet50", "builtin:rotation"], mode="lite"
    )
    task = ClassificationTask(backbone, num_classes=4, lr=4e-3)
    trainer = Trainer(
        max_steps=options.steps, max_epochs=-1, logger=False, enable_checkpointing=False
    )
    data = StripesData(options.train_size)
    trainer.fit(task, data)
    trainer.test(task, data)


if __name__ == "__main__":
    main()
