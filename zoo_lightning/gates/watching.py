"""What gates say of single samples: by class, by moment of a game, by anything else.

In evaluation lite layers compute with their moving average and never ask their gates; here they are
asked all the same, so that the two modes can be compared. Letters: ``N`` samples, ``L`` layers,
``m`` sources, ``G`` groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_lightning.backbone import ZooBackbone

if TYPE_CHECKING:
    from zoo_lightning.envs.atari import AtariEnvs
    from zoo_lightning.tasks.ppo import PPOTask


@dataclass(frozen=True)
class WatchedGates:
    """Gates of every layer for every sample, or for every group of samples.

    Attributes:
        values: ``(N, L, m)`` in [0, 1].
        layers: names, in the order of the network.
        sources: names.
    """

    values: Tensor
    layers: list[str]
    sources: list[str]

    def mean_by(self, groups: Tensor, count: int) -> WatchedGates:
        """Means over groups of samples.

        Args:
            groups: ``(N,)`` integers in [0, count).
            count: ``G``.

        Returns:
            With values ``(G, L, m)``; NaN for a group without samples.
        """
        rows = [self.values[groups == group].mean(dim=0) for group in range(count)]
        return WatchedGates(torch.stack(rows), self.layers, self.sources)


@contextmanager
def watched(backbone: ZooBackbone) -> Iterator[Callable[[], WatchedGates]]:
    """Note each sample's gates in all that is computed meanwhile.

    Args:
        backbone: in evaluation mode.

    Yields:
        What gives the gates seen so far; it raises ``ValueError`` before there are any.
    """
    layers = backbone.aggregated_layers()
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def note(name: str) -> Callable:
        def hook(layer: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            with torch.no_grad():
                seen[name].append(layer.gate(layer.pool(inputs[0])).cpu())

        return hook

    def found() -> WatchedGates:
        if not all(seen.values()):
            raise ValueError("nothing has run through the backbone while its gates were watched")
        values = torch.stack([torch.cat(rows) for rows in seen.values()], dim=1)
        return WatchedGates(values, list(layers), [source.name for source in backbone.sources])

    with ExitStack() as undo:
        for name, layer in layers.items():
            undo.callback(layer.register_forward_pre_hook(note(name)).remove)
        yield found


@torch.no_grad()
def watch_images(backbone: ZooBackbone, batches: Iterable[Tensor]) -> WatchedGates:
    """Gates of images.

    Args:
        backbone: in evaluation mode.
        batches: normalised images ``(B, C, H, W)``, on the backbone's device.
    """
    with watched(backbone) as found:
        for images in batches:
            backbone(images)
        return found()


def watch_game(task: PPOTask, envs: AtariEnvs, seed: int = 0) -> tuple[WatchedGates, float]:
    """Gates of a policy at each decision of one game.

    Args:
        task: with a zoo, in evaluation mode.
        envs: of one game at a time.
        seed: of the game.

    Returns:
        The gates, ``N`` decisions in their order, and the score.
    """
    act = task.player(seed)
    observations = envs.reset(seed)
    with watched(task.backbone) as found:
        while True:
            step = envs.step(act(observations))
            observations = step.observations
            if step.games:
                return found(), float(step.games[0].score)
