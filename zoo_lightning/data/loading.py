"""Loaders whose order and randomness depend on nothing but the seed and the position in training.

A run that was stopped in the middle of an epoch goes on with the very batch that would have come
next, augmented in the very same way: the position is part of Lightning's checkpoint (its protocol
for stateful loaders), and a sample's random numbers come from (seed, epoch, index) alone, whatever
the number of workers.
"""

from __future__ import annotations

import os
import signal
from ctypes import c_bool
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from zoo_lightning.errors import ConfigError, DataError
from zoo_lightning.stopping import STOPPING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Random numbers of one training sample: the same for the same three numbers, always."""
    # Mixed by three odd constants so that neighbouring epochs and indices share no stream.
    mixed = (
        seed * 0x9E3779B97F4A7C15 + epoch * 0xBF58476D1CE4E5B9 + index * 0x94D049BB133111EB
    ) % (2**63)
    return torch.Generator().manual_seed(mixed)


class SignalsToParent:
    """``worker_init_fn`` for loader processes that outlive Ctrl-C, SIGTERM and a closed terminal.

    All of them reach the whole process group; the training process finishes its step, saves and
    ends its loader processes itself. Those that something keeps until it ends, such as the
    traceback of an error, :mod:`multiprocessing` then ends by SIGTERM and waits for: that one they
    obey.
    """

    def __init__(self) -> None:
        self._ending = RawValue(c_bool, False)  # shared with the loader processes
        # Finalizers of this priority run before processes are terminated.
        Finalize(None, self._end, exitpriority=0)

    def __call__(self, worker: int) -> None:
        """Set the signals of the loader process with this number."""
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
    """Loader processes where none are asked for: one less than the cores, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(4, max((cores or 1) - 1, 0))


class ShuffledSampler(DistributedSampler):
    """A new order every epoch, started at any batch of it.

    Yields ``(epoch, index)`` pairs. It is a ``DistributedSampler`` so that Lightning does not put
    its own in its place; the last incomplete batch of an epoch is left out on every rank.

    Args:
        size: number of samples in the data set.
        batch_size: samples per batch and rank.
        seed: of the order.
        rank: of this process.
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
        """Do nothing: the position says which epoch it is, also after a restart."""


class StridedSampler(DistributedSampler):
    """Every sample exactly once over all ranks, in order; nothing is repeated to even out ranks."""

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is always the same."""


class ResumableLoader(DataLoader):
    """Training loader that knows where it is; ``state_dict`` is what Lightning saves of it."""

    sampler: ShuffledSampler

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.sampler.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Position in batches since training began."""
        return {"position": self.sampler.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved position."""
        self.sampler.position = state["position"]


class ImageDataModule(pl.LightningDataModule):
    """What the data modules of images share: loaders, and normalisation on the device.

    A subclass's ``setup`` sets ``train_set``, ``val_set`` and ``test_set`` as its stage needs them.
    A training set is indexed by ``(epoch, index)``, the others by ``index``; each item is a
    dictionary whose ``image`` is uint8 ``(3, H, W)``.

    Args:
        image_size: side of the square input, pixels.
        batch_size: samples per step and process.
        num_workers: loader processes; ``None`` takes one less than the cores, at most 4.
        seed: of the order, the augmentation and the validation split.
        mean: subtracted from each channel of an image in [0, 1].
        std: what each channel is then divided by.

    Raises:
        ConfigError: a number below what makes sense.
    """

    train_set: Dataset
    val_set: Dataset
    test_set: Dataset

    def __init__(
        self,
        image_size: int,
        batch_size: int,
        num_workers: int | None,
        seed: int,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        sizes = {"image_size": image_size, "batch_size": batch_size}
        for name, value in sizes.items():
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1, found {value}.")
        if num_workers is not None and num_workers < 0:
            raise ConfigError(f"`num_workers` must be at least 0, found {num_workers}.")
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = default_workers() if num_workers is None else num_workers
        self.seed = seed
        self.mean = tuple(mean)
        self.std = tuple(std)

    def facts(self) -> dict[str, Any]:
        """What somebody must know who feeds a network that was trained on these data.

        Returns:
            Plain values, for checkpoints and exports: ``image_size``, ``mean``, ``std`` and, from
            subclasses, ``preprocessing`` (what becomes of an image of any size) and the meaning of
            the outputs.
        """
        return {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}

    def training_options(self) -> dict[str, Any]:
        """Options that decide what is trained on and validated by, and in which order.

        A run goes on with the same ones only. Not those that say where data lie or how fast they
        are read; with another number of processes the joint batch is what must stay the same.

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
        }

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> ResumableLoader:
        """Endlessly reshuffled training batches; the incomplete last one of an epoch is dropped."""
        rank, world_size = self._ranks()
        size = len(self.train_set)  # type: ignore[arg-type]
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
            sampler=ShuffledSampler(size, batch_size, self.seed, rank, world_size),
            drop_last=True,
            **self._worker_options(),
        )

    def _worker_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": SignalsToParent(),
        }

    def _ordered_loader(self, dataset: Dataset) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=StridedSampler(len(dataset), *self._ranks()),  # type: ignore[arg-type]
            **self._worker_options(),
        )

    def val_dataloader(self) -> DataLoader:
        """Validation samples, in order, without augmentation."""
        return self._ordered_loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Test samples, in order, without augmentation."""
        return self._ordered_loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """Predictions are made for the test samples."""
        return self._ordered_loader(self.test_set)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Turn uint8 images into normalised floats, on the device, after the cheap transfer."""
        images = batch["image"]
        if images.dtype == torch.uint8:
            mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
            std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
            batch = {**batch, "image": (images.float() / 255 - mean) / std}
        return batch
