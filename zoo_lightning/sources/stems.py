"""Adaptation of the input kernel to the zoo's images: their channels and their normalisation.

It is the one tensor whose shape may differ, and the one that sees how images were normalised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from timm.models import adapt_input_conv
from torch import Tensor

from zoo_lightning.sources.normalisation import Normalisation

IMAGE_CHANNELS = (1, 2, 3, 4)
"""Input channels that a source may have been trained with, times those of a folded stem."""

STEM_FOLDS = (1, 4, 16)
"""Numbers of channels into which a stem may fold each image channel (space to depth)."""


LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey image (ITU-R BT.601, as Pillow's mode ``L``)."""

GREY, COLOURS = "grey", ("red", "green", "blue")
"""Names of the channels of usual pictures."""


class ChannelsError(ValueError):
    """No rule relates the channels of the zoo's images to those that a source takes."""


def input_kernel(reference: Mapping[str, Tensor]) -> str | None:
    """Return the key of the first convolution's kernel ``(C_out, C_in, k, k)``, if any."""
    return next((key for key, tensor in reference.items() if tensor.ndim == 4), None)


def adapt_input_kernel(found: Tensor, wanted: Tensor, declared: int = 0) -> Tensor | None:
    """Change an input kernel to another number of image channels by timm's rule.

    One channel takes the sum over the channels; more channels repeat them, scaled so that the
    response to a grey image stays.

    Args:
        found: The source's kernel ``(C_out, C_in, k, k)``.
        wanted: The architecture's kernel ``(C_out, C_in', k, k)``.
        declared: Number of channels that the source declares; 0 if it declares none.

    Returns:
        The changed kernel, or ``None`` if the shapes differ in more than the image channels.
    """
    if found.ndim != 4 or found.shape[0] != wanted.shape[0] or found.shape[2:] != wanted.shape[2:]:
        return None
    for fold in STEM_FOLDS:
        base, extra = divmod(found.shape[1], fold)
        channels, odd = divmod(wanted.shape[1], fold)
        if extra or odd or base not in (*IMAGE_CHANNELS, declared) or channels == base:
            continue
        try:
            changed = adapt_input_conv(channels, found, base_chans=base)
        except NotImplementedError:
            continue
        if changed.shape == wanted.shape:
            return changed
    return None


@dataclass(frozen=True)
class InputMap:
    """Affine map ``u = A x + b`` from a pixel of the zoo's input to one of a source's own input.

    Attributes:
        matrix: ``A``, ``(C_source, C_zoo)`` float64.
        offset: ``b``, ``(C_source,)`` float64; 0 where the zoo's mean is the source's.
    """

    matrix: Tensor
    offset: Tensor


def band_map(
    own: Normalisation | None,
    given: Normalisation | None,
    taken: Sequence[str],
    bands: Sequence[str],
) -> InputMap:
    """Compute how a source's own input follows from images of named bands, pixel by pixel.

    A channel that both know is taken as :func:`input_map` does. The other bands of the zoo are new
    to the source: they share its channels that the zoo lacks, ``1 / n`` of each, or, if it lacks
    none, the mean of all of the source's channels. They enter normalised, so that the response to
    them stays of the size of that to the source's own images.

    Args:
        own: The source's normalisation; ``None`` if unknown, its values are then the zoo's.
        given: The normalisation of the zoo's images; ``None`` if unknown.
        taken: Names of the source's input channels, in order.
        bands: Names of the channels of the zoo's images, in order.

    Raises:
        ChannelsError: If the source has means for another number of channels.
    """
    rows, columns = len(taken), len(bands)
    known = torch.zeros(rows, columns, dtype=torch.float64)
    for row, name in enumerate(taken):
        if name in bands:
            known[row, bands.index(name)] = 1
        elif name == GREY and set(COLOURS) <= set(bands):
            for weight, colour in zip(LUMINANCE, COLOURS, strict=True):
                known[row, bands.index(colour)] = weight
    shared, new = known.any(dim=1), ~known.any(dim=0)
    matrix, offset = known, torch.zeros(rows, dtype=torch.float64)
    if own is not None and given is not None:
        if len(own.mean) not in (1, rows) or len(own.std) not in (1, rows):
            raise ChannelsError(f"it has {len(own.mean)} means for {rows} channels")
        mean, std = (torch.tensor(e, dtype=torch.float64).expand(rows) for e in (own.mean, own.std))
        zoo_mean, zoo_std = (
            torch.tensor(each, dtype=torch.float64).expand(columns)
            for each in (given.mean, given.std)
        )
        matrix = own.top * known * zoo_std / std[:, None]
        offset = torch.where(shared, (own.top * known @ zoo_mean - mean) / std, offset)
    if new.any():
        lent = torch.full((rows,), 1 / rows, dtype=torch.float64)
        lent = lent if shared.all() else (~shared).double()
        matrix = matrix + lent[:, None] * new / new.sum()
    return InputMap(matrix, offset)


def names_of_channels(own: Normalisation | None, taken: int) -> tuple[str, ...]:
    """Names of a source's input channels that does not declare them; empty if it has other ones.

    Args:
        own: The source's normalisation, or ``None``.
        taken: Number of its input channels.
    """
    order = (own.channels if own else None) or ("grey" if taken == 1 else "rgb")
    if order == "grey":
        return (GREY,) * taken
    if taken != 3:
        return ()
    return COLOURS[::-1] if order == "bgr" else COLOURS


def input_map(own: Normalisation, given: Normalisation, taken: int, in_chans: int) -> InputMap:
    """Compute how a source's own input follows from the zoo's, pixel by pixel.

    With a pixel ``p`` in [0, 1] the zoo's input is ``x = (p - m) / s`` and the source's
    ``u = (r P p - m') / s'`` with its range ``r`` and the matrix ``P`` of its channels, so that
    ``u = r P S x / s' + (r P m - m') / s'`` with ``S = diag(s)``.

    A grey zoo shows its one channel to all of the source's; of a zoo with four channels the source
    sees the first three, which are red, green and blue.

    Args:
        own: The source's normalisation.
        given: The normalisation of the zoo's images, RGB or grey in 0..1.
        taken: Number of input channels of the source, 1 or 3.
        in_chans: Number of channels of the zoo's images, 1, 3 or 4.

    Raises:
        ChannelsError: If no rule relates the channels.
    """
    colours = _colours(in_chans)
    order = own.channels or ("grey" if taken == 1 else "rgb")
    if taken not in (1, 3):
        raise ChannelsError(f"its first layer takes {taken} channels, expected 1 or 3")
    if order != "grey" and taken == 1:
        raise ChannelsError(f"its first layer takes one channel, which {order} images do not have")
    if len(own.mean) not in (1, taken) or len(own.std) not in (1, taken):
        raise ChannelsError(f"it has {len(own.mean)} means for {taken} channels")
    picks = {
        "rgb": torch.eye(3, dtype=torch.float64),
        "bgr": torch.eye(3, dtype=torch.float64).flip(0),
        "grey": torch.tensor([LUMINANCE], dtype=torch.float64).expand(taken, 3),
    }
    seen = own.top * picks[order] @ colours
    mean, std = (torch.tensor(each, dtype=torch.float64) for each in (own.mean, own.std))
    zoo_mean, zoo_std = (
        torch.tensor(each, dtype=torch.float64).expand(in_chans) for each in (given.mean, given.std)
    )
    return InputMap(seen * zoo_std / std.expand(taken)[:, None], (seen @ zoo_mean - mean) / std)


def _colours(in_chans: int) -> Tensor:
    """Matrix ``(3, in_chans)`` from the channels of the zoo's images to red, green and blue."""
    if in_chans == 1:
        return torch.ones(3, 1, dtype=torch.float64)
    if in_chans not in (3, 4):
        raise ChannelsError(f"the zoo's images have {in_chans} channels, expected 1, 3 or 4")
    return torch.eye(3, in_chans, dtype=torch.float64)


def on_zoo_input(kernel: Tensor, change: InputMap) -> tuple[Tensor, Tensor]:
    """Change an input kernel so that it computes on the zoo's input what it did on the source's.

    A convolution of ``u = A x + b`` with ``K`` is one of ``x`` with ``K A``, plus the sum of
    ``K b`` over the kernel's positions. That is exact wherever the kernel lies within the image;
    where it reaches into zero padding it is not, because 0 is another colour in each normalisation.

    Args:
        kernel: The source's kernel ``(C_out, f C_source, k, k)``; ``f`` is 1, or the number of
            pixels of a block that the stem folds into channels (space to depth, colours innermost).
        change: Map from the zoo's input to the source's.

    Returns:
        The changed kernel ``(C_out, f C_zoo, k, k)`` and the constant ``(C_out,)`` to add to the
        layer's output, both float64.
    """
    outputs, inputs, *sides = kernel.shape
    taken = len(change.offset)
    blocks = kernel.double().reshape(outputs, inputs // taken, taken, *sides)
    changed = torch.einsum("ofchw,cd->ofdhw", blocks, change.matrix)
    return changed.reshape(outputs, -1, *sides), torch.einsum("ofchw,c->o", blocks, change.offset)
