"""Facial landmarks: K points as coordinates from pooled features, or as heat maps."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo_lightning.backbone import Backbone
from zoo_lightning.data.codec import FractionCodec, to_original
from zoo_lightning.errors import ConfigError
from zoo_lightning.heads import CoordinateHead, HeatmapHead
from zoo_lightning.heads.heatmap_codec import Decoding
from zoo_lightning.metrics.landmarks import LandmarkErrors
from zoo_lightning.tasks.base import BaseTask

MEAN_SHAPE_SAMPLES = 256
"""Training samples, spread evenly, whose mean shape a head of coordinates starts from."""

UNKNOWN = -1
"""In place of the points that swap in a mirror image, as long as no data have told them."""

HeadKind = Literal["coordinates", "heatmaps"]
Normalization = Literal["interocular", "interpupil", "box", "diagonal", "height", "given", "custom"]
Loss = Literal["l1", "smooth_l1", "wing", "mse", "heatmap_mse", "adaptive_wing"]


class LandmarkTask(BaseTask):
    """``K`` points of an image.

    Logs, for validation and test: ``nme`` (percent of the normalising distance), ``failure_rate``
    (percent of images with an error above the threshold), ``auc`` (of the cumulative error curve
    up to the threshold, in [0, 1]), ``nme_NAME`` for every other normalisation that the data have,
    and ``nme/SUBSET``, ``failure_rate/SUBSET``, ``auc/SUBSET`` for every subset of the data.

    Args:
        backbone: with pooled features for ``coordinates``; with ``stages`` or a feature ``map``
            for ``heatmaps``.
        num_points: ``K``; the command line takes it from the data.
        head: ``coordinates``, a linear function of pooled features, or ``heatmaps``.
        loss: of coordinates ``l1``, ``smooth_l1``, ``wing`` or ``mse``; of heat maps also
            ``heatmap_mse`` or ``adaptive_wing``.
        decode: heat maps to points: ``soft_argmax``, ``argmax`` or ``taylor``; a loss of
            coordinates needs the first.
        heatmap_stride: pixels of the input that a cell of a heat map spans.
        sigma: standard deviation of the Gaussians that heat maps learn, cells.
        heatmap_weight: with ``soft_argmax`` and a loss of coordinates, weight of the cross-entropy
            between the maps and such Gaussians.
        head_width: channels of the heat maps' last hidden layer; ``None`` as HRNet, at most 256.
        normalization: distance that errors are divided by, one of those the data have:
            ``interocular``, ``interpupil``, ``box``, ``diagonal``, ``height``, ``given``,
            ``custom``.
        thresholds: of failure rate and area under the curve, fractions of that distance; the
            first is logged as ``failure_rate`` and ``auc``, others as ``failure_rate@T``.
        flip_test: average the outputs for an image and for its mirror image, except in training.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: options that contradict each other, the backbone or the data.
    """

    monitor: ClassVar[str] = "val/nme"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"
    head: CoordinateHead | HeatmapHead
    flip: Tensor

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
        _check_numbers(heatmap_stride, sigma, heatmap_weight, head_width, thresholds)
        self.num_points = num_points
        self.normalization = normalization
        self.thresholds = tuple(thresholds)
        self.flip_test = flip_test
        self.codec = FractionCodec()
        if head == "coordinates":
            if loss in ("heatmap_mse", "adaptive_wing"):
                raise ConfigError(
                    f"loss {loss!r} is of heat maps; use it with head: heatmaps, or choose l1, "
                    "smooth_l1, wing or mse"
                )
            self.head = CoordinateHead(backbone.num_features, num_points, loss)
        else:
            self.head = HeatmapHead(
                [shape[0] for shape in backbone.feature_shapes],
                backbone.reductions,
                num_points,
                loss,
                decode,
                heatmap_stride,
                sigma,
                heatmap_weight,
                head_width,
            )
        self.errors = nn.ModuleDict()  # a module, so that it moves to the device with the task
        # A buffer, so that a checkpoint alone is enough for averaging with the mirror image.
        self.register_buffer("flip", torch.full((num_points,), UNKNOWN))

    def setup(self, stage: str) -> None:
        """Check that head and data agree, before anything runs."""
        self.check_data(getattr(self.trainer, "datamodule", None))

    def check_data(self, data: Any) -> None:
        """Check that the data have the head's points, and take from them what metrics need.

        Args:
            data: the data module, or ``None`` for a task without one.

        Raises:
            ConfigError: other points, no such distance, or unknown mirror images.
        """
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
        for part in ("val", "test"):
            self.errors[part] = LandmarkErrors(
                points, self.normalization, self.thresholds, others, subsets
            )

    def on_fit_start(self) -> None:
        """Let a new head of coordinates start from the training set's mean shape."""
        super().on_fit_start()
        train_set = getattr(getattr(self.trainer, "datamodule", None), "train_set", None)
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
        """Points ``(B, K, 2)``, fractions of the image, from normalised images."""
        return self.head.points(self._output(images))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        target = self.codec.encode(batch["points"], image_size(batch))
        # What does not count may be anything, and not-a-number would spread to all gradients.
        target = torch.where(batch["visible"][..., None], target, 0.5)
        raw = self(batch["image"]).float()
        loss = self.head.loss(raw, target, batch["visible"])
        loss = self.whole_loss(loss, batch["image"], raw)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """The loss with the teacher's points in place of the true ones."""
        return self.head.loss(raw, self.head.points(taught))

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Predicted points in pixels of the ``input`` and of the ``original`` image.

        With heat maps these too, as ``heatmaps`` ``(B, K, h, w)``, at least 0.
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
        """Update the validation metrics; gives the predictions to the callbacks."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Update the test metrics; gives the predictions to the callbacks."""
        return self._evaluate(batch, "test")

    def _evaluate(self, batch: dict[str, Any], part: str) -> dict[str, Any]:
        found = self.predict_step(batch)
        self.errors[part].update(
            found["original"],
            batch["original"],
            batch["distances"],
            batch["visible"],
            batch["subsets"],
        )
        return found | {"distance": batch["distances"][self.normalization]}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics over all processes."""
        self._log_errors("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics over all processes."""
        self._log_errors("test")

    def _log_errors(self, part: str) -> None:
        values = self.errors[part].compute()
        self.log_dict({f"{part}/{name}": value for name, value in values.items()})
        self.errors[part].reset()


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
    """Width and height of a batch's images, pixels."""
    height, width = batch["image"].shape[-2:]
    return width, height
