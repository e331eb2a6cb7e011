"""Facial landmarks as coordinates from pooled features, or as heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo_lightning.data.landmarks.codec import FractionCodec, to_original
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.joint_output import MeanPoints
from zoo_lightning.metrics.landmarks import LandmarkErrors
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.nn.heads import CoordinateHead, HeatmapHead
from zoo_lightning.nn.heads.heatmap_codec import Decoding
from zoo_lightning.tasks.base import BaseTask, check_targets

MEAN_SHAPE_SAMPLES = 256
"""Number of training samples, spread evenly, whose mean shape initialises a coordinate head."""

UNKNOWN = -1
"""Value of the ``flip`` buffer until data define which points swap in a mirror image."""

HeadKind = Literal["coordinates", "heatmaps"]
Normalization = Literal["interocular", "interpupil", "box", "diagonal", "height", "given", "custom"]
Loss = Literal["l1", "smooth_l1", "wing", "mse", "heatmap_mse", "adaptive_wing"]


class LandmarkTask(BaseTask):
    """Predict ``K`` landmarks of an image, as coordinates or heat maps.

    Logs, for validation and test: ``nme`` (percent of the normalising distance), ``failure_rate``
    (percent of images with an error above the threshold), ``auc`` (of the cumulative error curve
    up to the threshold, in [0, 1]), ``nme_NAME`` for every other normalisation that the data have,
    and ``nme/SUBSET``, ``failure_rate/SUBSET``, ``auc/SUBSET`` for every subset of the data.

    Args:
        backbone: network with pooled features for ``coordinates``; with ``stages`` or a feature
            ``map`` for ``heatmaps``.
        num_points: number ``K`` of points; the command line takes it from the data.
        head: ``coordinates`` for a linear layer on pooled features, or ``heatmaps``.
        loss: loss of coordinates, ``l1``, ``smooth_l1``, ``wing`` or ``mse``; with ``heatmaps``
            also a loss of heat maps, ``heatmap_mse`` or ``adaptive_wing``.
        decode: how points are read from heat maps: ``soft_argmax``, ``argmax`` or ``taylor``; a
            loss of coordinates needs ``soft_argmax``.
        heatmap_stride: input pixels per heat map cell, a power of two.
        sigma: standard deviation of the heat maps' target Gaussians, heat map cells.
        heatmap_weight: weight, at least 0, of an additional cross-entropy between heat maps and
            target Gaussians, for ``soft_argmax`` with a loss of coordinates.
        head_width: channels of the heat map head's last hidden layer; ``None`` as in HRNet, but at
            most 256.
        normalization: distance that errors are divided by, one of those the data have:
            ``interocular``, ``interpupil``, ``box``, ``diagonal``, ``height``, ``given``,
            ``custom``.
        thresholds: thresholds of failure rate and area under the curve, fractions of that distance;
            the first is logged as ``failure_rate`` and ``auc``, others as ``failure_rate@T``.
        flip_test: average the outputs for an image and for its mirror image, except in training.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: an option is outside its range, or contradicts another one, the backbone or the
            data.
    """

    monitor: ClassVar[str] = "val/nme"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"
    head: CoordinateHead | HeatmapHead
    flip: Tensor
    """Index ``(K,)`` of the point that each point becomes in a mirror image."""

    def __init__(
        self,
        backbone: Backbone,
        num_points: int = 68,
        head: HeadKind = "coordinates",
        loss: Loss = "wing",
        decode: Decoding = "soft_argmax",
        heatmap_stride: int = 4,
        sigma: float = 1.5,
        heatmap_weight: float = 0.0,
        head_width: int | None = None,
        normalization: Normalization = "interocular",
        thresholds: tuple[float, ...] = (0.10,),
        flip_test: bool = False,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        _check_features(head, backbone)
        if head == "coordinates" and loss in ("heatmap_mse", "adaptive_wing"):
            raise ConfigError(
                f"loss {loss!r} is of heat maps; use it with head: heatmaps, or choose l1, "
                "smooth_l1, wing or mse"
            )
        _check_numbers(heatmap_stride, sigma, heatmap_weight, head_width, thresholds)
        self.num_points = num_points
        self.head_kind, self.loss = head, loss
        self.decode, self.heatmap_stride = decode, heatmap_stride
        self.sigma, self.heatmap_weight, self.head_width = sigma, heatmap_weight, head_width
        self.normalization = normalization
        self.thresholds = tuple(thresholds)
        self.flip_test = flip_test
        self.codec = FractionCodec()
        self.configure_models()
        self.configure_losses()
        self.configure_metrics()
        # A buffer, so that a checkpoint alone is enough for averaging with the mirror image.
        self.register_buffer("flip", torch.full((num_points,), UNKNOWN))

    def configure_models(self) -> None:
        """Create the head, coordinates or heat maps, which includes the loss."""
        if self.head_kind == "coordinates":
            self.head = CoordinateHead(self.backbone.num_features, self.num_points, self.loss)
        else:
            self.head = HeatmapHead(
                [shape[0] for shape in self.backbone.feature_shapes],
                self.backbone.reductions,
                self.num_points,
                self.loss,
                self.decode,
                self.heatmap_stride,
                self.sigma,
                self.heatmap_weight,
                self.head_width,
            )

    def configure_metrics(self) -> None:
        """Create the metrics of validation and test, for the main distance alone.

        :meth:`check_data` replaces them once the data's further distances and subsets are known.
        """
        self.val_errors, self.test_errors = self._errors(), self._errors()

    def _errors(self, others: Sequence[str] = (), subsets: Sequence[str] = ()) -> LandmarkErrors:
        return LandmarkErrors(self.num_points, self.normalization, self.thresholds, others, subsets)

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the losses and metrics that the task logs; ``*`` stands for what the data define."""
        further = [*(options.get("thresholds") or ())][1:]
        ends = ["", *(f"@{threshold:g}" for threshold in further)]
        rates = [f"{what}{end}" for end in ends for what in ("failure_rate", "auc")]
        of_subsets = [f"{name}/*" for name in ("nme", "failure_rate", "auc")]
        names = ["nme", *rates, "nme_*", *of_subsets]
        return ["train/loss", *(f"{part}/{name}" for part in ("val", "test") for name in names)]

    def setup(self, stage: str) -> None:
        """Check that head and data have the same points, and create the metrics."""
        self.check_data(self.data())

    def check_data(self, data: Any) -> None:
        """Check that the data have the head's points, and create the metrics for them.

        Args:
            data: data module, or ``None`` for a task without one.

        Raises:
            ConfigError: the data have other points, lack the distance that errors are divided by,
                or do not define which points swap in a mirror image although ``flip_test`` is set.
        """
        check_targets(data, "points")
        points = getattr(data, "num_points", self.num_points)
        if points != self.num_points:
            raise ConfigError(
                f"the head predicts {self.num_points} points, the data have {points}; give data "
                f"of {self.num_points} points or train a head of {points} (num_points)"
            )
        known = tuple(getattr(data, "normalizations", (self.normalization,)))
        if self.normalization not in known:
            eyes = "; name the eyes with --data.eyes" if "ocular" in self.normalization else ""
            raise ConfigError(
                f"these data have no distance {self.normalization!r} to divide errors by; they "
                f"have {', '.join(known)}: use --model.normalization {known[0]}{eyes}"
            )
        flip = getattr(getattr(data, "scheme", None), "flip", None)
        if flip is not None:
            self.flip.copy_(torch.tensor(flip))
        if self.flip_test and flip is None and data is not None:
            raise ConfigError(
                f"flip_test needs to know which of the {points} points swap in a mirror image; "
                "give --data.flip_pairs, or set flip_test: false"
            )
        others = [name for name in known if name != self.normalization]
        subsets = getattr(data, "subset_names", ())
        self.val_errors = self._errors(others, subsets)
        self.test_errors = self._errors(others, subsets)

    def on_fit_start(self) -> None:
        """Initialise a new coordinate head with the training set's mean shape."""
        super().on_fit_start()
        train_set = getattr(self.data(), "train_set", None)
        if self.trainer.ckpt_path is not None or self.weights_given or train_set is None:
            return
        if not isinstance(self.head, CoordinateHead):
            return
        stride = max(len(train_set) // MEAN_SHAPE_SAMPLES, 1)
        samples = [train_set[0, i] for i in range(0, len(train_set), stride)]
        # Points that nobody annotated have no place; the few others of the sample do.
        size = samples[0]["image"].shape[-1], samples[0]["image"].shape[-2]
        shapes = self.codec.encode(torch.stack([s["points"] for s in samples]), size)
        seen = torch.stack([s["visible"] for s in samples])[..., None]
        mean = torch.where(seen, shapes, 0.0).sum(0) / seen.sum(0).clamp(min=1)
        self.head.start_from(torch.where(seen.any(0), mean, 0.5))

    def points(self, images: Tensor) -> Tensor:
        """Predict points ``(B, K, 2)``, fractions of the image, from normalised images."""
        return self.head.points(self._output(images))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute the loss of a batch: ``image`` ``(B, 3, H, W)``, ``points``, ``visible``."""
        target = self.codec.encode(batch["points"], image_size(batch))
        # What does not count may be anything, and not-a-number would spread to all gradients.
        target = torch.where(batch["visible"][..., None], target, 0.5)
        raw = self(batch["image"]).float()
        loss = self.head.loss(raw, target, batch["visible"])
        loss = self.whole_loss(loss, batch["image"], raw)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Compute the loss against the teachers' points instead of the true ones.

        Args:
            raw: output of this task's head.
            taught: output of such a head, or points ``(B, K, 2)``.
        """
        return self.head.loss(raw, taught if taught.dim() == 3 else self.head.points(taught))

    def lesson(
        self, networks: Sequence[BaseTask], runs: Sequence[Sequence[nn.Module]]
    ) -> nn.Module:
        """Build the network that computes the teachers' mean output, or their mean points.

        Points are averaged where heads are of other kinds than this task's or than one another.

        Args:
            networks: tasks of all networks of all teachers.
            runs: for each teacher its networks, which map this task's images to outputs.
        """
        kinds = {each.describe_outputs() for each in networks}
        if len(kinds) == 1 and isinstance(networks[0].head, type(self.head)):
            return super().lesson(networks, runs)
        return MeanPoints(runs, [each.head for each in networks])

    def averages_probabilities(self) -> bool:
        """Whether ensembles average probabilities: for heat maps with ``soft_argmax``."""
        return isinstance(self.head, HeatmapHead) and self.head.decode == "soft_argmax"

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Predict points ``(B, K, 2)`` in pixels of the ``input`` and of the ``original`` image.

        With a heat map head, the result also has ``heatmaps`` ``(B, K, h, w)``, at least 0.
        """
        raw = self._output(batch["image"])
        points = self.codec.decode(self.head.points(raw), image_size(batch))
        found = {"input": points, "original": to_original(points, batch["to_original"])}
        if isinstance(self.head, HeatmapHead):
            found["heatmaps"] = self.head.heatmaps(raw)
        return found

    def _output(self, images: Tensor) -> Tensor:
        """The head's output in float32, averaged with the mirror image's if that is wanted."""
        raw = self(images).float()
        if self.flip_test and not self.training and self.flip[0] != UNKNOWN:
            mirrored = self.head.mirrored(self(images.flip(-1)).float(), self.flip)
            raw = (raw + mirrored) / 2
        return raw

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Update the validation metrics; return the predictions for callbacks."""
        return self._evaluate(batch, self.val_errors)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Update the test metrics; return the predictions for callbacks."""
        return self._evaluate(batch, self.test_errors)

    def _evaluate(self, batch: dict[str, Any], errors: LandmarkErrors) -> dict[str, Any]:
        found = self.predict_step(batch)
        errors.update(
            found["original"],
            batch["original"],
            batch["distances"],
            batch["visible"],
            batch["subsets"],
        )
        return found | {"distance": batch["distances"][self.normalization]}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics over all processes."""
        self._log_errors("val", self.val_errors)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics over all processes."""
        self._log_errors("test", self.test_errors)

    def _log_errors(self, part: str, errors: LandmarkErrors) -> None:
        values = errors.compute()
        self.log_dict({f"{part}/{name}": value for name, value in values.items()})
        errors.reset()


def _check_features(head: str, backbone: Backbone) -> None:
    shapes = backbone.feature_shapes
    pooled = len(shapes) == 1 and len(shapes[0]) == 1
    if pooled == (head == "coordinates"):
        return
    wanted = "pooled" if head == "coordinates" else "stages (or map)"
    raise ConfigError(
        f"head {head!r} needs other features than the backbone's "
        f"{backbone.architecture.output!r}; set backbone.output to {wanted}"
    )


def _check_numbers(
    stride: int, sigma: float, weight: float, width: int | None, thresholds: tuple[float, ...]
) -> None:
    if stride < 1 or stride & (stride - 1):
        raise ConfigError(f"heatmap_stride must be a power of two, got {stride}")
    if not sigma > 0:
        raise ConfigError(f"sigma must be above 0, got {sigma}")
    if weight < 0:
        raise ConfigError(f"heatmap_weight must be at least 0, got {weight}")
    if width is not None and width < 1:
        raise ConfigError(f"head_width must be at least 1, got {width}")
    if not thresholds or not all(value > 0 for value in thresholds):
        raise ConfigError(f"thresholds must be numbers above 0, got {list(thresholds)}")


def image_size(batch: dict[str, Any]) -> tuple[int, int]:
    """Width and height of a batch's images ``(B, C, H, W)``, pixels."""
    height, width = batch["image"].shape[-2:]
    return width, height
