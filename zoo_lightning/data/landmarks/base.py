"""Base class of the data modules of annotated faces: splits, crops, checks, samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from zoo_lightning.data.augmentation import NO_AUGMENTATION, Augmentation, reach
from zoo_lightning.data.image_files import on_disk
from zoo_lightning.data.images import SquareImages, check_present, image_size
from zoo_lightning.data.landmarks.datasets import EvaluationSet, TrainSet
from zoo_lightning.data.landmarks.distances import (
    face_distances,
    groups_between,
    normalizations_of,
    tight_box,
    unmeasured,
)
from zoo_lightning.data.landmarks.plausibility import (
    check_points,
    check_squares,
    find_pairs,
    pairs_option,
)
from zoo_lightning.data.landmarks.schemes import SCHEMES, LandmarkScheme, scheme_for
from zoo_lightning.data.loading import IMAGENET_MEAN, IMAGENET_STD, ImageDataModule
from zoo_lightning.data.splitting import (
    check_pattern,
    person_of,
    random_subset,
    split_by_group,
    validation_files,
)
from zoo_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from zoo_lightning.data.landmarks.table import LandmarkTable

CACHE_RATIO = 1.5
"""Training images are cached at this multiple of the input's side: the warp that follows is
bilinear, sharp enough when it enlarges and free of aliasing when it shrinks."""

FACE_MARGIN = 1.25
"""Factor on the side of a face's square, as in the code of HRNet's authors."""

LARGEST_CONTEXT = 2.0
"""Training crops are cached with the surroundings that turning, shifting and shrinking may bring
into sight, up to this multiple of the face's square; beyond it is black."""


class LandmarkData(ImageDataModule, ABC):
    """Base data module of faces with landmarks, with training, validation and test parts.

    Validation faces are split off the training part. Testing reads the test part alone. All files
    are checked before the first step. A subclass implements :meth:`read`, and sets the attributes
    below before it calls ``__init__``.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: number of loader processes; ``None``: one less than the cores, at most 4.
        seed: seed of the sample order, the augmentation and the validation split.
        val_fraction: fraction of the training faces kept for validation, in (0, 1).
        group_pattern: regular expression that is removed from file stems; the remainder identifies
            the person, whose images are never divided between training and validation. Empty: each
            image is a person of its own.
        train_fraction: fraction of the remaining training faces that is used, in (0, 1]; a smaller
            fraction is a subset of a larger one. The validation set stays the same.
        scheme: name of a landmark scheme (``ibug68``, ``wflw98``, ``cofw29``, ``aflw19``,
            ``faces5``); ``None`` infers it from the number of points.
        flip_pairs: pairs of point indices that swap under mirroring, instead of a scheme's.
        eyes: two groups of point indices; the distance of their means is ``interocular``.
        distance_between: two groups of point indices; the distance of their means is ``custom``.
        normalizations: normalisation distances to evaluate with; ``None`` takes all available ones
            of ``interocular``, ``interpupil``, ``box``, ``diagonal``, ``height``, ``given``
            and ``custom``.
        augment: strengths of the augmentation; ``true`` for the defaults, ``false`` for none.
        count_occluded: whether labelled but hidden points count in training and evaluation.
        missing: value, or list of values, that both x and y of a point have in the files if it is
            not annotated, such as -1 or 0. Empty fields and ``nan`` always mean not annotated.
        check_annotations: whether to check that annotations are plausible, and to stop with an
            error where they are not, such as points in another order than their scheme's.
        box: square that is cut out around a face: the one ``given`` in the files, one around the
            ``points``, or the whole ``image``; ``auto`` takes the given one if there is one.
        margin: factor on the side of the square that is cut out; ``None`` takes 1.25 around faces
            and 1 for whole images. Below 1, whole images are cropped to their middle, useful where
            all faces are central.
        cache_mb: memory limit of the decoded images of a split, megabytes; images of a larger split
            are decoded each time they are used.
        mean: per-channel mean, subtracted from images in [0, 1].
        std: standard deviation that each channel is then divided by.
        value_range: ``LOW,HIGH``, pixel values of black and white in images with more than 8 bits
            or floating-point values, such as ``0,4095`` for a 12-bit detector; ``None`` estimates
            one range for all images from the training images.

    Raises:
        ConfigError: an option is out of range or contradicts the data.
        DataError: files are missing or malformed; on construction only if the number of points
            cannot be read.
    """

    target_kind = "points"
    """Kind of the targets, by which tasks know whether the data are for them."""

    BOX_WITHOUT_GIVEN: Literal["points", "image"] = "points"
    """Meaning of ``box: auto`` for annotations without boxes."""

    files: dict[str, Path]
    """Annotation files of the parts ``train`` and ``test``."""

    image_folder: Path
    """Folder that image names are relative to, where images are files."""

    named: tuple[tuple[str, str | None], ...] = ()
    """Names and values of the options that name the training file."""

    num_points: int
    """Number of points K."""

    assumed: tuple[str, ...] = ()
    """Assumptions of the format about its files, for the log."""

    given_distance: bool = False
    """Whether the annotations contain a normalisation distance."""

    _assumption_line: str = ""

    _around: Literal["face", "image"] = "image"

    subset_names: tuple[str, ...] = ()
    """Names of the test subsets, in the order of a sample's ``subsets``."""

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
        missing: float | list[float] | None = None,
        check_annotations: bool = True,
        box: Literal["auto", "given", "points", "image"] = "auto",
        margin: float | None = None,
        cache_mb: float = 1024.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        value_range: tuple[float, float] | str | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std, value_range)
        _check_options(val_fraction, train_fraction, group_pattern, margin)
        self.val_fraction = val_fraction
        self.group_pattern = group_pattern
        self.train_fraction = train_fraction
        self.count_occluded = count_occluded
        self.missing = [missing] if isinstance(missing, int | float) else list(missing or ())
        self.check_annotations = check_annotations
        self.box = box
        self.margin = margin
        self.cache_mb = cache_mb
        self.scheme = scheme_for(self.num_points, scheme, flip_pairs, eyes)
        self._recognised = scheme is None and flip_pairs is None
        self.augmentation = _augmentation(augment, self.scheme)
        self.distance_between = groups_between(self.num_points, distance_between)
        self.normalizations = normalizations_of(
            self.scheme, self.given_distance, self.distance_between, normalizations
        )

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`ImageDataModule`, and the number, scheme and mirroring of the points.

        ``preprocessing.around`` is ``face`` if a square around the face is cut out, ``image`` if
        the whole image is used; it is known once a part has been read.
        """
        around = self._around
        margin = self.margin or (FACE_MARGIN if around == "face" else 1.0)
        preprocessing = {"kind": "square", "around": around, "margin": margin}
        return super().facts() | self.scheme.facts() | {"preprocessing": preprocessing}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`ImageDataModule`, and those of split, crops and augmentation."""
        names = ["val_fraction", "group_pattern", "train_fraction", "count_occluded", "missing"]
        names += ["box", "margin"]
        options = {name: getattr(self, name) for name in names}
        augment = self.augmentation.as_option()
        return super().training_options() | dict(self.named) | options | {"augment": augment}

    def varies_training_images(self) -> bool:
        """Whether training images differ between epochs, by augmentation."""
        return self.augmentation != NO_AUGMENTATION

    @abstractmethod
    def read(self, part: Literal["train", "test"]) -> LandmarkTable:
        """Read the annotations of one part.

        Raises:
            DataError: files are missing or malformed.
        """

    def setup(self, stage: str) -> None:
        """Read and check the parts of a stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DataError: files are missing or malformed.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            table = self._checked("train")
            self._name_unread()
            self._find_value_range(self._files(table), self._place())
            groups = [person_of(name, self.group_pattern) for name in table.names]
            train, val = split_by_group(groups, self.val_fraction, self.seed)
            self._train_table = table.take(random_subset(train, self.train_fraction, self.seed))
            self.val_set = self._evaluation_set(table.take(val), "train", "validation faces")
        if stage == "fit" and not hasattr(self, "train_set"):
            self.train_set = self._training_set(self._train_table)
            self._check_squares(self._train_table, self.train_set.images, "train")
            self._assumption_line = self._assumptions(self._train_table)
            del self._train_table
        if stage == "fit" and self.trainer is not None and self._assumption_line:
            # Not of the copy without variations that an informed start looks at.
            rank_zero_info(self._assumption_line)
            self._assumption_line = ""
        if stage in ("test", "predict") and not hasattr(self, "test_set"):
            table = self._checked("test")
            self._find_test_value_range(self._files(table), self._training_files, self._place())
            self.test_set = self._evaluation_set(table, "test", "test faces")
            self._check_squares(table, self.test_set.images, "test")

    def _name_unread(self) -> None:
        """Log a line on a file that may be the validation part, of which these data have none."""
        train, used = self.files["train"], {*self.files.values(), *self._further_files()}
        for path in validation_files(train):
            if path not in used:
                rank_zero_info(
                    f"{path} is not read, and validation faces are split off {train}; add its "
                    "faces to that file, or test on them in place of the test file"
                )

    def _further_files(self) -> Iterable[Path]:
        """Files that are read beside those of the parts."""
        return ()

    def _training_files(self) -> list[Path]:
        return self._files(self.read("train"))

    def _place(self) -> str:
        """Image folder, or the file that contains the images, for messages."""
        return str(getattr(self, "image_folder", self.files["train"]))

    def _files(self, table: LandmarkTable) -> list[Path]:
        """Image files of a table; empty if the table contains the images."""
        in_files = table.pixels is None
        return [on_disk(self.image_folder, name) for name in table.names] if in_files else []

    def _checked(self, part: Literal["train", "test"]) -> LandmarkTable:
        table, source = self.read(part), self.files[part]
        if table.points.shape[1] != self.num_points:
            raise DataError(
                f"{source} has {table.points.shape[1]} points, but {self.files['train']} has "
                f"{self.num_points}; both must have the same."
            )
        if table.pixels is None:
            check_present(table.names, self.image_folder, source)
        for number in self.missing:
            table = table.unlabel(table.at(number))
        without = ~table.counted(self.count_occluded).any(-1)
        if without.any():
            raise DataError(
                f"{source}: no point counts in {table.names[int(np.argmax(without))]!r} "
                f"({int(without.sum())} of {len(table)} faces): all are unlabelled"
                f"{'' if self.count_occluded else ' or hidden'}; label or remove them"
                f"{'' if self.count_occluded else ', or set `count_occluded`'}."
            )
        if self.check_annotations:
            _warn(check_points(table, self.scheme, source))
        return table

    def _check_squares(
        self, table: LandmarkTable, images: SquareImages, part: Literal["train", "test"]
    ) -> None:
        """Check what the network sees of each face, without augmentation."""
        if not self.check_annotations:
            return
        squares = self._regions(table)
        if squares is None:
            sizes = np.array(images.sizes)
            squares = np.column_stack([sizes / 2, sizes.max(-1)])
        _warn(check_squares(table, squares, self.files[part]))

    def _assumptions(self, table: LandmarkTable) -> str:
        """One log line of what is assumed about points, distances and squares."""
        scheme, known = self.scheme, f"{self.num_points} points"
        if scheme.name in SCHEMES:
            how = f"recognised by {known}" if self._recognised else known
            order = f"scheme {scheme.name} ({how})"
        else:
            order = "own flip_pairs" if scheme.flip is not None else f"no scheme ({known})"
        if scheme.flip is None:
            pairs = find_pairs(table)
            swapped = "images are not mirrored, as it is not known which points swap, give "
            swapped += "--data.flip_pairs" if pairs is None else pairs_option(pairs)
        elif self.augmentation.flip:
            swapped = "images are mirrored"
        else:
            swapped = "images are not mirrored"
        between = f"errors are divided by {', '.join(self.normalizations)}"
        if "interocular" in self.normalizations and scheme.eyes is not None:
            left, right = (list(group) for group in scheme.eyes)
            between += f" (eyes: {left} and {right})"
        parts = [order, swapped, between, *self.assumed, self._squares_in_words(table)]
        return f"Assumed of {self.files['train']}: {'; '.join(parts)}."

    def _squares_in_words(self, table: LandmarkTable) -> str:
        """Phrase that describes which part of each image the network sees."""
        kind = self._box_of(table)
        margin = FACE_MARGIN if self.margin is None else self.margin
        if kind == "image":
            if self.margin is None or margin == 1:
                return "the network sees whole images"
            seen = "the middle" if margin < 1 else "and what is around it"
            return f"of each image the network sees {seen}, {margin:g} of its side (margin)"
        what = "the given boxes" if kind == "given" else "boxes around the points"
        return f"the network sees squares, {margin:g} times as large as {what} (margin)"

    def _box_of(self, table: LandmarkTable) -> Literal["given", "points", "image"]:
        """Resolve ``box: auto`` by whether the table has boxes."""
        if self.box != "auto":
            return self.box
        return self.BOX_WITHOUT_GIVEN if table.regions is None else "given"

    def _regions(self, table: LandmarkTable) -> np.ndarray | None:
        """Squares around the faces with margin, ``(N, 3)``; ``None`` for whole images.

        Raises:
            ConfigError: if squares are asked for that the data do not have.
            DataError: naming an image in which the labelled points give no square.
        """
        box = self._box_of(table)
        self._around = "image" if box == "image" else "face"
        if box == "image":
            return None if self.margin in (None, 1) else self._middle(table, self.margin)
        margin = FACE_MARGIN if self.margin is None else self.margin
        if box == "given":
            if table.regions is None:
                raise ConfigError("`box` is given, but these data have no boxes; set it to points.")
            return table.regions * np.array([1, 1, margin])
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
        """Squares in the middle of the images, ``(N, 3)``."""
        if table.pixels is not None:
            sizes = np.array([pixels.shape[1::-1] for pixels in table.pixels])
        else:
            sizes = np.array([image_size(path) for path in self._files(table)])
        return np.column_stack([sizes / 2, margin * sizes.max(-1)])

    def _images(
        self, table: LandmarkTable, regions: np.ndarray | None, side: int, enlarge: bool
    ) -> SquareImages:
        sources = self._files(table) if table.pixels is None else table.pixels
        images = SquareImages(sources, side, self.cache_mb, enlarge, regions, self.value_range)
        if images.turned:
            rank_zero_warn(
                f"{images.turned} of {len(table)} images of {self.image_folder} are shown turned, "
                "as their EXIF says, but used as they are stored. If your points count pixels as "
                "they are shown, as predictions and most annotation tools do, turn the images "
                "themselves, for instance by `mogrify -auto-orient FILES`.",
                category=UserWarning,
            )
        self._warn_of_sizes(table, np.array(images.sizes))
        outside = (table.points < 0) | (table.points > np.array(images.sizes)[:, None])
        outside &= table.labelled[..., None]
        if outside.any():
            rank_zero_info(
                f"{int(outside.any(-1).sum())} of {int(table.labelled.sum())} points lie outside "
                f"their image, in {int(outside.any((-2, -1)).sum())} of {len(table)} images; they "
                "are used as they are."
            )
        return images

    def _warn_of_sizes(self, table: LandmarkTable, sizes: np.ndarray) -> None:
        """Warn of images that are not of the size that their annotations state."""
        stated = table.image_sizes
        if stated is None or not self.check_annotations:
            return
        wrong = (stated > 0).all(-1) & (stated != sizes).any(-1)
        if wrong.any():
            row = int(np.argmax(wrong))
            there, here = (f"{w}x{h}" for w, h in (stated[row].tolist(), sizes[row].tolist()))
            _warn(
                [
                    f"{int(wrong.sum())} of {len(table)} annotations state another size of their "
                    f"image than the file has, first of {table.names[row]!r}: {there} pixels, but "
                    f"it has {here}; points are used as pixels of the files. If the images were "
                    "resized after they were annotated, resize the points as well."
                ]
            )

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

    def _evaluation_set(
        self, table: LandmarkTable, part: Literal["train", "test"], what: str
    ) -> EvaluationSet:
        counted = table.counted(self.count_occluded)
        distances = face_distances(
            table, counted, self.scheme, self.normalizations, self.distance_between
        )
        if line := unmeasured(distances, f"{self.files[part]}, {what}"):
            _warn([line])
        images = self._images(table, self._regions(table), self.image_size, enlarge=True)
        return EvaluationSet(images, table, counted, distances, self.subset_names)


def _check_options(
    val_fraction: float, train_fraction: float, group_pattern: str, margin: float | None
) -> None:
    if not 0 < val_fraction < 1:
        raise ConfigError(f"`val_fraction` must be between 0 and 1, got {val_fraction}.")
    if not 0 < train_fraction <= 1:
        raise ConfigError(f"`train_fraction` must be in (0, 1], got {train_fraction}.")
    if margin is not None and not 0 < margin <= 10:
        raise ConfigError(f"`margin` must be a factor in (0, 10], such as 1.25, got {margin}.")
    check_pattern(group_pattern)


def _warn(lines: list[str]) -> None:
    for line in lines:
        rank_zero_warn(line, category=UserWarning)


def _augmentation(augment: bool | Augmentation, scheme: LandmarkScheme) -> Augmentation:
    """Augmentation to apply, without mirroring where it is unknown which points swap."""
    if augment is False:
        return NO_AUGMENTATION
    options = Augmentation() if augment is True else augment
    if options.flip and scheme.flip is None:
        options = replace(options, flip=0.0)
    return options
