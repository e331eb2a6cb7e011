"""Base class of data modules of labelled images: checks, validation split, transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torchvision.transforms import v2

from zoo_lightning.data.bands import (
    BandReader,
    band_training_transform,
    colour_of,
    find_band_range,
    index_among,
    joined,
    measure_all,
    parse_bands,
    parse_nodata,
)
from zoo_lightning.data.labelled_set import LabelledSet, Source, broken_images
from zoo_lightning.data.loading import IMAGENET_MEAN, IMAGENET_STD, ImageDataModule
from zoo_lightning.data.splitting import check_pattern, person_of, random_subset, split_by_group
from zoo_lightning.data.stored_images import ImageFile, StoredImage
from zoo_lightning.data.transforms import evaluation_transform, training_transform
from zoo_lightning.errors import ConfigError, DataError
from zoo_lightning.sources.stems import COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

Part = Literal["train", "val", "test"]

L = TypeVar("L")


class LabelledImages(ImageDataModule, ABC, Generic[L]):
    """Base data module of images with a label each, with training, validation and test parts.

    Without a validation part, validation images are split off the training part. Testing reads the
    test part alone. All files are checked before the first step. A subclass implements ``_read``,
    and sets the attributes below before it calls ``__init__``.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: number of loader processes; ``None``: one less than the cores, at most 4.
        seed: seed of the sample order, the augmentation and the validation split.
        val_fraction: fraction of the training images (of each class, where there are classes) kept
            for validation where the data have no validation part, in (0, 1).
        group_pattern: regular expression that is removed from file stems; images with the same
            remainder in the same folder, the class folder aside, form a group (frames of a film,
            images of a patient). A group, which may span classes, is never divided between training
            and validation. Empty: each image is its own group.
        train_fraction: fraction of the remaining training images (of each class, where there are
            classes) that is used, in (0, 1], at least one image; smaller fractions are subsets of
            larger ones. The validation set stays the same.
        resize: side in pixels of the square that images are resized to, ignoring their aspect
            ratio, before they are cropped (256 in the paper); ``None`` keeps the aspect ratio.
        crop_scale: smallest share of the image's area that a training crop shows, in (0, 1].
        flip: probability of mirroring a training image.
        jitter: strength of brightness, contrast and saturation changes, at least 0.
        test_crops: 1 for the centre crop, or 10 for the corners and centre of the image and of its
            mirror image, with averaged outputs; 10 needs ``resize``.
        skip_broken: leave out unreadable image files, with a warning of how many, instead of
            raising an error. Every image is decoded once before the first step, so that none fails
            later.
        mean: per-channel mean, subtracted from images in [0, 1]. With ``bands``, the default
            stands for that of the training images, band by band.
        std: standard deviation that each channel is then divided by; as ``mean``.
        value_range: ``LOW,HIGH``, pixel values of black and white in images with more than 8 bits
            or floating-point values, such as ``0,4095`` for a 12-bit detector; ``None`` estimates
            one range for all images from the training images.
        bands: channels of the images: ``None`` for red, green and blue; ``grey`` for one; ``all``
            for all bands of the files, or names and numbers, counted from 0, of those to use, in
            order. Files are then TIFF, NPY or anything that Pillow opens, and keep the depth of
            their values; see ``docs/howto/bands.md``.
        band_names: names of all bands of a file, in order; ``None`` takes the file's, if it states
            any.
        nodata: value that stands for no measurement, or ``nan``: such values, NaN and what a file
            itself calls nodata are replaced by the band's mean. ``None`` refuses them.
        rgb_bands: names or numbers of three bands, or of one, that pictures show; ``None`` shows
            red, green and blue, or else the first three.

    Raises:
        ConfigError: an option is out of range.
        DataError: images are missing or malformed.
    """

    root: Path
    """Folder of the data, which image names are relative to."""
    reads_bands = True
    """Whether images of other bands can be read; false where a subclass reads images itself."""

    def __init__(
        self,
        image_size: int = 64,
        batch_size: int = 64,
        num_workers: int | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        group_pattern: str = "",
        train_fraction: float = 1.0,
        resize: int | None = None,
        crop_scale: float = 0.35,
        flip: float = 0.5,
        jitter: float = 0.3,
        test_crops: Literal[1, 10] = 1,
        skip_broken: bool = False,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        value_range: tuple[float, float] | str | None = None,
        bands: str | int | list[str | int] | None = None,
        band_names: list[str] | str | None = None,
        nodata: float | str | None = None,
        rgb_bands: list[str | int] | str | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std, value_range)
        _check_options(image_size, val_fraction, resize, crop_scale, flip, jitter, test_crops)
        if not 0 < train_fraction <= 1:
            raise ConfigError(f"`train_fraction` must be in (0, 1], got {train_fraction}.")
        check_pattern(group_pattern)
        self.val_fraction = val_fraction
        self.group_pattern = group_pattern
        self.train_fraction = train_fraction
        self.resize = resize
        self.crop_scale, self.flip, self.jitter = crop_scale, flip, jitter
        self.test_crops = test_crops
        self.skip_broken = skip_broken
        self._take_bands(bands, band_names, nodata, rgb_bands)

    def varies_training_images(self) -> bool:
        """Whether training images differ between epochs, by augmentation."""
        return (self.crop_scale, self.flip, self.jitter) != (1, 0, 0)

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`ImageDataModule`, and preprocessing."""
        preprocessing = {"kind": "crop", "squeeze": self.resize, "crops": self.test_crops}
        return super().facts() | {"preprocessing": preprocessing} | self._band_facts()

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`ImageDataModule`, and those of split and augmentation."""
        names = ["val_fraction", "group_pattern", "train_fraction", "resize"]
        names += ["crop_scale", "flip", "jitter"]
        options = {name: getattr(self, name) for name in names} | self._band_facts()
        return super().training_options() | options

    @abstractmethod
    def _read(self, part: Part) -> list[tuple[Source, L]] | None:
        """Read the samples of a part; ``None`` if the data have no validation part.

        Raises:
            DataError: files are missing or malformed.
        """

    def _unread_validation(self) -> str:
        """One line on what may be the validation part, but is not read; empty if there is none."""
        return ""

    def _check_training(self, train: list[tuple[Source, L]]) -> None:
        """Check the labels of the training images.

        Raises:
            DataError: a network cannot be trained on them.
        """

    def setup(self, stage: str) -> None:
        """Read and check the images of a stage.

        Raises:
            DataError: data or an image cannot be used.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            train, val = self._usable("train") or [], self._usable("val")
            self._check_training(train)
            if self.reader is None:
                self._find_value_range(files_of([*train, *(val or [])]), str(self.root))
            if val is None:
                if unread := self._unread_validation():
                    rank_zero_info(unread)
                train, val = self._split(train)
                if not val:
                    raise DataError(
                        f"{self.root} has too few images to keep any of training for validation; "
                        f"raise `val_fraction`, now {self.val_fraction}, or add images."
                    )
            train = self._subset(train)
            self._find_statistics(train)
            self.train_set = self._reading(self._set(train, self._augmentation()))
            self.val_set = self._reading(self._set(val, self._evaluation()))
        if stage in ("test", "predict") and not hasattr(self, "test_set"):
            test = self._usable("test") or []
            if self.reader is None:
                self._find_test_value_range(files_of(test), self._training_files, str(self.root))
            elif not self.reader.statistics_known:  # they are those of the training images
                self._find_statistics(self._training_samples())
            self.test_set = self._reading(self._set(test, self._evaluation(self.test_crops)))

    def _augmentation(self) -> v2.Transform:
        """Transform of training images."""
        options = (self.image_size, self.resize, self.crop_scale, self.flip, self.jitter)
        if self.reader is None or not self._shows_tensors():
            return training_transform(*options)
        return band_training_transform(self.reader, *options)

    def _evaluation(self, crops: int = 1) -> v2.Transform:
        """Transform of other images."""
        plain = evaluation_transform(self.image_size, self.resize, crops)
        return plain if self.reader is None else v2.Compose([plain, *self.reader.finish()])

    def _training_files(self) -> list[ImageFile]:
        return files_of([*(self._read("train") or []), *(self._read("val") or [])])

    def _set(self, samples: list[tuple[Source, L]], transform: v2.Transform) -> LabelledSet[L]:
        """Create the data set of a part."""
        return LabelledSet(samples, self._names(samples), transform, self.seed, self.value_range)

    def _names(self, samples: list[tuple[Source, L]]) -> list[str]:
        return [self._name(source, index) for index, (source, _) in enumerate(samples)]

    def _name(self, source: object, index: int) -> str:
        if isinstance(source, StoredImage):
            return source.name
        if not isinstance(source, Path):
            return str(index)
        inside = source.is_relative_to(self.root)
        return (source.relative_to(self.root) if inside else source).as_posix()

    def _usable(self, part: Part) -> list[tuple[Source, L]] | None:
        """Read a part without broken images, which are an error unless they are skipped."""
        samples = self._read(part)
        if samples is None:
            return None
        broken = self._broken([source for source, _ in samples])
        if broken:
            first = next(iter(broken.values()))
            others = f" So are {len(broken) - 1} others." if len(broken) > 1 else ""
            if not self.skip_broken:
                raise DataError(f"{first}{others} Or set `skip_broken: true`.")
            rank_zero_warn(
                f"{len(broken)} of {len(samples)} {part} images are skipped. {first}",
                category=UserWarning,
            )
        usable = [sample for index, sample in enumerate(samples) if index not in broken]
        if not usable:
            raise DataError(f"{self.root} has no {part} images that can be used; add some.")
        return usable

    def _broken(self, sources: list[Source]) -> dict[int, DataError]:
        """Find images that cannot be used: errors by index."""
        if self.reader is None:
            return broken_images(sources, decode=self.skip_broken)
        self._settle(sources)
        found = enumerate(measure_all(self.reader, sources))
        return {index: each for index, each in found if isinstance(each, DataError)}

    def _split(
        self, samples: list[tuple[Source, L]]
    ) -> tuple[list[tuple[Source, L]], list[tuple[Source, L]]]:
        """Split training samples into training and validation, whole groups together."""
        names = self._names(samples)
        groups = [
            person_of(name, self.group_pattern) if self.group_pattern else name for name in names
        ]
        train, val = split_by_group(groups, self.val_fraction, self.seed)
        return [samples[i] for i in train], [samples[i] for i in val]

    def _subset(self, samples: list[tuple[Source, L]]) -> list[tuple[Source, L]]:
        """Draw ``train_fraction`` of the training samples."""
        chosen = random_subset(np.arange(len(samples)), self.train_fraction, self.seed)
        return [samples[i] for i in chosen]

    # Images of other bands than red, green and blue.

    def _take_bands(self, bands: Any, band_names: Any, nodata: Any, rgb_bands: Any) -> None:
        """Check the options of bands, and create the reader; ``None`` for usual pictures."""
        chosen = parse_bands(bands)
        others = {"band_names": band_names, "nodata": nodata, "rgb_bands": rgb_bands}
        if chosen is None:
            if given := [name for name, value in others.items() if value is not None]:
                raise ConfigError(
                    f"`{given[0]}` is for images of other bands than red, green and blue; give "
                    "`bands`, for instance --data.bands all."
                )
            if len(self.mean) not in (1, 3) or len(self.std) not in (1, 3):
                raise ConfigError(
                    f"`mean` and `std` must be three numbers, of red, green and blue, got "
                    f"{len(self.mean)} and {len(self.std)}; for images of other channels give "
                    "`bands`, for instance --data.bands grey."
                )
        named, shown = parse_bands(band_names) or (), parse_bands(rgb_bands) or ()
        self.rgb_bands = (shown,) if isinstance(shown, str) else shown
        if len(self.rgb_bands) not in (0, 1, 3):
            raise ConfigError(f"`rgb_bands` must be three bands or one, got {rgb_bands!r}.")
        self.reader: BandReader | None = None
        self.shown: list[int] = []
        if chosen is not None:
            if not self.reads_bands:
                raise ConfigError(
                    f"`bands` is not for {type(self).__name__}, whose images are read as red, "
                    "green and blue; leave it out."
                )
            words = (named,) if isinstance(named, str) else tuple(map(str, named))
            self.reader = BandReader(chosen, words, parse_nodata(nodata), values=self.value_range)

    @property
    def in_chans(self) -> int:
        """Number of channels of the images; reads the first image if ``bands`` does not say it.

        Raises:
            ConfigError: there is no such band.
            DataError: the images cannot be read.
        """
        if self.reader is None:
            return 3
        return self._known_reader().channels

    @property
    def channel_names(self) -> list[str] | None:
        """Names of the channels; ``None`` for red, green and blue without ``bands``, or for grey.

        Bands that neither the files nor ``band_names`` name have their numbers for names.

        Raises:
            ConfigError: there is no such band.
            DataError: the images cannot be read.
        """
        if self.reader is None or self.reader.chosen == "grey":
            return None
        forms = {name: colour_of(name) for name in self._known_reader().names}
        return [forms[name] if forms[name] in COLOURS else name for name in forms]

    def find_bands(self) -> None:
        """Find what the images say on their bands: their number, and mean and deviation of each.

        The command line needs them before the network is built; :meth:`setup` finds them, too.

        Raises:
            ConfigError: there is no such band.
            DataError: images cannot be used.
        """
        reader = self._known_reader() if self.reader else None
        if reader is not None and not (reader.statistics_known or self._take_given(reader)):
            self._find_statistics(self._training_samples())

    def _known_reader(self) -> BandReader:
        """Reader that knows its bands, from the first image if it does not yet."""
        assert self.reader is not None
        if not self.reader.count:
            samples = self._read("train") or self._read("test") or []
            self._settle([source for source, _ in samples])
        return self.reader

    def _settle(self, sources: list[Source]) -> None:
        """Take the bands of the first image that can be read for those of all."""
        assert self.reader is not None
        error: DataError | None = None
        for source in () if self.reader.count else sources:
            try:
                self.reader = self.reader.settled(source)
                break
            except DataError as problem:
                error = error or problem
                if not self.skip_broken:
                    break
        if not self.reader.count:
            raise error or DataError(f"{self.root} has no images; add some.")
        self._show_bands()

    def _show_bands(self) -> None:
        """Find which bands pictures show."""
        assert self.reader is not None
        names = self.reader.names
        colours = [index_among(name, names) for name in COLOURS]
        usual = [0, 1, 2] if len(names) >= 3 else [0]
        usual = usual if None in colours else colours  # type: ignore[assignment]  # no None
        shown = [index_among(band, names) for band in self.rgb_bands]
        if None in shown:
            absent = self.rgb_bands[shown.index(None)]
            raise ConfigError(
                f"`rgb_bands`: {absent!r} is none of the bands in use, {', '.join(names)}."
            )
        self.shown = [index for index in shown or usual if index is not None]

    def _training_samples(self) -> list[tuple[Source, L]]:
        """Training samples without those of validation."""
        train = self._usable("train") or []
        if self._read("val") is None:
            train, _ = self._split(train)
        return self._subset(train)

    def _take_given(self, reader: BandReader) -> bool:
        """Take mean and deviation of the options, if they are not the usual ones of ImageNet."""
        if (tuple(self.mean), tuple(self.std)) == (IMAGENET_MEAN, IMAGENET_STD):
            return False
        if reader.deep and self.value_range is None:
            raise ConfigError(
                "`mean` and `std` of images of more than 8 bits are in units of `value_range`, "
                "whose ends are 0 and 1: give it, too, or leave both out."
            )
        count = reader.channels
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, count):
                raise ConfigError(
                    f"`{name}` must be {count} numbers, one for each of the bands "
                    f"{', '.join(reader.names)}, got {len(values)}; leave it out to take that of "
                    "the training images."
                )
            setattr(self, name, values * count if len(values) == 1 else values)
        if min(self.std) <= 0:
            raise ConfigError(f"`std` must be above 0, got {self.std}.")
        self.reader = replace(reader, values=self.value_range, mean=self.mean, std=self.std)
        return True

    def _find_statistics(self, train: list[tuple[Source, L]]) -> None:
        """Find value range, mean and deviation of the bands, unless they are given."""
        reader = self.reader
        if reader is None or reader.statistics_known or self._take_given(reader):
            return
        sources = [source for source, _ in train]
        if reader.deep and reader.values is None:
            reader = replace(reader, values=find_band_range(reader, sources, str(self.root)))
        found = [each for each in measure_all(reader, sources) if not isinstance(each, DataError)]
        self.reader = reader = reader.with_statistics(joined(found))
        self.mean, self.std = reader.mean, reader.std
        if reader.deep:
            self.value_range = reader.values
        rank_zero_info(
            f"{self.root}: {reader.channels} band{'s' * (reader.channels > 1)}"
            f" ({', '.join(reader.names)}), mean and std from {len(found)} training images"
        )
        if self.jitter and self._shows_tensors():
            rank_zero_info(
                f"data.jitter {self.jitter:g}: brightness and contrast of an image change by the "
                "same factors in all bands; saturation is of colours alone"
            )

    def _shows_tensors(self) -> bool:
        """Whether images are tensors before they are augmented, not Pillow's."""
        return self.reader is not None and (self.reader.deep or self.reader.chosen != "grey")

    def _reading(self, dataset: Any) -> Any:
        """Let a data set read its images by their bands."""
        if self.reader is not None:
            dataset.reader, dataset.shown = self.reader, self.shown
        return dataset

    def _band_facts(self) -> dict[str, Any]:
        """Facts on the bands; empty for red, green and blue."""
        if self.reader is None:
            return {}
        return {"bands": self.reader.as_dict() | {"shown": self.shown}}


def files_of(samples: Sequence[tuple[Source, Any]]) -> list[ImageFile]:
    """Images of the samples that are files, or inside files."""
    return [source for source, _ in samples if not isinstance(source, np.ndarray)]


def _check_options(
    image_size: int,
    val_fraction: float,
    resize: int | None,
    crop_scale: float,
    flip: float,
    jitter: float,
    test_crops: int,
) -> None:
    if not 0 < val_fraction < 1:
        raise ConfigError(f"`val_fraction` must be between 0 and 1, got {val_fraction}.")
    if not 0 < crop_scale <= 1:
        raise ConfigError(f"`crop_scale` must be above 0 and at most 1, got {crop_scale}.")
    if not 0 <= flip <= 1:
        raise ConfigError(f"`flip` must be between 0 and 1, got {flip}.")
    if jitter < 0:
        raise ConfigError(f"`jitter` must be at least 0, got {jitter}.")
    if resize is not None and resize < image_size:
        raise ConfigError(f"`resize` must be at least `image_size`, {image_size}, got {resize}.")
    if test_crops not in (1, 10):
        raise ConfigError(f"`test_crops` must be 1 or 10, got {test_crops}.")
    if test_crops == 10 and (resize is None or resize == image_size):
        raise ConfigError(
            f"`test_crops: 10` needs `resize` above `image_size`, for instance "
            f"{round(image_size * 256 / 224)}: else all crops are the same."
        )
