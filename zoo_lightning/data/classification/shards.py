"""Data module of WebDataset shards: tar archives of images and labels, read where they lie.

Shards are indexed once and read by position, nothing is unpacked. So a training resumes at any
sample, and all that looks at single samples works as with files.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.annotation_text import text_lines
from zoo_lightning.data.classification.base import ClassData, in_class_order
from zoo_lightning.data.classification.dataset import Sample
from zoo_lightning.data.classification.lists import MOST_CLASSES
from zoo_lightning.data.image_files import image_suffixes, is_hidden, one_form
from zoo_lightning.data.labelled import Part
from zoo_lightning.data.loading import ShuffledSampler, sample_generator
from zoo_lightning.data.splitting import names_of_validation
from zoo_lightning.data.stored_images import FileSection, StoredImage
from zoo_lightning.errors import ConfigError, DataError, nearest

NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""A range of numbers in a shard's name, as in ``{000..009}``."""

MOST_SHARDS = 1_000_000
"""Largest number of shards that a range may stand for."""

LARGEST_LABEL = 1 << 20
"""Bytes of a label file from which it is taken for a mistake."""

MOST_LETTERS = 300
"""Letters of a label that are kept."""


@dataclass(frozen=True)
class ShardImage(StoredImage):
    """Image inside a shard.

    Args:
        shard: the tar archive.
        key: name of the sample in the shard.
        suffix: lower-case suffix of the image with its dot.
        offset: first byte of the image in the shard.
        size: bytes of the image.
    """

    shard: Path
    key: str
    suffix: str
    offset: int
    size: int

    @property
    def name(self) -> str:  # type: ignore[override]  # derived, for there are many
        """Shard and key, with the image's suffix."""
        return f"{self.shard.name}/{self.key}{self.suffix}"

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the encoded image for reading."""
        return io.BufferedReader(FileSection(self.shard, self.offset, self.size))

    def __str__(self) -> str:
        return f"{self.shard}, {self.key}{self.suffix}"


class Record(NamedTuple):
    """Sample of a shard: its image, and its label as text."""

    image: ShardImage
    label: str


class WebDatasetShards(ClassData):
    """Data module of WebDataset shards: uncompressed ``.tar`` archives of images and labels.

    The members of a sample follow one another and share their name up to the first dot: an image,
    and its label as ``KEY.cls``, a number or a name, or in ``KEY.json`` under ``label_key``. Other
    members are ignored. ``classes.txt`` beside the shards has the names of the classes, one a line;
    without it they are the numbers from 0, or the labels in alphabetical order if they are names.

    An epoch reads the shards in random order, and draws its samples from a buffer of some of them.
    Each process reads shards of its own, up to the one where its part of the samples begins; its
    loader processes share these. A run resumes exactly, with the same number of processes.

    Without validation shards, images of each class are split off the training samples;
    ``group_pattern: .*`` splits off whole shards. Without test shards, the validation shards are
    the test part, and validation images are split off the training samples as well.

    Args:
        root: folder of the shards.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        train_shards: names of the training shards in ``root``: ``*`` stands for any text,
            ``{000..009}`` for a range of numbers, all of which must exist.
        val_shards: names of the validation shards, if there are any.
        test_shards: names of the test shards.
        label_key: key of the label in ``.json`` members.
        shuffle_buffer: number of samples among which each next training sample is drawn, at least
            1. More mix the samples of more shards.
        options: further options of ``ClassData``. With ``balanced``, samples of all shards are
            drawn at any time.

    Raises:
        ConfigError: an option is out of range.
        DataError: there are no shards, or a shard or a sample cannot be used.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        batch_size: int = 64,
        train_shards: str = "train-*.tar",
        val_shards: str = "val-*.tar",
        test_shards: str = "test-*.tar",
        label_key: str = "label",
        shuffle_buffer: int = 10_000,
        **options: Any,
    ) -> None:
        self.root = Path(root)
        if shuffle_buffer < 1:
            raise ConfigError(f"`shuffle_buffer` must be at least 1, got {shuffle_buffer}.")
        self.label_key = label_key
        self.shuffle_buffer = shuffle_buffer
        self.patterns: dict[Part, str] = {
            "train": train_shards,
            "val": val_shards,
            "test": test_shards,
        }
        if not self.root.is_dir():
            raise DataError(
                f"The folder {root} does not exist; expected `root` to be the folder of the "
                "shards, on this machine: shards elsewhere are not streamed."
            )
        self._test_part: Part = (
            "val" if find_shards(self.root, val_shards) and not self._shards("test") else "test"
        )
        only_test = not self._shards("train") and self._shards(self._test_part)
        first: Part = self._test_part if only_test else "train"
        self.classes = self._class_names(first)
        super().__init__(image_size, batch_size, **options)

    def training_options(self) -> dict[str, Any]:
        """Options of ``ClassData``, and what determines the order of the samples."""
        order = {"shuffle_buffer": self.shuffle_buffer, "processes": self._ranks()[1]}
        names = {f"{part}_shards": self.patterns[part] for part in ("train", "val")}
        return super().training_options() | names | ({} if self.balanced else order)

    def _shards(self, part: Part) -> list[Path]:
        return find_shards(self.root, self.patterns[part])

    def _records(self, part: Part) -> list[Record]:
        """Index the shards of a part.

        Raises:
            DataError: there are none, or one cannot be used.
        """
        shards = self._shards(part)
        if not shards:
            there = sorted(path.name for path in self.root.iterdir() if not is_hidden(path.name))
            raise DataError(
                f"{self.root} has no shards {self.patterns[part]}; set `{part}_shards`. It has "
                f"{', '.join(there[:5]) or 'no files'}{', ...' * (len(there) > 5)}."
            )
        return [record for shard in shards for record in records_of(shard, self.label_key)]

    def _class_names(self, part: Part) -> list[str]:
        """Names of the classes, from ``classes.txt`` or the labels of a part."""
        file = self.root / "classes.txt"
        if file.is_file():
            lines = text_lines(file, "the name of a class a line")
            names = [one_form(line.strip()) for _, line in lines]
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise DataError(f"{file} names class {twice[0]!r} twice; name each class once.")
            if not names:
                raise DataError(f"{file} is empty; expected the name of a class a line.")
            return names
        records = self._records(part)
        found = {record.label: record.image for record in records}
        numbers = [label for label in found if is_position(label)]
        if numbers and len(numbers) < len(found):
            name = next(label for label in found if not is_position(label))
            raise DataError(
                f"{found[name]} has the label {name!r} and {found[numbers[0]]} the label "
                f"{numbers[0]}; expected numbers or names, or {file} with the classes' names."
            )
        if not numbers:
            return in_class_order(found)
        largest = max(numbers, key=int)
        if int(largest) >= MOST_CLASSES:
            raise DataError(
                f"{found[largest]} has the label {largest}, expected one below {MOST_CLASSES:,}; "
                f"correct it, or list the classes in {file}."
            )
        return [str(label) for label in range(int(largest) + 1)]

    def _read(self, part: Part) -> list[Sample] | None:
        if part == "val" and (self._test_part == "val" or not self._shards("val")):
            return None
        used = self._test_part if part == "test" else part
        records = self._records(used)
        numbered = all(is_position(name) for name in self.classes)
        index = {name: label for label, name in enumerate(self.classes)}
        samples: list[Sample] = [
            (each.image, self._label(each, index, numbered)) for each in records
        ]
        shards = len(self._shards(used))
        rank_zero_info(
            f"{self.root}: {len(samples)} {part} samples in {shards} shard{'s' * (shards != 1)} "
            f"{self.patterns[used]}"
        )
        return samples

    def _unread_validation(self) -> str:
        train, val, test = (self.patterns[part] for part in ("train", "val", "test"))
        for pattern in names_of_validation(train):
            if pattern not in (val, test) and (found := find_shards(self.root, pattern)):
                return (
                    f"{found[0]} is not read, and validation images are split off {train}; give "
                    f"--data.val_shards '{pattern}' to validate on it"
                )
        return ""

    def _label(self, record: Record, index: dict[str, int], numbered: bool) -> int:
        """Find the class of a record."""
        text = record.label
        label = index.get(text)
        if label is None and is_position(text):
            # A number is the class's position, unless classes are named by numbers.
            label = index.get(str(int(text))) if numbered else int(text)
        if label is None or label >= len(self.classes):
            listed = self.root / "classes.txt"
            where = f"{listed} lists" if listed.is_file() else "the training samples have"
            raise DataError(
                f"{record.image} has the label {text!r:.80}, but {where} {len(self.classes)} "
                f"classes, {self.classes[0]} to {self.classes[-1]}."
                f"{nearest(text, self.classes)} Correct the label or the list."
            )
        return label

    def _training_sampler(self, batch_size: int, rank: int, world_size: int) -> ShuffledSampler:
        if self.balanced:
            return super()._training_sampler(batch_size, rank, world_size)
        shards = [source.shard for source in self.train_set.sources]
        return ShardSampler(shards, self.shuffle_buffer, batch_size, self.seed, rank, world_size)


class ShardSampler(ShuffledSampler):
    """Sampler that reads shards one after the other, in random order, through a shuffle buffer.

    Each rank reads a part of the samples, as they follow one another in an epoch's order of the
    shards: shards of its own, but for those in which a part begins and ends.

    Args:
        shards: shard of each sample, the samples of a shard side by side.
        buffer: number of samples among which the next one is drawn.
        batch_size: samples per batch and rank.
        seed: seed of the order.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        shards: Sequence[Any],
        buffer: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(len(shards), batch_size, seed, rank, world_size)
        self.buffer = buffer
        starts = [i for i, each in enumerate(shards) if i == 0 or each != shards[i - 1]]
        self.sections = [
            range(start, stop)
            for start, stop in zip(starts, [*starts[1:], len(shards)], strict=True)
        ]
        """Indices of the samples of each shard."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, batch = divmod(self.position, self.batches_per_epoch)
        order = torch.randperm(
            len(self.sections), generator=sample_generator(self.seed, epoch, -1)
        ).tolist()
        stream = [index for section in order for index in self.sections[section]]
        share = self.size // self.world_size
        mine = stream[self.rank * share : (self.rank + 1) * share]
        generator = sample_generator(self.seed, epoch, -5 - self.rank)
        drawn = buffered(mine, self.buffer, generator)
        start, stop = batch * self.batch_size, self.batches_per_epoch * self.batch_size
        return iter([(epoch, index) for index in drawn[start:stop]])


def buffered(stream: Sequence[int], size: int, generator: torch.Generator) -> list[int]:
    """Shuffle a stream: draw each next item among ``size`` of those that follow.

    Args:
        stream: the items in order.
        size: number of items in the buffer, at least 1.
        generator: random generator of the draws.
    """
    waiting = list(stream[:size])
    result = []
    places = torch.rand(len(stream), generator=generator, dtype=torch.float64).tolist()
    for place, item in zip(places, stream[size:], strict=False):
        chosen = int(place * len(waiting))
        result.append(waiting[chosen])
        waiting[chosen] = item
    rest = torch.randperm(len(waiting), generator=generator).tolist()
    return result + [waiting[i] for i in rest]


def is_position(label: str) -> bool:
    """Whether a label is a position in the list of classes, counted from 0: ASCII digits."""
    return label.isascii() and label.isdigit()


def find_shards(root: Path, pattern: str) -> list[Path]:
    """Find the shards that a pattern stands for, in the order of their names.

    Args:
        root: folder of the shards.
        pattern: name with ``*`` for any text and ``{000..009}`` for ranges of numbers.

    Returns:
        Paths; empty if a pattern with ``*`` matches none, or none of a range exists.

    Raises:
        ConfigError: the pattern leads out of the folder.
        DataError: some shards of a range do not exist.
    """
    if ":" in pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
        raise ConfigError(
            f"shards must be files inside `root`, got {pattern!r}; what lies elsewhere is not "
            "streamed: copy it to this machine."
        )
    names = list(expanded(pattern))
    found = [path for name in names for path in sorted(root.glob(name)) if path.is_file()]
    if found and len(names) > 1:
        absent = [name for name in names if "*" not in name and not (root / name).is_file()]
        if absent:
            raise DataError(
                f"{root / absent[0]} does not exist, which {pattern} names ({len(absent)} of "
                f"{len(names)} are absent); add the shards, or correct the range."
            )
    return [path for path in dict.fromkeys(found) if not is_hidden(path.name)]


def expanded(pattern: str) -> Iterator[str]:
    """Yield the names that a pattern with ranges of numbers stands for."""
    found = NUMBERS.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    if not 0 <= int(last) - int(first) < MOST_SHARDS:
        raise ConfigError(f"a range of shards must rise, got {found.group()} in {pattern!r}.")
    for number in range(int(first), int(last) + 1):
        name = f"{number:0{len(first)}d}"
        yield from expanded(pattern[: found.start()] + name + pattern[found.end() :])


def records_of(shard: Path, label_key: str) -> tuple[Record, ...]:
    """Index a shard: where its images are, and their labels.

    Raises:
        DataError: the shard or one of its samples cannot be used.
    """
    try:
        state = shard.stat()
        return _indexed(shard, label_key, state.st_size, state.st_mtime_ns)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(
            f"The shard {shard} cannot be read as an uncompressed tar archive ({error}): copy it "
            "again if it is incomplete, unpack it (gunzip, unzstd) if it is compressed."
        ) from error


@lru_cache(maxsize=65536)
def _indexed(shard: Path, label_key: str, size: int, changed: int) -> tuple[Record, ...]:
    """Index a shard; its size and the time of its last change tell whether it is still the same."""
    records: list[Record] = []
    key = ""
    members: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(shard, "r:") as archive, shard.open("rb") as stream:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else all would be kept
            path = PurePosixPath(member.name)
            if not member.isreg() or member.issparse() or is_hidden(path.name):
                continue
            stem, _, kind = path.name.partition(".")
            if (of := str(path.parent / stem)) != key and members:
                records.append(_record(shard, key, members, label_key, stream))
                members = {}
            key = of
            members[kind.lower()] = member
        if members:
            records.append(_record(shard, key, members, label_key, stream))
        stream.seek(archive.offset)
        end = stream.read(tarfile.BLOCKSIZE)
        if end.strip(b"\0"):  # tarfile takes damage for the end
            raise tarfile.ReadError(f"damaged from byte {archive.offset} on")
        if not end:  # cut off behind a member, which tarfile takes for the end, too
            raise tarfile.ReadError(f"no end of the archive at byte {archive.offset}")
    if not records:
        raise DataError(f"The shard {shard} has no samples; remove it.")
    return tuple(records)


def _record(
    shard: Path,
    key: str,
    members: dict[str, tarfile.TarInfo],
    label_key: str,
    stream: BinaryIO,
) -> Record:
    """Make the record of a sample from its members, by their suffixes without the first dot."""
    place = f"{shard}, sample {key!r}"
    kinds = [kind for kind in members if f".{kind}" in image_suffixes()]
    if len(kinds) != 1:
        raise DataError(
            f"{place} has {len(kinds) or 'no'} image{'s' * (len(kinds) > 1)} among its members "
            f"({', '.join([*members][:8])}{', ...' * (len(members) > 8)}); expected one, and "
            "KEY.cls or KEY.json beside it. A key ends at the first dot."
        )
    member = members[kinds[0]]
    image = ShardImage(shard, key, f".{kinds[0]}", member.offset_data, member.size)
    kind = "cls" if "cls" in members else "json"
    if kind not in members:
        raise DataError(
            f"{place} has no label ({', '.join(members)}); expected KEY.cls or KEY.json beside the "
            "image, and the members of a sample side by side."
        )
    if members[kind].size > LARGEST_LABEL:
        raise DataError(f"{place}: its .{kind} has {members[kind].size:,} bytes; expected a label.")
    stream.seek(members[kind].offset_data)
    content = stream.read(members[kind].size)
    try:
        text = content.decode("utf-8")
        found = json.loads(text) if kind == "json" else text.strip()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: its .{kind} cannot be read ({error}); correct it.") from error
    if kind == "json":
        there = list(found) if isinstance(found, dict) else []
        if not isinstance(found, dict) or label_key not in found:
            raise DataError(
                f"{place}: its .json has no {label_key!r}, it has "
                f"{', '.join(there[:8]) or 'no keys'}; set `label_key` to the label's."
            )
        found = found[label_key]
    if isinstance(found, bool) or not isinstance(found, (int, str)) or found == "":
        raise DataError(
            f"{place} has the label {str(found)!r:.80}; expected the number or the name of a class."
        )
    return Record(image, one_form(str(found)[:MOST_LETTERS]))
