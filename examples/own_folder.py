"""Train a classifier on a folder of images from a zoo of shipped sources, and test it.

python examples/own_folder.py DIR        # DIR has train/CLASS/ and test/CLASS/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything

from zoo_lightning import ClassificationTask, ImageFolders, ZooBackbone, informed_start

SOURCES = ["builtin:tiny-imagenet50", "builtin:segmentation", "builtin:rotation"]


def main() -> None:
    """Train, test, and print what the gates have learned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="has train/CLASS/ and test/CLASS/")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--workers", type=int, help="processes that read images")
    options = parser.parse_args()

    seed_everything(0, verbose=False)
    data = ImageFolders(
        root=str(options.folder), batch_size=options.batch_size, num_workers=options.workers
    )
    # Which sources to start from? The training data say it, before any training.
    start = informed_start("test_resnet", SOURCES, data, "greedy")
    backbone = ZooBackbone(
        "test_resnet", SOURCES, mode="lite", gate_init=start, norm_weights="gates"
    )
    task = ClassificationTask(backbone, num_classes=len(data.classes), lr=8e-3)

    trainer = Trainer(
        max_steps=options.steps, max_epochs=-1, logger=False, enable_checkpointing=False
    )
    trainer.fit(task, data)
    trainer.test(task, data)
    for name, layer in backbone.aggregated_layers().items():
        print(name, [f"{gate:.2f}" for gate in layer.gate_ema.tolist()])


if __name__ == "__main__":
    main()
