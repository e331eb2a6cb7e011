"""Images in memory that loader processes share, however the processes are started.

A forked process shares its parent's memory anyway. One that is spawned, as on Windows and macOS, or
comes from a fork server gets pickled data: each loader process would have its own copy.
"""

from __future__ import annotations

import multiprocessing.context
from itertools import accumulate
from typing import Any, SupportsIndex

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

ABSENT = -1
"""Placeholder for the number of channels of an image without a channel axis."""


class ImageList(list):
    """List of images that is passed to new processes through shared memory.

    The first start of a process moves the images into one block of shared memory; the system frees
    it with the last process that uses it. If the block does not fit, each process gets a copy, and
    a warning is given. Otherwise the list is pickled and copied like any other. It must not be
    changed once a process has been started.

    Args:
        items: uint8 arrays, which are shared, and anything else, such as paths, which is not.
    """

    _block: Tensor | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        starts_process = multiprocessing.context.get_spawning_popen() is not None
        if not starts_process or not (self._block is not None or self._share()):
            return ImageList, (list(self),)
        # What is shared is left out; torch sends the block as a handle while a process is started.
        rest = [None if _is_image(item) else item for item in self]
        shapes = [(*item.shape, ABSENT)[:3] for item in self if _is_image(item)]
        return _from_block, (self._block, np.array(shapes, np.int64), rest)

    def _share(self) -> bool:
        """Move the images into shared memory; returns whether there were any and they fit."""
        images = [item for item in self if _is_image(item)]  # they stay until they are copied
        size = sum(image.size for image in images)
        if not size:
            return False
        try:
            # Reserved on creation: where it does not fit, this fails and no later access does.
            storage = torch.UntypedStorage._new_shared(size)
        except RuntimeError as error:
            rank_zero_warn(
                f"{size / 2**20:.0f} MB of images do not fit the shared memory of this system "
                f"({error}): each loader process gets a copy. Enlarge the shared memory (of a "
                "container by --shm-size), lower data.cache_mb or data.num_workers.",
                category=UserWarning,
            )
            return False
        self._block = torch.empty(0, dtype=torch.uint8).set_(storage)
        shared = iter(_views(self._block, [image.shape for image in images]))
        for place, item in enumerate(self):
            if _is_image(item):
                view = next(shared)
                view[...] = item
                self[place] = view
        return True


def _is_image(item: object) -> bool:
    return isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim in (2, 3)


def _views(block: Tensor, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Images of a block, one after the other."""
    pixels = block.numpy()
    ends = accumulate(int(np.prod(shape)) for shape in shapes)
    return [
        pixels[end - int(np.prod(shape)) : end].reshape(shape)
        for end, shape in zip(ends, shapes, strict=True)
    ]


def _from_block(block: Tensor, shapes: np.ndarray, rest: list) -> ImageList:
    """Rebuild the list in a new process.

    Args:
        block: all images, ``(bytes,)`` uint8.
        shapes: ``(n, 3)`` of the images, with ``ABSENT`` for those of two axes.
        rest: the list, ``None`` in place of each image.
    """
    images = iter(
        _views(block, [tuple(n for n in shape if n != ABSENT) for shape in shapes.tolist()])
    )
    result = ImageList(next(images) if item is None else item for item in rest)
    result._block = block
    return result
