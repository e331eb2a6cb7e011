"""What the data modules of annotated faces share: splits, crops, checks, samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from zoo_lightning.data.augmentation import NO_AUGMENTATION, Augmentation, reach
from zoo_lightning.data.distances import (
    face_distances,
    groups_between,
    normalizations_of,
    tight_box,
)
from zoo_lightning.data.images import SquareImages, check_present, image_size
from zoo_lightning.data.landmark_sets import EvaluationSet, TrainSet
from zoo_lightning.data.loading import IMAGENET_MEAN, IMAGENET_STD, ImageDataModule
from zoo_lightning.data.schemes import LandmarkScheme, scheme_for
from zoo_lightning.data.splitting import check_pattern, person_of, random_subset, split_by_group
from zoo_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pathlib import Path

    from zoo_lightning.data.landmark_table import LandmarkTable

CACHE_RATIO = 1.5
"""Training images are cached at this multiple of the input's side: the warp that follows is
bilinear, sharp enough when it enlarges and free of aliasing when it shrinks."""

FACE_MARGIN = 1.25
"""Factor on the side of a face's square, as the authors of HRNet have it."""

LARGEST_CONTEXT = 2.0
"""Training crops are cached with the surroundings that turning, shifting and shrinking may bring
into sight, up to this multiple of the face's square; beyond it is black."""


class LandmarkData(ImageDataModule, ABC):
    """Faces with landmarks in files: a part to train on, split for validation, and a part to test.

    The test part is never trained on and alone is enough for testing. Everything is checked before
    the first step. A subclass says how a part is read. What it knows of its files, the attributes
    below, it sets before it calls ``__init__``.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: loader processes; ``None`` takes one less than the cores, at most 4.
        seed: of the order, the augmentation and the validation split.
        val_fraction: of the training part's faces, kept for validation, in (0, 1).
        group_pattern: regular expression; what remains of a file's stem after removing what it
            matches is the person, who is wholly trained on or wholly validated on. An empty
            pattern takes each image for a person of its own.
        train_fraction: of the faces left for training, that are used, in (0, 1]; a smaller fraction
            is a subset of a larger one. Validation stays the same.
        scheme: name of a landmark scheme (``ibug68``, ``wflw98``, ``cofw29``, ``aflw19``,
            ``faces5``); ``None`` recognises them by the number of points.
        flip_pairs: own pairs of points that swap under mirroring, in place of a scheme.
        eyes: two groups of indices whose means are the inter-ocular distance apart.
        distance_between: two groups of indices whose means are the distance ``custom`` apart.
        normalizations: distances to compute for evaluation; ``None`` computes all that the data
            have of ``interocular``, ``interpupil``, ``box``, ``diagonal``, ``height``, ``given``
            and ``custom``.
        augment: how far training images are varied; ``true`` for the defaults, ``false`` for none.
        count_occluded: whether hidden points that are labelled count in training and evaluation.
        box: square that is cut out around a face: the one ``given`` in the files, one around the
            ``points``, or the whole ``image``; ``auto`` takes the given one if there is one.
        margin: factor on the side of the square that is cut out; ``None`` takes 1.25 around faces
            and 1 for whole images. Below 1, whole images lose their rim: worth it where all faces
            are in the middle.
        cache_mb: megabytes of decoded images to keep, per split; beyond it they are decoded each
            time.
        mean: subtracted from each channel of an image in [0, 1].
        std: what each channel is then divided by.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong; on construction only if the number of points
            cannot be read.
    """

    BOX_WITHOUT_GIVEN: Literal["points", "image"] = "points"
    """What ``box: auto`` means for files without squares."""

    files: dict[str, Path]
    """What each part, ``train`` and ``test``, is read from, for reading and for messages."""

    image_folder: Path
    """What images' names are relative to, where images are files."""

    named: tuple[tuple[str, str], ...] = ()
    """Options that name the file to train on, with their values."""

    num_points: int
    """K, known from construction on."""

    given_distance: bool = False
    """Whether a distance to divide errors by comes with the data."""

    _around: Literal["face", "image"] = "image"

    subset_names: tuple[str, ...] = ()
    """Parts of the data that evaluation tells apart, in the order of a sample's ``subsets``."""

    def __init__(
        self,
        image_size: int = 256,
        batch_size: int = 16,
        num_workers: int | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        group_pattern: str = "",
        train_fraction: float = 1.0,
        scheme: str | None = None,
        flip_pairs: list[tuple[int, int]] | None = None,
        eyes: tuple[list[int], list[int]] | None = None,
        distance_between: tuple[list[int], list[int]] | None = None,
        normalizations: list[str] | None = None,
        augment: bool | Augmentation = True,
        count_occluded: bool = True,
        box: Literal["auto", "given", "points", "image"] = "auto",
        margin: float | None = None,
        cache_mb: float = 1024.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std)
        _check_options(val_fraction, train_fraction, group_pattern, margin)
        self.val_fraction = val_fraction
        self.group_pattern = group_pattern
        self.train_fraction = train_fraction
        self.count_occluded = count_occluded
        self.box = box
        self.margin = margin
        self.cache_mb = cache_mb
        self.scheme = scheme_for(self.num_points, scheme, flip_pairs, eyes)
        self.augmentation = _augmentation(augment, self.scheme)
        self.distance_between = groups_between(self.num_points, distance_between)
        self.normalizations = normalizations_of(
            self.scheme, self.given_distance, self.distance_between, normalizations
        )

    def facts(self) -> dict[str, Any]:
        """As :class:`ImageDataModule` has them, with the points' number, scheme and mirror images.

        ``preprocessing.around`` is ``face`` if a square around it is cut out, ``image`` if the
        whole image is used; known once a part was read.
        """
        around = self._around
        margin = self.margin or (FACE_MARGIN if around == "face" else 1.0)
        preprocessing = {"kind": "square", "around": around, "margin": margin}
        return super().facts() | self.scheme.facts() | {"preprocessing": preprocessing}

    def training_options(self) -> dict[str, Any]:
        """As :class:`ImageDataModule` has them, with the split, the crops and the variations."""
        names = ("val_fraction", "group_pattern", "train_fraction", "count_occluded", "box")
        names += ("margin",)
        options = {name: getattr(self, name) for name in names}
        augment = self.augmentation.as_option()
        return super().training_options() | dict(self.named) | options | {"augment": augment}

    @abstractmethod
    def read(self, part: Literal["train", "test"]) -> LandmarkTable:
        """Read the annotations of one part.

        Raises:
            DataError: for files that are absent or wrong.
        """

    def setup(self, stage: str) -> None:
        """Read and check what the stage needs: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DataError: for anything about the files that would stop training or testing.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            table = self._checked("train")
            groups = [person_of(name, self.group_pattern) for name in table.names]
            train, val = split_by_group(groups, self.val_fraction, self.seed)
            self._train_table = table.take(random_subset(train, self.train_fraction, self.seed))
            self.val_set = self._evaluation_set(table.take(val))
        if stage == "fit" and not hasattr(self, "train_set"):
            self.train_set = self._training_set(self._train_table)
            del self._train_table
        if stage in ("test", "predict") and not hasattr(self, "test_set"):
            self.test_set = self._evaluation_set(self._checked("test"))

    def _checked(self, part: Literal["train", "test"]) -> LandmarkTable:
        table, source = self.read(part), self.files[part]
        if table.points.shape[1] != self.num_points:
            raise DataError(
                f"{source} has {table.points.shape[1]} points, but {self.files['train']} has "
                f"{self.num_points}; both must have the same."
            )
        if table.pixels is None:
            check_present(table.names, self.image_folder, source)
        without = ~table.counted(self.count_occluded).any(-1)
        if without.any():
            raise DataError(
                f"{source}: no point counts in {table.names[int(np.argmax(without))]!r} "
                f"({int(without.sum())} of {len(table)} faces): all are unlabelled"
                f"{'' if self.count_occluded else ' or hidden'}; label or remove them"
                f"{'' if self.count_occluded else ', or set `count_occluded`'}."
            )
        return table

    def _regions(self, table: LandmarkTable) -> np.ndarray | None:
        """``(N, 3)`` square around each face with its margin; ``None`` for whole images.

        Raises:
            ConfigError: if squares are asked for that the data do not have.
            DataError: naming an image in which the labelled points give no square.
        """
        box = self.box
        if box == "auto":
            box = self.BOX_WITHOUT_GIVEN if table.regions is None else "given"
        self._around = "image" if box == "image" else "face"
        if box == "image":
            return None if self.margin in (None, 1) else self._middle(table, self.margin)
        margin = FACE_MARGIN if self.margin is None else self.margin
        if box == "given" and table.regions is None:
            raise ConfigError("`box` is given, but these data have no boxes; set it to points.")
        if box == "given":
            return table.regions * [1, 1, margin]
        low, high = tight_box(table.points, table.labelled)
        sides = (high - low).max(-1)
        if (sides == 0).any():
            name = table.names[int(np.argmin(sides))]
            raise DataError(
                f"All labelled points of {name!r} are in one place: there is no square around "
                "them; correct or remove the annotation, or set `box` to image."
            )
        return np.column_stack([(low + high) / 2, margin * sides])

    def _middle(self, table: LandmarkTable, margin: float) -> np.ndarray:
        """``(N, 3)`` squares in the middle of the images."""
        if table.pixels is not None:
            sizes = np.array([pixels.shape[1::-1] for pixels in table.pixels])
        else:
            sizes = np.array([image_size(self.image_folder / name) for name in table.names])
        return np.column_stack([sizes / 2, margin * sizes.max(-1)])

    def _images(
        self, table: LandmarkTable, regions: np.ndarray | None, side: int, enlarge: bool
    ) -> SquareImages:
        sources = table.pixels
        if sources is None:
            sources = [self.image_folder / name for name in table.names]
        images = SquareImages(sources, side, self.cache_mb, enlarge, regions)
        if images.turned:
            rank_zero_warn(
                f"{images.turned} of {len(table)} images of {self.image_folder} are shown turned, "
                "as their EXIF says, but used as they are stored. If your points count pixels as "
                "they are shown, as predictions and most annotation tools do, turn the images "
                "themselves, for instance by `mogrify -auto-orient FILES`.",
                category=UserWarning,
            )
        outside = (table.points < 0) | (table.points > np.array(images.sizes)[:, None])
        outside &= table.labelled[..., None]
        if outside.any():
            rank_zero_info(
                f"{int(outside.any(-1).sum())} of {int(table.labelled.sum())} points lie outside "
                f"their image, in {int(outside.any((-2, -1)).sum())} of {len(table)} images; they "
                "are used as they are."
            )
        return images

    def _training_set(self, table: LandmarkTable) -> TrainSet:
        regions, context = self._regions(table), 1.0
        if regions is not None:
            context = min(reach(self.augmentation), LARGEST_CONTEXT)
            regions = regions * [1, 1, context]
        side = round(CACHE_RATIO * context * self.image_size)
        return TrainSet(
            self._images(table, regions, side, enlarge=False),
            table.points,
            table.counted(self.count_occluded),
            self.image_size,
            self.augmentation,
            self.scheme.flip,
            self.seed,
            extent=1 / context,
        )

    def _evaluation_set(self, table: LandmarkTable) -> EvaluationSet:
        counted = table.counted(self.count_occluded)
        distances = face_distances(
            table, counted, self.scheme, self.normalizations, self.distance_between
        )
        images = self._images(table, self._regions(table), self.image_size, enlarge=True)
        return EvaluationSet(images, table, counted, distances, self.subset_names)


def _check_options(
    val_fraction: float, train_fraction: float, group_pattern: str, margin: float | None
) -> None:
    if not 0 < val_fraction < 1:
        raise ConfigError(f"`val_fraction` must be between 0 and 1, found {val_fraction}.")
    if not 0 < train_fraction <= 1:
        raise ConfigError(f"`train_fraction` must be in (0, 1], found {train_fraction}.")
    if margin is not None and not 0 < margin <= 10:
        raise ConfigError(f"`margin` must be a factor in (0, 10], such as 1.25, found {margin}.")
    check_pattern(group_pattern)


def _augmentation(augment: bool | Augmentation, scheme: LandmarkScheme) -> Augmentation:
    """The variations to make, without mirroring where nobody knows which points swap."""
    if augment is False:
        return NO_AUGMENTATION
    options = Augmentation() if augment is True else augment
    if options.flip and scheme.flip is None:
        rank_zero_info(
            f"Images are not mirrored: which of the {scheme.num_points} points swap is not known. "
            "Give `flip_pairs` to mirror them."
        )
        options = replace(options, flip=0.0)
    return options
