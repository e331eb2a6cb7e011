"""Adaptation of the input kernel, the one tensor whose shape may differ, to the image channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timm.models import adapt_input_conv
from torch import Tensor

IMAGE_CHANNELS = (1, 2, 3, 4)
"""Input channels that a source may have been trained with, times those of a folded stem."""

STEM_FOLDS = (1, 4, 16)
"""Numbers of channels into which a stem may fold each image channel (space to depth)."""


def input_kernel(reference: Mapping[str, Tensor]) -> str | None:
    """Return the key of the first convolution's kernel ``(C_out, C_in, k, k)``, if any."""
    return next((key for key, tensor in reference.items() if tensor.ndim == 4), None)


def adapt_input_kernel(found: Tensor, wanted: Tensor) -> Tensor | None:
    """Change an input kernel to another number of image channels by timm's rule.

    One channel takes the sum over the channels; more channels repeat them, scaled so that the
    response to a grey image stays.

    Args:
        found: The source's kernel ``(C_out, C_in, k, k)``.
        wanted: The architecture's kernel ``(C_out, C_in', k, k)``.

    Returns:
        The changed kernel, or ``None`` if the shapes differ in more than the image channels.
    """
    if found.ndim != 4 or found.shape[0] != wanted.shape[0] or found.shape[2:] != wanted.shape[2:]:
        return None
    for fold in STEM_FOLDS:
        base, extra = divmod(found.shape[1], fold)
        channels, odd = divmod(wanted.shape[1], fold)
        if extra or odd or base not in IMAGE_CHANNELS or channels == base:
            continue
        try:
            changed = adapt_input_conv(channels, found, base_chans=base)
        except NotImplementedError:
            continue
        if changed.shape == wanted.shape:
            return changed
    return None


def adapt_statistics(values: Sequence[float] | None, in_chans: int) -> tuple[float, ...] | None:
    """Adapt means or standard deviations per channel to another number of channels.

    One channel takes the average, more channels repeat them.

    Args:
        values: Value of each channel; ``None`` if unknown.
        in_chans: Number of image channels.

    Returns:
        ``in_chans`` values; ``None`` if unknown.
    """
    if not values:
        return None
    if in_chans == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_chans))
