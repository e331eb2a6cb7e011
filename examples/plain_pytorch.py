"""A zoo in a plain PyTorch loop, without Lightning; then folded into one ordinary network.

python examples/plain_pytorch.py
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from zoo_lightning import FashionMNISTSubset, ZooBackbone


def main() -> None:
    """Train, keep the gate average as the callback does, fold, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--train_fraction", type=float, default=0.2)
    options = parser.parse_args()

    torch.manual_seed(0)
    data = FashionMNISTSubset(train_fraction=options.train_fraction, num_workers=0)
    data.setup("fit")
    zoo = ZooBackbone(
        "test_resnet",
        ["builtin:tiny-imagenet50", "builtin:segmentation", "builtin:rotation"],
        mode="lite",
        gate_init=[0.45, 0.45, 0.1],
        norm_weights="gates",
    )
    head = nn.Linear(zoo.num_features, len(data.classes))
    parameters = [*zoo.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=4e-3)
    layers = list(zoo.aggregated_layers().values())

    step = 0
    while step < options.steps:
        for batch in data.train_dataloader():
            batch = data.on_after_batch_transfer(batch, 0)  # normalised on the device
            loss = nn.functional.cross_entropy(head(zoo(batch["image"])), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for layer in layers:  # evaluation uses the moving average of the gates
                layer.update_gate_ema(layer.gate_sum / layer.gate_count, momentum=0.1)
                layer.gate_sum, layer.gate_count = None, 0
            step += 1
            if step == options.steps:
                break
    print(f"loss {loss.item():.3f} after {step} steps")

    zoo.eval()
    head.eval()
    network = zoo.fold(head)
    with torch.no_grad():
        difference = (network(batch["image"]) - head(zoo(batch["image"]))).abs().max()
    print(f"{type(network).__name__}, differs from the zoo by {difference:.0e} at most")


if __name__ == "__main__":
    main()
