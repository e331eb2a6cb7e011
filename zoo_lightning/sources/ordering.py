"""Match two state dicts by the order of their tensors, where names differ."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zoo_lightning.sources.stems import adapt_input_kernel, input_kernel

COUNTER = "num_batches_tracked"
LEAVES = {"weight", "bias", "running_mean", "running_var"}
"""Last parts of keys whose meaning is certain: where shapes agree by chance, these do not."""


def map_by_order(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, str], str]:
    """Pair the reference's tensors with a foreign checkpoint's in order.

    Counters of batches are left out of the order and follow their layer's running mean; trailing
    tensors of a classifier are dropped. Shapes must agree throughout, except for the input kernel's
    channels, and so must the last parts of the keys where both are torch's own.

    Args:
        state: Tensors of the foreign checkpoint.
        reference: Tensors of the headless plain network.
        prefix: Only keys that begin so are considered.

    Returns:
        The foreign key for each of the reference's keys, and an empty text; or no pairs, and what
        is wrong.
    """
    theirs = [key for key in state if key.startswith(prefix) and not _is_counter(key)]
    ours = [key for key in reference if not _is_counter(key)]
    stem = input_kernel(reference)
    for position, (key, foreign) in enumerate(zip(ours, theirs, strict=False)):
        found, wanted = state[foreign], reference[key]
        fits = found.shape == wanted.shape or (
            key == stem and adapt_input_kernel(found, wanted) is not None
        )
        leaf, own = foreign.rpartition(".")[2], key.rpartition(".")[2]
        if not fits or (leaf != own and leaf in LEAVES and own in LEAVES):
            return {}, (
                f"tensor {position + 1} is {foreign} {tuple(found.shape)}, expected {key} "
                f"{tuple(wanted.shape)}."
            )
    if len(theirs) < len(ours):
        return {}, f"it has {len(theirs)} tensors, expected at least {len(ours)}."
    rest = theirs[len(ours) :]
    if stray := next((key for key in rest if not _of_classifier(key, state[key])), None):
        return {}, f"{stray} follows the last tensor and is not a classifier's; give a prefix."
    pairs = dict(zip(ours, theirs, strict=False))
    if any(key.endswith("running_var") and (state[f] < 0).any() for key, f in pairs.items()):
        return {}, "a running variance would be negative."
    for key in reference:
        mean = pairs.get(key.removesuffix(COUNTER) + "running_mean", "")
        counter = mean.rpartition(".")[0] + "." + COUNTER
        if _is_counter(key) and mean and counter in state:
            pairs[key] = counter
    return pairs, ""


def _is_counter(key: str) -> bool:
    """Tell whether a key is a norm layer's counter of batches."""
    return key.rpartition(".")[2] == COUNTER


def _of_classifier(key: str, tensor: Tensor) -> bool:
    """Tell whether a tensor may be a classifier's: linear, or a 1 x 1 convolution."""
    if key.rpartition(".")[2].startswith("running_"):
        return False
    return tensor.ndim <= 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1))
