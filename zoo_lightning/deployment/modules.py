"""Networks for deployment: from normalised images to the outputs that the task's test evaluates."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from torch import Tensor, nn

from zoo_lightning.analysis.measuring import judge, measure_of, recalibrate
from zoo_lightning.deployment.mixtures import as_mixtures
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.nn.heads import CoordinateHead, HeatmapHead
from zoo_lightning.rl.evaluation import play_games
from zoo_lightning.sources.zoo import without_weights
from zoo_lightning.tasks import BaseTask, LandmarkTask, PPOTask
from zoo_lightning.tasks.landmarks import UNKNOWN

if TYPE_CHECKING:
    from zoo_lightning.models.architecture import Architecture

Task = TypeVar("Task", bound=BaseTask)


class _HeadedNetwork(nn.Module):
    """Network with a head on its features.

    Args:
        architecture: architecture that picks the features of the network.
        net: ordinary network, or one of mixtures, see :func:`as_mixtures`.
        head: head on the features.
    """

    def __init__(self, architecture: Architecture, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.architecture, self.net, self.head = architecture, net, head


class Scorer(_HeadedNetwork):
    """Network that returns its head's output: class scores, numbers, or undecoded landmarks."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to the output of the head."""
        return self.head(self.architecture.features(self.net, images))


class Pointer(nn.Module):
    """Network that returns landmarks.

    Args:
        raw: network that returns the undecoded output of a coordinate or heat map head.
        head: head that decodes the output; its weights are not used.
        flip: index ``(K,)`` of the point that takes the place of each point in the mirror image,
            for averaging with it; ``None`` evaluates the image alone.
    """

    flip: Tensor | None

    def __init__(
        self,
        raw: nn.Module,
        head: CoordinateHead | HeatmapHead,
        flip: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.raw = raw
        # Not the head itself: its weights belong to the network that it is part of.
        self.points, self.mirrored = head.points, head.mirrored
        self.register_buffer("flip", flip)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to points ``(B, K, 2)``, fractions of the image."""
        raw = self.raw(images)
        if self.flip is not None:
            raw = (raw + self.mirrored(self.raw(images.flip(-1)), self.flip)) / 2
        return self.points(raw)


class Actor(_HeadedNetwork):
    """Network that returns the logits of the policy and the value of the state."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Map observations ``(B, C, H, W)`` uint8 to logits ``(B, A)`` and values ``(B,)``."""
        return self.head(self.architecture.features(self.net, observations))


def deployable(task: BaseTask, mirrored: bool = False) -> nn.Module:
    """Build the network that computes what a trained task's test evaluates, on the CPU.

    Args:
        task: trained task; it is moved to the CPU. Lite zoos are folded, full zoos become mixtures
            of their sources' outputs, and an ensemble becomes one module of all its networks.
        mirrored: for landmarks, whether to average with the mirror image.

    Returns:
        The network in evaluation mode, without gradients.
    """
    task = task.cpu().eval()
    networks = [_headed(each) for each in task.networks()]
    module: nn.Module = networks[0]
    if task.ensemble is not None:
        module = task.joint(networks)
    if isinstance(task, LandmarkTask):
        head = networks[0].head
        assert isinstance(head, (CoordinateHead, HeatmapHead))
        module = Pointer(module, head, task.flip.clone() if mirrored else None)
    return module.eval().requires_grad_(False)


def is_full(task: BaseTask) -> bool:
    """Whether the network of a task is a full zoo, which computes a kernel for each sample."""
    return isinstance(task.backbone, ZooBackbone) and task.backbone.mode == "full"


def _headed(task: BaseTask) -> Actor | Scorer:
    """Deployed network of a task with one network."""
    backbone = task.backbone
    kind = Actor if isinstance(task, PPOTask) else Scorer
    if isinstance(backbone, ZooBackbone) and backbone.mode == "full":
        net = as_mixtures(backbone)
    else:
        net = backbone.fold()
    return kind(backbone.architecture, net, copy.deepcopy(task.head))


def averages_with_mirror(task: BaseTask) -> bool:
    """Whether the task's own test averages with the mirror image."""
    return isinstance(task, LandmarkTask) and knows_mirror(task) and task.flip_test


def knows_mirror(task: BaseTask) -> bool:
    """Whether the task has landmarks and knows which points swap in the mirror image."""
    return isinstance(task, LandmarkTask) and int(task.flip[0]) != UNKNOWN


class FoldedZoo(NamedTuple):
    """Full zoo folded by its average gates into an ordinary network, and its metric before.

    Attributes:
        task: task with the ordinary network.
        label: name of the validation metric.
        before: metric of the full zoo, in percent; the mean score of a policy's games.
        after: metric of the ordinary network, in percent; the mean score of a policy's games.
    """

    task: BaseTask
    label: str
    before: float
    after: float


def fold_by_average(task: BaseTask, data: Any) -> FoldedZoo:
    """Fold a full zoo by its gates' moving averages, and recalibrate the norm statistics.

    Args:
        task: trained task with a full zoo.
        data: training data: a data module of images that is set up for ``fit``, or an
            ``AtariData``.

    Raises:
        ConfigError: the task or the data module is not supported.
    """
    if isinstance(task, PPOTask):
        policy = as_plain(task)
        scores = _mean_score(task, data), _mean_score(policy, data)
        return FoldedZoo(policy, "val/episodic_return", *scores)
    plain = as_plain(task)
    recalibrate(plain, data)
    label = measure_of(task).label
    return FoldedZoo(plain, f"val, {label}", judge(task, data), judge(plain, data))


def as_plain(task: Task) -> Task:
    """Copy a task, replacing the zoo by an ordinary network with the folded weights."""
    architecture = task.backbone.architecture
    options = {key: value for key, value in task.hparams.items() if key != "backbone"}
    with without_weights():
        backbone = PlainBackbone(
            architecture.name,
            output=architecture.output,
            in_chans=architecture.in_chans,
            mean=list(architecture.mean) if architecture.mean else None,
            std=list(architecture.std) if architecture.std else None,
            image_size=architecture.image_size,
            bands=list(architecture.bands) if architecture.bands else None,
        )
    backbone.sources = task.backbone.sources
    plain = type(task)(backbone, **options)
    backbone.net.load_state_dict(task.backbone.folded_state())
    others = {k: v for k, v in task.state_dict().items() if not k.startswith("backbone.")}
    plain.load_state_dict(others, strict=False)
    return plain.eval()


def _mean_score(task: PPOTask, data: Any) -> float:
    """Mean score of the validation games."""
    envs, seed = data.eval_envs(data.val_games), data.eval_seed
    games = play_games(envs, task.player(seed), data.val_games, seed)
    return sum(game.score for game in games) / len(games)
