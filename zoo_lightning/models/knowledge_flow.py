"""Knowledge Flow: a student that uses the features of frozen teachers in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo_lightning.errors import ArchitectureError, ConfigError
from zoo_lightning.models.architecture import Architecture, Output, trace
from zoo_lightning.models.backbone import Backbone, load_architecture, plain_config
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.zoo import weights_wanted


class Junction(nn.Module):
    """Weighted sum of one stage's features of a student and its teachers.

    ``z' = p_0 z_student + Σ_i p_i Q_i z_i`` with ``p = softmax(w)``: Liu, Peng and Schwing,
    *Knowledge Flow: Improve upon Your Teachers*, ICLR 2019, equation 1. ``Q_i`` is a 1×1
    convolution, initialised as the identity, since all networks have one architecture.

    Args:
        channels: number of channels of the stage.
        num_teachers: number of teachers ``m``.
        own: initial ``p_0``, in (0, 1); the teachers have equal parts of the rest.
    """

    def __init__(self, channels: int, num_teachers: int, own: float) -> None:
        super().__init__()
        shares = [own, *[(1 - own) / num_teachers] * num_teachers]
        self.weights = nn.Parameter(torch.tensor(shares).log())
        maps = [nn.Conv2d(channels, channels, 1, bias=False) for _ in range(num_teachers)]
        for layer in maps:
            nn.init.dirac_(layer.weight)
        self.maps = nn.ModuleList(maps)

    def shares(self, independence: float = 0.0) -> Tensor:
        """Weights ``p`` of the student, first, and the teachers, ``(1 + m,)``.

        Args:
            independence: how far ``p_0`` is moved to 1, in [0, 1].
        """
        alone = torch.zeros_like(self.weights)
        alone[0] = 1.0
        return self.weights.softmax(dim=0).lerp(alone, independence)

    def forward(self, own: Tensor, taught: Sequence[Tensor], independence: float = 0.0) -> Tensor:
        """Add up features ``(B, C, H, W)`` with the weights of :meth:`shares`.

        Args:
            own: features of the student.
            taught: features of each teacher.
            independence: how far ``p_0`` is moved to 1, in [0, 1].
        """
        first, *others = self.shares(independence)
        joined = first * own
        for share, layer, features in zip(others, self.maps, taught, strict=True):
            joined = joined + share * layer(features)
        return joined


class KnowledgeFlow(Backbone):
    """Student network that adds the stage features of frozen teachers to its own in training.

    The dependence on the teachers, ``-λ Σ_stages log p_0`` (Liu et al. 2019, equation 2), is added
    to the loss with a ``λ`` that rises over the training. The student is evaluated, exported and
    used as a source without its teachers, on which it would still depend after a few hundred
    steps; therefore ``p_0`` is also moved to 1, linearly until ``alone``. The term that keeps a
    policy near its teachers' (their equation 3) is for reinforcement learning and is left out.

    Args:
        architecture: timm name of the student's and the teachers' architecture, which must have
            stages.
        sources: teachers, at least one.
        start: index of the source with whose weights the student is initialised; ``None`` for
            random weights.
        own: initial weight ``p_0`` of the student's own features, in (0, 1).
        dependence: ``λ`` at the end of the training; it rises linearly from 0.
        alone: fraction of the training after which ``p_0`` is 1, in (0, 1].
        output: features to return: ``pooled`` or ``map``.
        in_chans: number of channels of the input image.
        mean: mean of each channel, or one for all, by which the images in [0, 1] are normalised;
            first layers of sources are transformed to it, see ``docs/preprocessing.md``. ``None``
            uses sources as they are.
        std: standard deviation that each channel is then divided by, one for each or one for all.
        image_size: side of the images in pixels, to build a timm network that is made for one size
            for another; ``None`` for its own.
        bands: names of the channels of the images, by which first layers of sources take the
            channels that they know, see ``docs/howto/bands.md``; ``None`` for red, green and blue,
            for grey, or for channels without names. On the command line it comes from the data.

    Raises:
        ArchitectureError: timm declares no stages of the network.
        ConfigError: an option is out of its range.
        SourceError: a source cannot be read or does not fit.
    """

    def __init__(
        self,
        architecture: str,
        sources: list[str | dict[str, Any]],
        start: int | None = None,
        own: float = 0.5,
        dependence: float = 1.0,
        alone: float = 0.5,
        output: Output = "pooled",
        in_chans: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        image_size: int | None = None,
        bands: list[str] | None = None,
    ) -> None:
        parsed = parse_sources(sources)
        super().__init__(
            Architecture(architecture, output, in_chans, mean, std, image_size, bands), parsed
        )
        _check(parsed, start, own, dependence, alone, output)
        self.dependence, self.alone = dependence, alone
        self.config = plain_config(
            self.architecture, parsed, start=start, own=own, dependence=dependence, alone=alone
        )
        # In a list, so that they are neither trained nor saved.
        self._teachers: list[nn.Module] = []
        self.net = self.architecture.build()
        if weights_wanted():  # a trained student does not need its teachers
            self.prepare()
            if start is not None:
                self.net.load_state_dict(self._teachers[start].state_dict())
        self.stages = stages_of(self.net, self.architecture)
        self.junctions = nn.ModuleList(
            Junction(channels, len(parsed), own) for channels in self.stages.values()
        )
        seen = trace(self.architecture, self.net)
        self.feature_shapes, self.reductions = seen.shapes, seen.reductions

    @property
    def method(self) -> str:
        """Name of the transfer method, ``knowledge-flow``."""
        return "knowledge-flow"

    def prepare(self) -> None:
        """Load the teachers, unless they are loaded already.

        Raises:
            SourceError: a source cannot be read or does not fit.
        """
        if not self._teachers:
            self.loaded = load_architecture(self.architecture, self.sources)
            networks = (self.architecture.build(adapted.state) for adapted in self.loaded)
            self._teachers = [each.eval().requires_grad_(False) for each in networks]

    @property
    def independence(self) -> float:
        """How far ``p_0`` is moved to 1 at the present progress, in [0, 1]."""
        return min(1.0, self.progress / self.alone)

    def penalty(self) -> Tensor:
        """Scalar dependence on the teachers ``-λ Σ log p_0``, with the present ``λ``."""
        junctions = [each for each in self.junctions if isinstance(each, Junction)]
        own = torch.stack([each.shares(self.independence)[0] for each in junctions])
        return -self.dependence * self.progress * own.log().sum()

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map images ``(B, in_chans, H, W)`` to features, with the teachers in training only."""
        if not (self.training and self._teachers):
            return super().forward(x)
        taught = [self._features_of(teacher.to(x.device), x) for teacher in self._teachers]
        by_stage = list(zip(*taught, strict=True))

        def join(index: int, features: Tensor) -> Tensor:
            return self.junctions[index](features, by_stage[index], self.independence)

        with _changed(self.net, self.stages, join):
            return super().forward(x)

    @torch.no_grad()
    def _features_of(self, teacher: nn.Module, x: Tensor) -> list[Tensor]:
        """Features of a teacher at all stages."""
        kept: list[Tensor] = []

        def keep(index: int, features: Tensor) -> Tensor:
            kept.append(features)
            return features

        with _changed(teacher, self.stages, keep):
            self.architecture.features(teacher, x)
        return kept


@contextmanager
def _changed(
    network: nn.Module, names: Iterable[str], change: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Replace the features of a network's stages by a function of them inside the block."""
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, features, index=index: change(index, features)
        )
        for index, name in enumerate(names)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def stages_of(network: nn.Module, architecture: Architecture) -> dict[str, int]:
    """Names of a timm network's stages that are modules, and their numbers of channels.

    Raises:
        ArchitectureError: timm declares no stages of the network.
    """
    modules = dict(network.named_modules())
    infos = getattr(network, "feature_info", None) or []
    stages = {
        info["module"]: info["num_chs"]
        for info in infos
        # Not an activation, such as that of a stem.
        if info["module"] in modules and list(modules[info["module"]].parameters())
    }
    if not stages:
        raise ArchitectureError(
            f"architecture {architecture.label!r} must be a timm network with stages, at which "
            "Knowledge Flow joins student and teachers, such as resnet18"
        )
    return stages


def _check(
    sources: Sequence[Any],
    start: int | None,
    own: float,
    dependence: float,
    alone: float,
    output: str,
) -> None:
    if not sources:
        raise ConfigError("sources must have at least one teacher for Knowledge Flow, got none")
    if start is not None and not 0 <= start < len(sources):
        raise ConfigError(f"start must be the index of a source below {len(sources)}, got {start}")
    if not 0 < own < 1:
        raise ConfigError(f"own must lie in (0, 1), got {own}")
    if dependence < 0:
        raise ConfigError(f"dependence must be at least 0, got {dependence}")
    if not 0 < alone <= 1:
        raise ConfigError(f"alone must lie in (0, 1], got {alone}")
    if output == "stages":
        raise ConfigError("output must be pooled or map for Knowledge Flow, got 'stages'")
