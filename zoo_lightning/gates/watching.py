"""What gates say of single samples: by class, by moment of a game, by anything else.

In evaluation lite layers compute with their moving average and never ask their gates; here they are
asked all the same, so that the two modes can be compared. Letters: ``N`` samples, ``L`` layers,
``m`` sources, ``G`` groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_lightning.backbone import ZooBackbone

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

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

    def mean_by_band(
        self, quantity: ArrayLike, edges: Sequence[float], unit: str = ""
    ) -> tuple[WatchedGates, list[str]]:
        """Means over bands of a quantity, such as the angle that a head is turned by.

        Args:
            quantity: ``(N,)`` of the samples; those where it is NaN are left out.
            edges: between the bands, ascending; the first and the last band have no other end.
            unit: written behind the numbers.

        Returns:
            With values ``(E + 1, L, m)``, NaN for an empty band; and the bands' names, with the
            number of samples in each.

        Raises:
            ValueError: edges that do not ascend, or another number of samples.
        """
        values, ends = torch.as_tensor(quantity, dtype=torch.float64).contiguous(), list(edges)
        if not ends or any(low >= high for low, high in pairwise(ends)):
            raise ValueError(f"edges {ends}; expected at least one, ascending")
        if values.shape != (len(self.values),):
            raise ValueError(
                f"a quantity of shape {tuple(values.shape)} for the gates of {len(self.values)} "
                "samples; expected a number for each"
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
        """How far each sample or group is from the mean of all of them, in [-1, 1]."""
        return replace(self, values=self.values - self.values.nanmean(dim=0))


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
