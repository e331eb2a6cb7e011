"""What the processes of an evaluation have seen, brought together: files hold all images."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def gathered(part: T) -> list[T]:
    """Parts of all processes, in their order; all processes have to call it.

    Args:
        part: of this process; anything that can be pickled.

    Returns:
        One part a process; with a single process the one that was given.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [part]
    parts: list[T] = [part] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts
