"""Images of chosen bands, in place of red, green and blue.

Pixels of 8 bits stay bytes. Others become float32 ``v = (value - low) / (high - low)``, one range
for all bands and images, and leave the data set normalised band by band, ``(v - mean) / std``: an
8-bit copy would lose what deeper files have. Statistics come from all valid pixels of the training
images. Files are read by :mod:`zoo_lightning.data.band_files`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from zoo_lightning.data.band_files import BandFile, bands_first, read_bands
from zoo_lightning.data.image_files import map_in_threads
from zoo_lightning.data.images import to_rgb
from zoo_lightning.data.stored_images import ImageFile
from zoo_lightning.data.transforms import training_transform
from zoo_lightning.data.values import ValueRange
from zoo_lightning.errors import ConfigError, DataError, nearest
from zoo_lightning.sources.stems import COLOURS, GREY, LUMINANCE

ALL = "all"

Chosen = str | tuple[str | int, ...]
"""``grey``, ``all``, or names and numbers of bands in the order of the network's channels."""

RANGE_FILES, RANGE_PIXELS = 200, 4096
"""Number of training images, and of pixels in a band of each, from which black and white are
estimated."""

WHITE = 0.99
"""Share of the pixels that are darker than white, as maps are usually shown."""

SMALLEST_STD = 1e-12
"""Deviation below which a band has one value everywhere, relative to its largest value."""


class Statistics(NamedTuple):
    """Sums over the valid pixels of one or several images, float64 ``(C,)`` each.

    Attributes:
        pixels: number of valid pixels of each band.
        total: sum of their values, in the file's units.
        squares: sum of their squares.
    """

    pixels: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    def mean(self) -> np.ndarray:
        """Mean of each band; 0 for a band without valid pixels."""
        return self.total / np.maximum(self.pixels, 1)

    def std(self) -> np.ndarray:
        """Standard deviation of each band; 1 for one with the same value everywhere."""
        mean = self.mean()
        variance = self.squares / np.maximum(self.pixels, 1) - mean**2
        least = (SMALLEST_STD + 1e-7 * np.abs(mean)) ** 2
        return np.where(variance > least, np.sqrt(np.maximum(variance, 0)), 1.0)


@dataclass(frozen=True)
class BandReader:
    """Reader of images of chosen bands.

    Attributes:
        chosen: bands to read, see :data:`Chosen`.
        given_names: names of all bands of a file that the user gives; empty takes the file's.
        nodata: value that stands for no measurement, replaced by the band's mean as NaN is then;
            ``None`` refuses NaN and values that the file calls nodata.
        count: number of bands of every file; 0 before the first is read.
        deep: whether files have values other than bytes.
        names: names of the chosen bands, numbers as text where there are none; empty before the
            first file is read.
        indices: numbers of the chosen bands in files that state no names of their own.
        values: values that become 0 and 1 in deep images; ``None`` before they are known.
        mean: mean of each chosen band in these units; empty before it is known.
        std: standard deviation of each chosen band in these units.
    """

    chosen: Chosen
    given_names: tuple[str, ...] = ()
    nodata: float | None = None
    count: int = 0
    deep: bool = False
    names: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    values: ValueRange | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels of the images that are read; 0 before the first file is read."""
        return 1 if self.chosen == GREY else len(self.indices)

    @property
    def statistics_known(self) -> bool:
        """Whether mean and deviation are known."""
        return bool(self.mean)

    def as_dict(self) -> dict[str, Any]:
        """Plain values from which :func:`reader_from` builds the reader again."""
        return {
            "chosen": self.chosen if isinstance(self.chosen, str) else list(self.chosen),
            "names": list(self.names),
            "file_names": list(self.given_names),
            "indices": list(self.indices),
            "count": self.count,
            "deep": self.deep,
            "nodata": None if self.nodata is None else str(self.nodata),
        }

    def settled(self, source: ImageFile | np.ndarray) -> BandReader:
        """Copy that knows the bands of the data's files from the first of them.

        Raises:
            ConfigError: there is no such band, or ``band_names`` do not fit the file.
            DataError: the file cannot be read.
        """
        if self.count:
            return self
        where, found = _name_of(source), _read(source)
        count, stated = len(found.pixels), found.names
        if self.given_names:
            if len(self.given_names) != count:
                raise ConfigError(
                    f"`band_names` must name all bands of a file: {where} has {count}, got "
                    f"{len(self.given_names)} names. See data.band_names."
                )
            _check_names(self.given_names, found.names, where)
            stated = self.given_names
        deep = found.pixels.dtype != np.uint8
        if self.chosen == GREY:
            _check_grey(where, found)
            return replace(self, count=count, deep=deep, names=(GREY,), indices=(0,))
        names = stated or tuple(map(str, range(count)))
        wanted = tuple(range(count)) if self.chosen == ALL else self.chosen
        indices = tuple(_index_of(band, names, where, bool(stated)) for band in wanted)
        picked = tuple(names[index] for index in indices)
        if len(set(indices)) < len(indices):
            raise ConfigError(f"`bands` must name each band once, got {', '.join(picked)}.")
        return replace(self, count=count, deep=deep, names=picked, indices=indices)

    def raw(self, source: ImageFile | np.ndarray) -> BandFile:
        """Read the chosen bands ``(C, H, W)``, of the file's type; no value is replaced.

        Raises:
            DataError: the file cannot be read, or differs from the first one in its bands or in the
                kind of its values.
        """
        where, found = _name_of(source), _read(source)
        count, deep = len(found.pixels), found.pixels.dtype != np.uint8
        if deep != self.deep:
            kinds = ["values of 8 bits", f"values of type {found.pixels.dtype}"]
            raise DataError(
                f"The image {where} has {kinds[deep]}, others of the data have "
                f"{'more' if self.deep else '8'}; convert them to one type, or leave it out."
            )
        if self.chosen == GREY:
            _check_grey(where, found)
            return found._replace(pixels=_grey(found))
        if count != self.count:
            raise DataError(
                f"The image {where} has {count} bands, the first of the data has {self.count}; "
                "give all images the same bands, or leave it out."
            )
        return found._replace(pixels=found.pixels[list(self._indices_in(where, found))])

    def _indices_in(self, where: str, found: BandFile) -> tuple[int, ...]:
        """Numbers of the chosen bands in a file, whose own names may be in another order."""
        if not found.names or self.given_names:
            return self.indices
        absent = [name for name in self.names if name not in found.names]
        if not absent:
            return tuple(found.names.index(name) for name in self.names)
        if all(name.isdigit() for name in self.names):  # chosen by number, and unnamed at first
            return self.indices
        raise DataError(
            f"The image {where} has no band {absent[0]!r}; its bands are {', '.join(found.names)}."
            f"{nearest(absent[0], found.names)} Give `band_names`, if all files have the same "
            "bands, or leave it out."
        )

    def invalid(self, source: ImageFile | np.ndarray, raw: BandFile) -> np.ndarray | None:
        """Find pixels ``(C, H, W)`` bool of :meth:`raw` without a value; ``None`` if all have one.

        Raises:
            DataError: values are infinite; or some are missing and ``nodata`` is ``None``.
        """
        where, pixels, missing = _name_of(source), raw.pixels, None
        if pixels.dtype.kind == "f":
            if np.isinf(pixels).any():
                raise DataError(
                    f"The image {where} has infinite values in band "
                    f"{self._first(np.isinf(pixels))}; replace them, or leave it out."
                )
            missing = np.isnan(pixels)
        stated = raw.nodata
        for value in (self.nodata, stated):
            if value is not None and not math.isnan(value):
                equal = pixels == value
                missing = equal if missing is None else missing | equal
        if missing is None or not missing.any():
            return None
        if self.nodata is None:
            nan = pixels.dtype.kind == "f" and bool(np.isnan(pixels).any())
            word = "nan" if nan else f"{stated:g}"
            kind = "NaN" if nan else f"{word}, which the file calls nodata,"
            raise DataError(
                f"The image {where} has {int(missing.sum())} values {kind} in band "
                f"{self._first(missing)}; set `nodata: {word}` to replace them by the band's "
                "mean, or leave it out."
            )
        return missing

    def _first(self, where: np.ndarray) -> str:
        return repr(self.names[int(where.any(axis=(1, 2)).argmax())])

    def measure(self, source: ImageFile | np.ndarray) -> Statistics:
        """Check all values of an image, and sum the valid ones.

        Raises:
            DataError: as :meth:`raw` and :meth:`invalid` raise it.
        """
        raw = self.raw(source)
        missing, pixels = self.invalid(source, raw), raw.pixels
        values = pixels.astype(np.float64)
        if missing is not None:
            values[missing] = 0
        area = pixels.shape[1] * pixels.shape[2]
        gone = 0 if missing is None else missing.sum(axis=(1, 2))
        counts = np.full(len(pixels), area, np.float64) - gone
        return Statistics(counts, values.sum(axis=(1, 2)), (values**2).sum(axis=(1, 2)))

    def with_statistics(
        self, found: Statistics, mean: Sequence[float] = (), std: Sequence[float] = ()
    ) -> BandReader:
        """Copy with mean and deviation, the given ones or those of the training images.

        Args:
            found: sums over the training images.
            mean: mean of each band that the user gives; empty takes that of ``found``.
            std: its standard deviation.
        """
        low, high = self.values or (0.0, 255.0)
        means = mean or ((found.mean() - low) / (high - low)).tolist()
        deviations = found.std()
        constant = [n for n, c in zip(self.names, deviations == 1.0, strict=True) if c]
        if constant and not std:
            rank_zero_warn(
                f"band {', '.join(constant)} has one value in all training images, and tells "
                "nothing; leave it out of data.bands",
                category=UserWarning,
            )
        scaled = np.where(deviations == 1.0, 1.0, deviations / (high - low))
        return replace(self, mean=tuple(means), std=tuple(std or scaled.tolist()))

    def image(self, source: ImageFile | np.ndarray) -> Tensor | Image.Image:
        """Read an image for a transform, missing values replaced by the band's mean.

        Args:
            source: image file, or pixels ``(H, W)`` or ``(H, W, C)``.

        Returns:
            ``(C, H, W)`` uint8, or float32 with ``values`` as 0 and 1; a grey image of 8 bits as a
            Pillow image, which is resized as others are.

        Raises:
            DataError: as :meth:`raw` and :meth:`invalid` raise it.
        """
        raw = self.raw(source)
        missing, pixels = self.invalid(source, raw), raw.pixels
        low, high = self.values or (0.0, 255.0)
        if not self.deep:
            if missing is not None:
                fill = np.rint(255 * np.array(self.mean)).clip(0, 255).astype(np.uint8)
                pixels = np.where(missing, fill[:, None, None], pixels)
            if self.chosen == GREY:
                return Image.fromarray(pixels[0])
            return torch.from_numpy(np.ascontiguousarray(pixels))
        # In double precision: differences of large integers would be lost.
        scaled = ((pixels.astype(np.float64) - low) / (high - low)).astype(np.float32)
        if missing is not None:
            fill = np.asarray(self.mean, np.float32)
            scaled = np.where(missing, fill[:, None, None], scaled)
        return torch.from_numpy(np.ascontiguousarray(scaled))

    def finish(self) -> list[nn.Module]:
        """Last steps of a transform: deep images leave it normalised."""
        return [Standardise(self.mean, self.std)] if self.deep else []

    def picture(self, image: Tensor, shown: Sequence[int]) -> Tensor:
        """Show an image of the data set as red, green and blue.

        Args:
            image: ``(C, S, S)``, as the data set has it.
            shown: numbers of three channels, or of one for a grey picture.

        Returns:
            ``(3, S, S)`` uint8. Bands of deep images are stretched from two deviations below their
            mean to two above it.
        """
        picked = image[[*shown]].expand(3, -1, -1)
        if image.dtype == torch.uint8:
            return picked
        return ((picked.float() / 4 + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)


class Standardise(nn.Module):
    """Normalise images ``(..., C, H, W)`` float32 band by band.

    Args:
        mean: mean of each band.
        std: standard deviation of each band.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean = torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float64).view(-1, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Subtract the mean, divide by the deviation."""
        return ((image.double() - self.mean) / self.std).float()


class BandJitter(nn.Module):
    """Change brightness and contrast of an image, by the same factors in all bands.

    Relations between bands stay, which are what they tell; saturation and hue are of colours alone.
    It draws from torch's global generator.

    Args:
        strength: largest deviation of both factors from 1, at least 0.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, image: Tensor) -> Tensor:
        """Change an image ``(C, H, W)`` of any type; bytes are rounded and clipped."""
        low = max(1 - self.strength, 0.0)
        factors = torch.empty(2).uniform_(low, 1 + self.strength)
        brightness, contrast = factors.tolist()
        values = image.float()
        mean = values.mean(dim=(-2, -1), keepdim=True)
        values = brightness * (mean + contrast * (values - mean))
        if image.dtype == torch.uint8:
            return values.round().clamp(0, 255).to(torch.uint8)
        return values


def band_training_transform(
    reader: BandReader,
    image_size: int,
    resize: int | None,
    crop_scale: float,
    flip: float,
    jitter: float,
) -> v2.Transform:
    """Training transform of :meth:`BandReader.image`'s images; see ``training_transform``.

    Returns:
        Map to ``(C, S, S)`` uint8, or float32 normalised.
    """
    steps = [training_transform(image_size, resize, crop_scale, flip, 0)]
    steps += [BandJitter(jitter)] if jitter else []
    return v2.Compose([*steps, *reader.finish()])


def parse_bands(given: str | int | Sequence[str | int] | None) -> Chosen | None:
    """Parse the option ``bands``.

    Args:
        given: ``grey``, ``all``, names and numbers as a list or separated by commas; or ``None``.

    Raises:
        ConfigError: it is none of these, or the list is empty.
    """
    if given is None:
        return None
    if isinstance(given, str):
        if given.strip().lower() in (GREY, "gray", ALL):
            return ALL if given.strip().lower() == ALL else GREY
        given = [word.strip() for word in given.strip("[] ").split(",")]
    words = [given] if isinstance(given, int) else list(given)
    right = all(isinstance(w, (str, int)) and not isinstance(w, bool) and w != "" for w in words)
    if not words or not right:
        raise ConfigError(
            f"`bands` must be grey, all, or names and numbers of bands such as red,nir,0, got "
            f"{given!r}."
        )
    numbers = (int(w) if isinstance(w, str) and w.isascii() and w.isdigit() else w for w in words)
    return tuple(numbers)


def parse_nodata(given: float | str | None) -> float | None:
    """Parse the option ``nodata``: a number, or ``nan``.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return None if given is None else float(given)
    except ValueError as error:
        raise ConfigError(f"`nodata` must be a number or nan, got {given!r}.") from error


def reader_from(
    noted: Mapping[str, Any], values: Any, mean: Sequence[float], std: Sequence[float]
) -> BandReader:
    """Build the reader of a checkpoint's facts or an export's manifest.

    Args:
        noted: result of :meth:`BandReader.as_dict`.
        values: values that become 0 and 1, or ``None``.
        mean: mean of each band.
        std: standard deviation of each band.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    chosen = noted["chosen"]
    reader = BandReader(
        chosen if isinstance(chosen, str) else tuple(chosen),
        tuple(map(str, noted["file_names"])),
        None if noted["nodata"] is None else float(noted["nodata"]),
        int(noted["count"]),
        bool(noted["deep"]),
        tuple(map(str, noted["names"])),
        tuple(map(int, noted["indices"])),
        None if values is None else (float(values[0]), float(values[1])),
        tuple(map(float, mean)),
        tuple(map(float, std)),
    )
    if not len(reader.mean) == len(reader.std) == len(reader.names) == len(reader.indices):
        raise ValueError(f"bands {reader.names} with mean {reader.mean}")
    return reader


def measure_all(
    reader: BandReader, sources: Sequence[ImageFile | np.ndarray]
) -> list[Statistics | DataError]:
    """Check and sum images in parallel: statistics of each, or why it cannot be used."""

    def attempt(source: ImageFile | np.ndarray) -> Statistics | DataError:
        try:
            return _measured(reader, source) if isinstance(source, Path) else reader.measure(source)
        except DataError as error:
            return error

    return map_in_threads(attempt, sources)


def joined(parts: Sequence[Statistics]) -> Statistics:
    """Add up the sums of several images."""
    return Statistics(*(np.sum(np.stack(sums), axis=0) for sums in zip(*parts, strict=True)))


def find_band_range(
    reader: BandReader, sources: Sequence[ImageFile | np.ndarray], label: str
) -> ValueRange:
    """Estimate the values of black and white of deep images, and log them.

    White is the value that 99 % of the pixels are below, of the bands red, green and blue where
    there are such, as maps are usually shown; black is 0, or below it the lowest value. Both only
    matter for first layers of sources that know a band: a band is normalised by its own mean and
    deviation whatever they are.

    Args:
        reader: reader that knows its bands.
        sources: training images.
        label: name of the data in messages.
    """
    every = max(len(sources) // RANGE_FILES, 1)
    colours = [i for i, name in enumerate(reader.names) if colour_of(name) in COLOURS]
    picked = colours or [*range(reader.channels)]

    def sample(source: ImageFile | np.ndarray) -> np.ndarray:
        raw = reader.raw(source)
        missing = reader.invalid(source, raw)
        bands = raw.pixels[picked].reshape(-1)
        kept = bands if missing is None else bands[~missing[picked].reshape(-1)]
        step = max(len(kept) // (RANGE_PIXELS * len(picked)), 1)
        return kept[::step].astype(np.float64)

    values = np.concatenate(map_in_threads(sample, [*sources][::every]))
    low = min(float(values.min()), 0.0) if values.size else 0.0
    high = float(np.quantile(values, WHITE)) if values.size else 1.0
    high = high if high > low else low + 1
    of = f"bands {', '.join(reader.names[i] for i in colours)}" if colours else "all bands"
    rank_zero_info(
        f"{label}: {low:g} is taken for black and {high:g} for white, below which {WHITE:.0%} of "
        f"the values of {of} lie (data.value_range)"
    )
    return low, high


def colour_of(name: str) -> str:
    """Name of a colour in one form: ``R`` and ``Red`` are ``red``, ``gray`` is ``grey``."""
    short = {"r": "red", "g": "green", "b": "blue", "gray": GREY, "l": GREY}
    return short.get(name.strip().lower(), name.strip().lower())


def index_among(band: str | int, names: Sequence[str]) -> int | None:
    """Number of a band, given by its name or number; ``None`` if there is none."""
    if isinstance(band, str) and band in names:
        return names.index(band)
    if isinstance(band, str) and colour_of(band) in (forms := [*map(colour_of, names)]):
        return forms.index(colour_of(band))
    try:
        number = int(band)
    except ValueError:
        return None
    return number if 0 <= number < len(names) else None


def _index_of(band: str | int, names: Sequence[str], where: str, named: bool) -> int:
    index = index_among(band, names)
    if index is not None:
        return index
    known = ", ".join(names) if named else f"0 to {len(names) - 1}"
    hint = nearest(str(band), names) if named else " Name them all with `band_names`, in order."
    raise ConfigError(f"`bands`: {where} has no band {band!r}; it has {known}.{hint}")


def _check_names(given: Sequence[str], stated: Sequence[str], where: str) -> None:
    """Check that names are different, and not those that a file states in another order.

    Raises:
        ConfigError: they are not.
    """
    forms, others = [*map(colour_of, given)], [*map(colour_of, stated)]
    if len(set(forms)) < len(forms):
        raise ConfigError(f"`band_names` must name each band once, got {', '.join(given)}.")
    if forms != others and sorted(forms) == sorted(others):
        raise ConfigError(
            f"`band_names` must have the order of the files' bands: {where} states "
            f"{', '.join(stated)}, got {', '.join(given)}. Leave `band_names` out to take the "
            "file's."
        )


def _name_of(source: ImageFile | np.ndarray) -> str:
    if isinstance(source, np.ndarray):
        return f"in memory of shape {source.shape}"
    return str(source)


def _read(source: ImageFile | np.ndarray) -> BandFile:
    if not isinstance(source, np.ndarray):
        return read_bands(source)
    if source.ndim == 2:
        return BandFile(source[None], (GREY,))
    pixels = source.transpose(2, 0, 1) if source.shape[-1] <= 4 else bands_first(source)
    return BandFile(pixels, COLOURS if len(pixels) == 3 else ())


@lru_cache(maxsize=1 << 17)
def _measured_file(reader: BandReader, path: Path, size: int, changed: int) -> Statistics:
    return reader.measure(path)


def _measured(reader: BandReader, path: Path) -> Statistics:
    """Statistics of a file, kept for the process: data are set up several times in one."""
    try:
        status = path.stat()
    except OSError:
        return reader.measure(path)
    bare = replace(reader, values=None, mean=(), std=())
    return _measured_file(bare, path, status.st_size, status.st_mtime_ns)


def _check_grey(where: str, found: BandFile) -> None:
    if len(found.pixels) not in (1, 2, 3, 4):
        raise DataError(
            f"The image {where} has {len(found.pixels)} bands, and none is grey; expected a grey "
            "or a colour image. Name the band to use with `bands`."
        )


def _grey(found: BandFile) -> np.ndarray:
    """Grey image ``(1, H, W)`` of a grey or colour image, transparent pixels on white."""
    pixels = found.pixels
    if len(pixels) == 1:
        return pixels
    if pixels.dtype == np.uint8:
        modes = {2: "LA", 3: "RGB", 4: "RGBA"}
        image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), modes[len(pixels)])
        return np.asarray(to_rgb(image).convert("L"))[None]
    if len(pixels) == 2:
        return pixels[:1]
    weights = np.array(LUMINANCE)[:, None, None]
    return (weights * pixels[:3]).sum(axis=0, keepdims=True).astype(np.float32)
