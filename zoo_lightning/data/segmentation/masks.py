"""Data module of images with masks: folders of images and label PNGs, or COCO's polygons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.annotation_text import text_lines
from zoo_lightning.data.classification.folders import layout_hint, validation_folder
from zoo_lightning.data.image_files import left_out, list_images, map_in_threads, on_disk, one_form
from zoo_lightning.data.labelled import LabelledImages, Part
from zoo_lightning.data.segmentation.dataset import (
    Mask,
    MaskSet,
    evaluation_pair,
    label_table,
    training_pair,
)
from zoo_lightning.data.segmentation.label_files import IGNORED, VALUES, LabelFile, seen_size
from zoo_lightning.data.segmentation.polygons import category_names, read_polygons
from zoo_lightning.errors import ConfigError, DataError, nearest
from zoo_lightning.files.text import encoding_hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo_lightning.data.labelled_set import Source

IMAGES, MASKS, POLYGONS, NAMES = "images", "masks", "annotations.json", "classes.txt"
"""Folders of images and label PNGs in a part, file of polygons in a part, and of class names."""

LEAST_CLASSES = 2
"""Smallest number of classes, between which a network can tell."""

MaskSample = tuple["Source", Mask]


class ImageMasks(LabelledImages[Mask]):
    """Data module of images with a class for every pixel: ``root/{train,val,test}/``.

    Each part has ``images/`` and either ``masks/``, with an 8-bit grey or palette PNG of the same
    name and size for every image, whose values are class indices; or ``annotations.json`` in COCO's
    format, whose polygons are drawn in the order of the file on class 0, the background. ``val``
    may also be called ``valid``, ``validation`` or ``dev``. Without it, validation images are split
    off the training images; without ``test``, ``val`` is the test part.

    Samples have ``labels`` int64 ``(S, S)``. Images are padded to squares with black; training
    images are cropped and mirrored with their masks. All masks of a part are read before the first
    step. ``ignored_label`` marks padding and unlabelled pixels, which do not count.

    Args:
        root: folder that contains ``train`` and ``test``.
        classes: names of the classes in the order of their indices, 0 first. ``None`` reads
            ``root/classes.txt``, a name in each line; else the categories of
            ``train/annotations.json`` after ``background``; else the classes are the numbers up to
            the largest in the training masks.
        ignore_index: value of a mask that marks unlabelled pixels, 0 to 255; ``None`` for none.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        options: further options of :class:`~zoo_lightning.data.labelled.LabelledImages`, without
            ``resize`` and ``test_crops``.

    Raises:
        ConfigError: an option is out of range.
        DataError: naming the file: a folder or mask is absent, a mask has another size than its
            image, colours, or a value that is no class, an image cannot be read, or there are fewer
            than two classes.
    """

    ignored_label = IGNORED
    """Label of pixels that do not count."""

    target_kind = "a class for each pixel"
    """Kind of the targets, by which tasks know whether the data are for them."""

    reads_bands = False

    def __init__(
        self,
        root: str,
        classes: list[str] | None = None,
        ignore_index: int | None = IGNORED,
        image_size: int = 64,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(image_size, batch_size, resize=None, test_crops=1, **options)
        if ignore_index is not None and not 0 <= ignore_index < VALUES:
            raise ConfigError(
                f"`ignore_index` must lie in 0 to {VALUES - 1}, or be null, got {ignore_index}."
            )
        self.root = Path(root)
        self.ignore_index = ignore_index
        self._val = validation_folder(self.root)
        self._values: dict[Path, np.ndarray] = {}
        """Number of pixels of every value in the masks read so far, by image."""
        self._samples: dict[str, list[MaskSample]] = {}
        """Samples by folder, as they were listed and checked."""
        self.class_names = self._named(classes)
        """Names of the classes, in the order of the network's outputs."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`LabelledImages`, squares as preprocessing, and class names."""
        preprocessing = {"kind": "square", "around": "image", "margin": 1.0}
        return super().facts() | {"preprocessing": preprocessing, "classes": self.class_names}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`LabelledImages`, and ``ignore_index``."""
        return super().training_options() | {"ignore_index": self.ignore_index}

    @property
    def class_pixels(self) -> np.ndarray:
        """Labelled pixels of each class in the training images, ``(C,)``; after ``setup``."""
        sources = self.train_set.sources  # type: ignore[attr-defined]
        return self._labelled(source for source in sources)

    def setup(self, stage: str) -> None:
        """Read and check images and masks of a stage.

        Raises:
            DataError: data, an image or a mask cannot be used.
        """
        super().setup(stage)
        if stage in ("fit", "validate") and isinstance(self.train_set, MaskSet):
            augment = (self.image_size, self.crop_scale, self.flip, self.jitter)
            self.train_set.transform = training_pair(*augment)

    def _set(self, samples: list[MaskSample], transform: Any) -> MaskSet:
        names, whole = self._names(samples), evaluation_pair(self.image_size)
        return MaskSet(samples, names, whole, self.seed, self.value_range, self.ignore_index)

    def _read(self, part: Part) -> list[MaskSample] | None:
        test = "test"
        if self._val is not None and not (self.root / "test").is_dir():
            test = self._val
        folder = {"train": "train", "val": self._val, "test": test}[part]
        if folder is None or (part == "val" and folder == test):
            return None
        samples = self._listed(folder)
        self._check_values(folder, samples)
        return samples

    def _named(self, given: list[str] | None) -> list[str]:
        """Class names: given, in a file, of categories, or numbers up to the masks' largest."""
        listed, polygons = self.root / NAMES, self.root / "train" / POLYGONS
        origin = "`classes`"
        if given is not None:
            names = [str(name) for name in given]
        elif listed.is_file():
            names = [name for _, name in text_lines(listed, "a class name in each line")]
            origin = str(listed)
        elif polygons.is_file():
            names, origin = category_names(polygons), str(polygons)
        else:
            samples = self._listed("train")
            names = [str(label) for label in range(self._largest(samples) + 1)]
            rank_zero_info(
                f"{self.root}: {len(names)} classes, the numbers up to the largest in the training "
                f"masks; `classes` or {NAMES} would name them"
            )
            origin = f"{self.root / 'train' / MASKS}"
        names = [one_form(name.strip()) for name in names]
        if not all(names) or len(set(names)) < len(names) or len(names) >= VALUES:
            raise ConfigError(
                f"{origin} must be at most {VALUES - 1} different names, got "
                f"{', '.join(names):.300}."
            )
        if len(names) < LEAST_CLASSES:
            raise DataError(
                f"{origin}: there is one class, {names[0] if names else 'none'!r}, and nothing to "
                f"tell apart; {self._hint()}."
            )
        return names

    def _listed(self, folder: str) -> list[MaskSample]:
        """Images of a part's folder with their masks, which are read and counted once."""
        if folder in self._samples:
            return self._samples[folder]
        part = self.root / folder
        images = part / IMAGES
        if not images.is_dir():
            hint = layout_hint(part) if not part.is_dir() else _folders_in(part)
            raise DataError(
                f"The folder {images} does not exist; expected images in it, and their masks in "
                f"{part / MASKS} or {part / POLYGONS}.{hint}"
            )
        listing = list_images(images)
        if others := left_out([listing.others]):
            rank_zero_info(f"{images}: {others}")
        found = {one_form(path.relative_to(images).as_posix()): path for path in listing.images}
        masks = self._of_polygons if (part / POLYGONS).is_file() else self._of_files
        samples = masks(part, found)
        self._count(samples)
        self._samples[folder] = samples
        return samples

    def _of_files(self, part: Path, images: dict[str, Path]) -> list[MaskSample]:
        """Pair images with label files of the same name."""
        folder = part / MASKS
        if not folder.is_dir():
            raise DataError(
                f"{part} has neither {MASKS}/ nor {POLYGONS}; put a mask of the same name, such as "
                f"{MASKS}/photo.png for {IMAGES}/photo.jpg, beside every image.{_folders_in(part)}"
            )
        masks: dict[str, Path] = {}
        for path in list_images(folder).images:
            stem = _stem(path.relative_to(folder).as_posix())
            if stem in masks:
                raise DataError(f"{path} and {masks[stem]} are masks of one image; remove one.")
            masks[stem] = path
        stems: dict[str, str] = {}
        for name in images:
            if other := stems.get(_stem(name)):
                raise DataError(
                    f"{part / IMAGES} has {other} and {name}, which would share a mask; rename one."
                )
            stems[_stem(name)] = name
        absent = [name for stem, name in stems.items() if stem not in masks]
        if absent:
            wanted, near = _stem(absent[0]), nearest(_stem(absent[0]), list(masks)[:5000])
            raise DataError(
                f"The image {part / IMAGES / absent[0]} has no mask {folder / wanted}.png "
                f"({len(absent)} of {len(images)} images have none).{near} Add masks, or leave the "
                "images out."
            )
        lonely = sorted({*masks} - {*stems})
        if lonely:
            raise DataError(
                f"The mask {masks[lonely[0]]} has no image of its name in {part / IMAGES} "
                f"({len(lonely)} of {len(masks)} masks have none). Add images, or remove the masks."
            )
        return [(images[name], LabelFile(masks[stem])) for stem, name in stems.items()]

    def _of_polygons(self, part: Path, images: dict[str, Path]) -> list[MaskSample]:
        """Pair images with the annotations of a COCO file."""
        file = part / POLYGONS
        if (part / MASKS).is_dir():
            raise DataError(f"{part} has both {MASKS}/ and {POLYGONS}; remove one of them.")
        shapes = read_polygons(file, self.class_names)
        absent = [name for name in images if name not in shapes]
        if absent:
            raise DataError(
                f"{part / IMAGES / absent[0]} is no entry of `images` in {file} ({len(absent)} of "
                f"{len(images)} images are none).{nearest(absent[0], list(shapes)[:5000])} Add "
                "entries, without annotations if there is nothing but background, or remove the "
                "images."
            )
        lonely = [name for name in shapes if name not in images]
        if lonely:
            raise DataError(
                f"{file} lists {lonely[0]!r}, which is not in {part / IMAGES} ({len(lonely)} of "
                f"{len(shapes)} images are absent).{encoding_hint(lonely[0])} Add the images or "
                "remove their entries."
            )
        return [(on_disk(part / IMAGES, name), shapes[name]) for name in images]

    def _count(self, samples: Sequence[MaskSample]) -> None:
        """Read all masks, and count the pixels of every value.

        Raises:
            DataError: naming the first mask that cannot be used, and how many there are.
        """

        def count(sample: MaskSample) -> np.ndarray | DataError | None:
            image, mask = sample
            assert isinstance(image, Path)
            try:
                size = seen_size(image)
            except Exception:  # of no image, which is reported with all that cannot be read
                return None
            try:
                return np.bincount(mask.read(size).ravel(), minlength=VALUES)
            except DataError as error:
                return error

        faults = []
        for (image, _), found in zip(samples, map_in_threads(count, samples), strict=True):
            if isinstance(found, DataError):
                faults.append(found)
            elif found is not None:
                self._values[Path(image)] = found.astype(np.uint32)  # type: ignore[arg-type]
        if faults:
            more = f" {len(faults) - 1} more masks cannot be used." if len(faults) > 1 else ""
            raise DataError(f"{faults[0]}{more}")

    def _largest(self, samples: Sequence[MaskSample]) -> int:
        """Largest class index in masks."""
        labelled = [self._values[Path(image)] for image, _ in samples if image in self._values]  # type: ignore[arg-type]
        total = sum(labelled, np.zeros(VALUES, np.int64))
        if self.ignore_index is not None:
            total[self.ignore_index] = 0
        return int(total.nonzero()[0].max(initial=0))

    def _check_values(self, folder: str, samples: Sequence[MaskSample]) -> None:
        """Check that all values of masks are classes.

        Raises:
            DataError: naming the first mask with another value.
        """
        allowed = np.arange(VALUES) < self.num_classes
        if self.ignore_index is not None:
            allowed[self.ignore_index] = True
        for image, mask in samples:
            found = self._values.get(Path(image))  # type: ignore[arg-type]
            wrong = [] if found is None else (found * ~allowed).nonzero()[0].tolist()
            if wrong:
                name = mask.path if isinstance(mask, LabelFile) else f"of {image}"
                values = ", ".join(map(str, wrong[:5])) + ", ..." * (len(wrong) > 5)
                raise DataError(
                    f"The mask {name} has the value{'s' * (len(wrong) > 1)} {values}, expected "
                    f"0 to {self.num_classes - 1} for the {self.num_classes} classes"
                    + ("" if self.ignore_index is None else f", or {self.ignore_index} (ignored)")
                    + f"; {self._hint()}."
                )

    def _hint(self) -> str:
        return (
            "give all `classes`, or masks whose values are class indices 0, 1, 2, ...; where an "
            "object is 255 on 0, save it as 1"
        )

    def _labelled(self, images: Any) -> np.ndarray:
        """Labelled pixels of each class in images, ``(C,)``."""
        total = sum((self._values[Path(image)] for image in images), np.zeros(VALUES, np.int64))
        counted = np.zeros(VALUES, np.int64)
        np.add.at(counted, label_table(self.ignore_index), total)
        return counted[: self.num_classes]

    def _check_training(self, train: list[MaskSample]) -> None:
        pixels = self._labelled(image for image, _ in train)
        absent = [n for n, count in zip(self.class_names, pixels, strict=True) if not count]
        if self.num_classes - len(absent) < LEAST_CLASSES:
            shown = [name for name in self.class_names if name not in absent]
            raise DataError(
                f"The training masks of {self.root} show no class but "
                f"{', '.join(shown) or f'{self.ignore_index} (ignored)'}, and there is nothing to "
                f"tell apart; {self._hint()}."
            )
        if absent:
            rank_zero_info(
                f"{self.root}: no training mask has pixels of {', '.join(absent[:5])}"
                f"{f' and {len(absent) - 5} more classes' * (len(absent) > 5)}, which cannot be "
                "learned"
            )


def _stem(name: str) -> str:
    """Relative path of an image without its suffix, in composed Unicode form."""
    path = Path(name)
    return one_form((path.parent / path.stem).as_posix())


def _folders_in(part: Path) -> str:
    """What a part's folder holds instead, as a sentence with a leading space; empty if nothing."""
    inside = sorted(path.name for path in part.iterdir())[:5] if part.is_dir() else []
    return f" It has {', '.join(inside)}." if inside else ""
