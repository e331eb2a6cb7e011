"""Data loaders whose order and augmentation depend only on seed and position in training.

A run that was interrupted within an epoch resumes with the batch that would have come next,
augmented in the same way: the position is part of Lightning's checkpoint (its protocol for stateful
loaders), and a sample's random numbers come from (seed, epoch, index) alone, whatever the number of
workers.
"""

from __future__ import annotations

import copy
import os
import signal
from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from zoo_lightning.data.augmentation import NO_AUGMENTATION, Augmentation
from zoo_lightning.data.values import (
    find_value_range,
    parse_value_range,
    settled_value_range,
    warn_of_clipping,
)
from zoo_lightning.errors import ConfigError, DataError
from zoo_lightning.runs.stopping import STOPPING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import FrameType

    from zoo_lightning.data.stored_images import ImageFile

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Random generator of a training sample, determined by seed, epoch and index alone."""
    # Mixed by three odd constants so that neighbouring epochs and indices share no stream.
    mixed = (
        seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + index * 0x94D049BB133111EB
    ) % (2**63)
    return torch.Generator().manual_seed(mixed)


class SignalsToParent:
    """``worker_init_fn`` that makes loader processes ignore Ctrl-C, SIGTERM and SIGHUP.

    These signals reach the whole process group; the training process finishes its step, saves and
    ends its loader processes itself. Loader processes that still exist when the training process
    exits are ended by :mod:`multiprocessing` with SIGTERM, which they then obey.
    """

    def __init__(self) -> None:
        self._ending = RawValue(c_bool, False)  # shared with the loader processes
        # Finalizers of this priority run before processes are terminated.
        Finalize(None, self._end, exitpriority=0)

    def __call__(self, worker: int) -> None:
        """Set the signal handlers of a loader process."""
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._handle)
        signal.siginterrupt(signal.SIGTERM, False)  # reading goes on as if it were ignored

    def _end(self) -> None:
        self._ending.value = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._ending.value:
            os._exit(0)


def default_workers() -> int:
    """Default number of loader processes: one less than the cores, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(4, max((cores or 1) - 1, 0))


class ShuffledSampler(DistributedSampler):
    """Sampler with a new random order every epoch, which can resume at any batch.

    Yields ``(epoch, index)`` pairs. It is a ``DistributedSampler`` so that Lightning does not
    replace it by its own; the last incomplete batch of an epoch is left out on every rank.

    Args:
        size: number of samples in the data set.
        batch_size: samples per batch and rank.
        seed: seed of the order.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.batches_per_epoch = size // (batch_size * world_size)
        self.position = 0
        """Batches delivered since training began."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, batch = divmod(self.position, self.batches_per_epoch)
        order = torch.randperm(self.size, generator=sample_generator(self.seed, epoch, -1))
        mine = order[self.rank :: self.world_size].tolist()
        stop = self.batches_per_epoch * self.batch_size
        return iter([(epoch, index) for index in mine[batch * self.batch_size : stop]])

    def __len__(self) -> int:
        return self.batches_per_epoch * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the epoch follows from the position, also in a resumed run."""


class BalancedSampler(ShuffledSampler):
    """Sampler that draws each class equally often, and can resume at any batch.

    The samples come in blocks of one of each class, in random order. Each class goes through its
    own samples in random order, all of them before any comes again: in an epoch, which has as many
    batches as that of :class:`ShuffledSampler`, those of a rare class come several times, of a
    common one a part comes. A repeated sample is augmented again: the first number of its pair
    ``(round, index)`` counts how often its class has been gone through.

    Args:
        labels: class of each sample.
        batch_size: samples per batch and rank.
        seed: seed of the order.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(
        self, labels: Sequence[int], batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(len(labels), batch_size, seed, rank, world_size)
        found = torch.tensor(labels)
        self.members = [(found == label).nonzero().flatten() for label in found.unique()]
        """Indices of the samples of each class that occurs."""
        drawn = self.batches_per_epoch * batch_size * world_size
        self.blocks = -(-drawn // len(self.members))
        """Blocks of an epoch, of one sample of each class; the last one may be incomplete."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, batch = divmod(self.position, self.batches_per_epoch)
        drawn = torch.stack([self._of_class(epoch, each) for each in range(len(self.members))], 1)
        generator = sample_generator(self.seed, epoch, -1)
        places = torch.rand(self.blocks, len(self.members), generator=generator).argsort(dim=1)
        order = drawn.gather(1, places[..., None].expand(-1, -1, 2)).flatten(0, 1)
        mine = order[self.rank :: self.world_size].tolist()
        start, stop = batch * self.batch_size, self.batches_per_epoch * self.batch_size
        return iter([(turn, index) for turn, index in mine[start:stop]])

    def _of_class(self, epoch: int, label: int) -> torch.Tensor:
        """Rounds and indices ``(blocks, 2)`` of a class's samples in an epoch."""
        own = self.members[label]
        first = epoch * self.blocks
        rounds = range(first // len(own), (first + self.blocks - 1) // len(own) + 1)
        orders = [
            own[torch.randperm(len(own), generator=sample_generator(self.seed, turn, -5 - label))]
            for turn in rounds
        ]
        turns = torch.tensor(rounds).repeat_interleave(len(own))
        pairs = torch.stack([turns, torch.cat(orders)], dim=1)
        start = first - rounds.start * len(own)
        return pairs[start : start + self.blocks]


class StridedSampler(DistributedSampler):
    """Sampler of every sample exactly once over all ranks, in order, without padding."""

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is always the same."""


class SizedDataset(Dataset[dict[str, Any]]):
    """Base class of map-style data sets whose samples are dictionaries."""

    def __len__(self) -> int:
        raise NotImplementedError


class ResumableLoader(DataLoader):
    """Training loader that resumes in the middle of an epoch.

    Lightning saves its ``state_dict`` in checkpoints.
    """

    sampler: ShuffledSampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # the position is counted here
        for batch in super().__iter__():
            self.sampler.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Position in batches since training began."""
        return {"position": self.sampler.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume at a saved position."""
        self.sampler.position = state["position"]


def without_augmentation(train_set: SizedDataset, val_set: SizedDataset | None) -> SizedDataset:
    """Copy a training set without its augmentation.

    Args:
        train_set: training set, augmented by its ``transform``, ``options`` or ``photos``.
        val_set: validation set, whose transform replaces the training set's.
    """
    plain: Any = copy.copy(train_set)
    reference: Any = val_set
    if hasattr(plain, "transform") and hasattr(val_set, "transform"):
        plain.transform = reference.transform
    if isinstance(getattr(plain, "options", None), Augmentation):
        plain.options = NO_AUGMENTATION
    if hasattr(plain, "photos") and hasattr(val_set, "photos"):
        plain.photos = without_augmentation(plain.photos, reference.photos)
    return plain


class ImageDataModule(pl.LightningDataModule):
    """Base data module of images, with resumable loaders and normalisation on the device.

    The ``setup`` of a subclass sets those of ``train_set``, ``val_set`` and ``test_set`` that the
    stage needs. A training set is indexed by ``(epoch, index)``, the others by ``index``; each item
    is a dictionary whose ``image`` is uint8 ``(3, H, W)``.

    Args:
        image_size: side of the square input, pixels.
        batch_size: samples per step and process.
        num_workers: number of loader processes; ``None``: one less than the cores, at most 4.
        seed: seed of the sample order, the augmentation and the validation split.
        mean: per-channel mean, subtracted from images in [0, 1].
        std: standard deviation that each channel is then divided by.
        value_range: pixel values of black and white in images with more than 8 bits or
            floating-point values, as ``LOW,HIGH`` or two numbers; ``None`` estimates them from the
            training images, see :mod:`zoo_lightning.data.values`.

    Raises:
        ConfigError: a number is out of range.
    """

    train_set: SizedDataset
    val_set: SizedDataset
    test_set: SizedDataset

    def __init__(
        self,
        image_size: int,
        batch_size: int,
        num_workers: int | None,
        seed: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        value_range: tuple[float, float] | str | None = None,
    ) -> None:
        super().__init__()
        sizes = {"image_size": image_size, "batch_size": batch_size}
        for name, value in sizes.items():
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {value}.")
        if num_workers is not None and num_workers < 0:
            raise ConfigError(f"`num_workers` must be at least 0, got {num_workers}.")
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = default_workers() if num_workers is None else num_workers
        self.seed = seed
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.value_range = parse_value_range(value_range)
        """Values of black and white in images with more than 8 bits; ``None`` if there are none."""
        self._on_device: dict[Any, tuple[Tensor, Tensor]] = {}

    def facts(self) -> dict[str, Any]:
        """Facts needed to preprocess images for a network that was trained on these data.

        Returns:
            Plain values, for checkpoints and exports: ``image_size``, ``mean``, ``std`` and, from
            subclasses, ``preprocessing`` (how an image of any size becomes the input) and the
            meaning of the outputs; ``value_range`` where images have more than 8 bits.
        """
        facts = {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}
        return facts | ({"value_range": list(self.value_range)} if self.value_range else {})

    def training_options(self) -> dict[str, Any]:
        """Options that determine the training and validation samples and their order.

        A run can be resumed only with the same values. Options of where the data lie and how fast
        they are read are not included; with another number of processes, the total batch size must
        be the same.

        Returns:
            Plain values by the options' names, for checkpoints.
        """
        return {
            "class_path": type(self).__name__,
            "image_size": self.image_size,
            "batch_size of all processes": self.batch_size * self._ranks()[1],
            "seed": self.seed,
            "mean": list(self.mean),
            "std": list(self.std),
            "value_range": self.value_range and list(self.value_range),
        }

    def _find_value_range(self, files: Iterable[ImageFile], label: str) -> None:
        """Find ``value_range`` from training images if it was not given.

        Args:
            files: training and validation images.
            label: name of the data in messages.
        """
        if self.value_range is None:
            self.value_range = find_value_range(files, label)

    def _find_test_value_range(
        self, files: Sequence[ImageFile], training: Callable[[], Sequence[ImageFile]], label: str
    ) -> None:
        """Find ``value_range`` for a test if it is not known, and warn of images that exceed it.

        Args:
            files: test images.
            training: returns the training images, or raises ``DataError`` if there are none.
            label: name of the data in messages.
        """
        if self.value_range is None:
            self.value_range = settled_value_range(files, training, label)
        if self.value_range is not None:
            warn_of_clipping(files, self.value_range, label)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> ResumableLoader:
        """Loader of shuffled training batches; the incomplete last one of an epoch is dropped."""
        rank, world_size = self._ranks()
        size = len(self.train_set)
        if size < world_size:
            raise DataError(
                f"{size} training images are fewer than the {world_size} processes; add images or "
                "lower trainer.devices."
            )
        # A data set smaller than one batch is still one batch an epoch.
        batch_size = max(min(self.batch_size, size // world_size), 1)
        return ResumableLoader(
            self.train_set,
            batch_size=batch_size,
            sampler=self._training_sampler(batch_size, rank, world_size),
            drop_last=True,
            **self._worker_options(),
        )

    def _training_sampler(self, batch_size: int, rank: int, world_size: int) -> ShuffledSampler:
        """Create the sampler of the training samples."""
        return ShuffledSampler(len(self.train_set), batch_size, self.seed, rank, world_size)

    def _worker_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": SignalsToParent(),
        }

    def _ordered_loader(self, dataset: SizedDataset) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=StridedSampler(len(dataset), *self._ranks()),
            **self._worker_options(),
        )

    def val_dataloader(self) -> DataLoader:
        """Loader of the validation samples, in order, without augmentation."""
        return self._ordered_loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Loader of the test samples, in order, without augmentation."""
        return self._ordered_loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """Loader of the test samples, in order, for predictions."""
        return self._ordered_loader(self.test_set)

    def unvaried_batches(self, samples: int) -> Iterator[dict[str, Any]]:
        """Yield batches of randomly chosen training samples without augmentation, by seed.

        Call ``setup("fit")`` first. Images are not yet normalised: :meth:`on_after_batch_transfer`
        does that.

        Args:
            samples: number of samples, or all if there are fewer.
        """
        dataset = without_augmentation(self.train_set, getattr(self, "val_set", None))
        generator = sample_generator(self.seed, 0, -3)
        chosen = torch.randperm(len(dataset), generator=generator)[:samples].sort().values
        yield from DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=[(0, index) for index in chosen.tolist()],
            num_workers=self.num_workers,
            worker_init_fn=SignalsToParent(),
        )

    def varies_training_images(self) -> bool:
        """Whether training images differ between epochs, by augmentation; ``True`` if unknown."""
        return True

    def fixed_training_batches(self) -> Iterator[dict[str, Any]]:
        """Yield batches of all training samples of the first epoch, in the order of the indices.

        Call ``setup("fit")`` first. Images are not yet normalised: :meth:`on_after_batch_transfer`
        does that.
        """
        yield from DataLoader(
            self.train_set,
            batch_size=self.batch_size,
            sampler=[(0, index) for index in range(len(self.train_set))],
            num_workers=self.num_workers,
            worker_init_fn=SignalsToParent(),
        )

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Convert uint8 images to normalised floats on the device."""
        if not isinstance(batch, dict):  # images alone, as a table of the model's parts takes them
            return batch
        images = batch["image"]
        if images.dtype == torch.uint8:
            mean, std = self._normalisation_on(images.device)
            batch = {**batch, "image": (images.float() / 255 - mean) / std}
        return batch

    def _normalisation_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``(3, 1, 1)``, copied to a device once for all batches."""
        key = (device, self.mean, self.std)
        if key not in self._on_device:
            mean, std = (
                torch.tensor(numbers, device=device).view(-1, 1, 1)
                for numbers in (self.mean, self.std)
            )
            self._on_device = {key: (mean, std)}
        return self._on_device[key]
