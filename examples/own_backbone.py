"""A zoo of a network that timm does not know: any function that builds a ``torch.nn.Module``.

python examples/own_backbone.py --sources a.pt b.pt
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from zoo_lightning import ZooBackbone


def small_network() -> nn.Module:
    """Three convolutions without a head; a zoo needs no more than this function."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 1),
    )


def main() -> None:
    """Build a zoo of the network, train a few steps, and fold it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sources", nargs="+", default=["random:1", "random:2"], help="weights of the network"
    )
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()

    torch.manual_seed(0)
    zoo = ZooBackbone(small_network, options.sources, mode="lite")
    print(zoo.describe())
    head = nn.Linear(zoo.num_features, 2)
    optimizer = torch.optim.AdamW([*zoo.parameters(), *head.parameters()], lr=1e-3)
    for step in range(options.steps):
        labels = torch.randint(2, (16,))
        images = torch.randn(16, 3, 32, 32) + labels.view(-1, 1, 1, 1)  # told apart by brightness
        loss = nn.functional.cross_entropy(head(zoo(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")

    network = zoo.eval().fold()
    print(network)


if __name__ == "__main__":
    main()
