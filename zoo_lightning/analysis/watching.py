"""Recording of gates sample by sample, and averages by class or any other quantity.

In evaluation lite layers compute with the gates' moving average; here their gates are computed as
well, so that both modes can be compared. Letters: ``N`` samples, ``L`` layers, ``m`` sources, ``G``
groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_lightning.models.backbone import ZooBackbone

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from zoo_lightning.rl.environments.atari import AtariEnvs
    from zoo_lightning.tasks.ppo import PPOTask


@dataclass(frozen=True)
class WatchedGates:
    """Gates of every layer for every sample, or averages over groups of samples.

    Attributes:
        values: gates in [0, 1], ``(N, L, m)``.
        layers: names of the layers, in the order of the network.
        sources: names of the sources.
    """

    values: Tensor
    layers: list[str]
    sources: list[str]

    def mean_by(self, groups: Tensor, count: int) -> WatchedGates:
        """Average gates over groups of samples.

        Args:
            groups: group of each sample, ``(N,)``, integers in [0, count).
            count: number of groups ``G``.

        Returns:
            Average gates with values ``(G, L, m)``; NaN for a group without samples.
        """
        rows = [self.values[groups == group].mean(dim=0) for group in range(count)]
        return WatchedGates(torch.stack(rows), self.layers, self.sources)

    def mean_by_band(
        self, quantity: ArrayLike, edges: Sequence[float], unit: str = ""
    ) -> tuple[WatchedGates, list[str]]:
        """Average gates over intervals of a quantity, such as the angle of a head.

        Args:
            quantity: quantity of each sample, ``(N,)``; samples where it is NaN are left out.
            edges: ascending edges between the intervals, ``E`` numbers; the first and the last
                interval are unbounded.
            unit: text, such as a unit, that is appended to the intervals' names.

        Returns:
            Average gates with values ``(E + 1, L, m)``, NaN for an empty interval; and the names of
            the intervals with their numbers of samples.

        Raises:
            ValueError: the edges do not ascend, or there is not one quantity for each sample.
        """
        values, ends = torch.as_tensor(quantity, dtype=torch.float64).contiguous(), list(edges)
        if not ends or any(low >= high for low, high in pairwise(ends)):
            raise ValueError(f"edges must ascend, one or more, got {ends}")
        if values.shape != (len(self.values),):
            raise ValueError(
                f"quantity must have one number for each of {len(self.values)} samples, got the "
                f"shape {tuple(values.shape)}"
            )
        groups = torch.bucketize(values, torch.tensor(ends, dtype=torch.float64), right=True)
        groups[values.isnan()] = -1
        spans = [f"below {ends[0]:g}", *(f"{low:g} to {high:g}" for low, high in pairwise(ends))]
        names = [
            f"{span}{unit} ({int((groups == group).sum())})"
            for group, span in enumerate([*spans, f"from {ends[-1]:g}"])
        ]
        return self.mean_by(groups, len(names)), names

    def without_mean(self) -> WatchedGates:
        """Subtract the mean gates over all samples or groups; differences are in [-1, 1]."""
        return replace(self, values=self.values - self.values.nanmean(dim=0))


@contextmanager
def watched(backbone: ZooBackbone) -> Iterator[Callable[[], WatchedGates]]:
    """Record each sample's gates inside the block.

    Args:
        backbone: zoo in evaluation mode.

    Yields:
        Function that returns the gates recorded so far; it raises ``ValueError`` if there are none.
    """
    layers = backbone.aggregated_layers()
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def note(name: str) -> Callable:
        layer = layers[name]

        def hook(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            with torch.no_grad():
                seen[name].append(layer.gate(layer.pool(inputs[0])).cpu())

        return hook

    def found() -> WatchedGates:
        if not all(seen.values()):
            raise ValueError("the backbone must run inside the block that records its gates")
        values = torch.stack([torch.cat(rows) for rows in seen.values()], dim=1)
        return WatchedGates(values, list(layers), [source.name for source in backbone.sources])

    with ExitStack() as undo:
        for name, layer in layers.items():
            undo.callback(layer.register_forward_pre_hook(note(name)).remove)
        yield found


@torch.no_grad()
def watch_images(backbone: ZooBackbone, batches: Iterable[Tensor]) -> WatchedGates:
    """Record the gates of images.

    Args:
        backbone: zoo in evaluation mode.
        batches: normalised images ``(B, C, H, W)``, on the backbone's device.

    Raises:
        ValueError: there are no batches.
    """
    with watched(backbone) as found:
        for images in batches:
            backbone(images)
        return found()


def watch_game(task: PPOTask, envs: AtariEnvs, seed: int = 0) -> tuple[WatchedGates, float]:
    """Record the gates of a policy at each decision of one game.

    Args:
        task: PPO task with a zoo as backbone, in evaluation mode.
        envs: vector environment with one game.
        seed: seed of the game and of the actions.

    Returns:
        The gates of ``N`` decisions in their order, and the score of the game.

    Raises:
        TypeError: the task's backbone is not a zoo.
    """
    if not isinstance(task.backbone, ZooBackbone):
        raise TypeError(f"backbone must be a ZooBackbone, got {type(task.backbone).__name__}")
    act = task.player(seed)
    observations = envs.reset(seed)
    with watched(task.backbone) as found:
        while True:
            step = envs.step(act(observations))
            observations = step.observations
            if step.games:
                return found(), float(step.games[0].score)
