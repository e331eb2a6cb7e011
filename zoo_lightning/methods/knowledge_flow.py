"""Knowledge Flow: a student that looks into frozen teachers while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo_lightning.architecture import Architecture, Output, trace
from zoo_lightning.backbone import Backbone, load_architecture, plain_config
from zoo_lightning.errors import ArchitectureError, ConfigError
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.zoo import weights_wanted


class Junction(nn.Module):
    """Where the features of one stage of a student and of its teachers meet.

    ``z' = p_0 z_student + Σ_i p_i Q_i z_i`` with ``p = softmax(w)``: Liu, Peng and Schwing,
    *Knowledge Flow: Improve upon Your Teachers*, ICLR 2019, equation 1. ``Q_i`` is a 1×1
    convolution that starts as the identity, since all networks are of one architecture.

    Args:
        channels: of the stage.
        num_teachers: ``m``.
        own: ``p_0`` at the start, in (0, 1); the teachers share the rest.
    """

    def __init__(self, channels: int, num_teachers: int, own: float) -> None:
        super().__init__()
        shares = [own, *[(1 - own) / num_teachers] * num_teachers]
        self.weights = nn.Parameter(torch.tensor(shares).log())
        self.maps = nn.ModuleList(
            nn.Conv2d(channels, channels, 1, bias=False) for _ in range(num_teachers)
        )
        for layer in self.maps:
            nn.init.dirac_(layer.weight)

    def shares(self, independence: float = 0.0) -> Tensor:
        """``p``, ``(1 + m,)``, the student's own first.

        Args:
            independence: how far the student stands alone whatever the weights say, in [0, 1].
        """
        alone = torch.zeros_like(self.weights)
        alone[0] = 1.0
        return self.weights.softmax(dim=0).lerp(alone, independence)

    def forward(self, own: Tensor, taught: Sequence[Tensor], independence: float = 0.0) -> Tensor:
        """Join features ``(B, C, H, W)``, with shares as in :meth:`shares`."""
        first, *others = self.shares(independence)
        joined = first * own
        for share, layer, features in zip(others, self.maps, taught, strict=True):
            joined = joined + share * layer(features)
        return joined


class KnowledgeFlow(Backbone):
    """A student network whose stages look at those of frozen teachers in training.

    The dependence on the teachers, ``-λ Σ_stages log p_0`` (Liu et al. 2019, equation 2), is added
    to the loss with a ``λ`` that rises over the training. In a training of a few hundred steps that
    leaves the student leaning on its teachers, without whom it is evaluated, exported and used as a
    source; so here ``p_0`` is drawn to 1 besides, linearly until ``alone``. The term that keeps a
    policy near its teachers' (their equation 3) is for reinforcement learning and not part of this.

    Args:
        architecture: timm model name with stages, of student and teachers.
        sources: the teachers, at least one.
        start: index of the source whose weights the student starts from; ``None`` for random ones.
        own: share of the student's own features at the start, in (0, 1).
        dependence: ``λ`` at the end of the training; it rises linearly from 0.
        alone: share of the training after which ``p_0`` is 1, in (0, 1].
        output: ``pooled`` or ``map``.
        in_chans: channels of the input image.

    Raises:
        ArchitectureError: a network without stages that timm knows.
        ConfigError: options outside their range.
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
    ) -> None:
        parsed = parse_sources(sources)
        super().__init__(Architecture(architecture, output, in_chans), parsed)
        _check(parsed, start, own, dependence, alone, output)
        self.dependence, self.alone = dependence, alone
        self.config = plain_config(
            self.architecture, parsed, start=start, own=own, dependence=dependence, alone=alone
        )
        # Not modules of this one: they neither learn nor belong to a checkpoint.
        self._teachers: list[nn.Module] = []
        self.net = self.architecture.build()
        if weights_wanted():  # a trained student needs its teachers no more
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
        """``knowledge-flow``."""
        return "knowledge-flow"

    def prepare(self) -> None:
        """Read the teachers, unless they are there."""
        if not self._teachers:
            self.loaded = load_architecture(self.architecture, self.sources)
            networks = (self.architecture.build(adapted.state) for adapted in self.loaded)
            self._teachers = [each.eval().requires_grad_(False) for each in networks]

    @property
    def independence(self) -> float:
        """How far the student stands alone by now, in [0, 1]."""
        return min(1.0, self.progress / self.alone)

    def penalty(self) -> Tensor:
        """``-λ Σ log p_0`` with the present ``λ``: scalar."""
        own = torch.stack([each.shares(self.independence)[0] for each in self.junctions])
        return -self.dependence * self.progress * own.log().sum()

    def forward(self, x: Tensor) -> Tensor:
        """Features of images ``(B, in_chans, H, W)``: with the teachers in training only."""
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
        """Features of a teacher's stages."""
        kept: list[Tensor] = []

        def keep(index: int, features: Tensor) -> Tensor:
            kept.append(features)
            return features

        with _changed(teacher, self.stages, keep):
            self.architecture.features(teacher, x)
        return kept


@contextmanager
def _changed(network: nn.Module, names: Sequence[str], change: Any) -> Iterator[None]:
    """Let a function change what the stages of a network give, for a while."""
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
    """Names of a timm network's stages that are modules of their own, and their channels.

    Raises:
        ArchitectureError: there are none.
    """
    modules = dict(network.named_modules())
    infos = getattr(network, "feature_info", None) or []
    stages = {
        info["module"]: info["num_chs"]
        for info in infos
        # A stem's mere activation is no place to learn from.
        if info["module"] in modules and list(modules[info["module"]].parameters())
    }
    if not stages:
        raise ArchitectureError(
            f"architecture {architecture.label!r} has no stages that timm knows, at which "
            "Knowledge Flow joins student and teachers; choose a timm network such as resnet18"
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
        raise ConfigError("Knowledge Flow needs at least one teacher, got none")
    if start is not None and not 0 <= start < len(sources):
        raise ConfigError(f"start must be the number of a source below {len(sources)}, got {start}")
    if not 0 < own < 1:
        raise ConfigError(f"own must lie in (0, 1), got {own}")
    if dependence < 0:
        raise ConfigError(f"dependence must be at least 0, got {dependence}")
    if not 0 < alone <= 1:
        raise ConfigError(f"alone must lie in (0, 1], got {alone}")
    if output == "stages":
        raise ConfigError("Knowledge Flow joins stages itself; set output to pooled or map")
