"""Match the keys of a foreign checkpoint with a backbone's: by a common prefix, or by order."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.models.architecture import stage_key
from zoo_lightning.sources.files import names_average
from zoo_lightning.sources.stems import adapt_input_kernel, input_kernel

COUNTER = "num_batches_tracked"
LEAVES = {"weight", "bias", "running_mean", "running_var"}
"""Last parts of keys with a fixed meaning, which must agree even where shapes agree by chance."""


def map_by_order(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, str], str]:
    """Pair the reference's tensors with a foreign checkpoint's by order.

    Counters of batches are left out of the order and follow their layer's running mean; trailing
    tensors of a classifier are dropped. Shapes must agree throughout, except for the input kernel's
    channels, and so must the last parts of the keys where both are torch's own.

    Args:
        state: Tensors of the foreign checkpoint.
        reference: Tensors of the headless plain network.
        prefix: Prefix of the foreign keys to use; others are ignored.

    Returns:
        The foreign key of each of the reference's keys, and an empty string; or no pairs, and the
        reason.
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
    variances = [state[foreign] for key, foreign in pairs.items() if key.endswith("running_var")]
    if any(each.is_complex() or (each < 0).any() for each in variances):
        return {}, "a running variance would be negative or complex."
    for key in reference:
        mean = pairs.get(key.removesuffix(COUNTER) + "running_mean", "")
        counter = mean.rpartition(".")[0] + "." + COUNTER
        if _is_counter(key) and mean and counter in state:
            pairs[key] = counter
    return pairs, ""


def _is_counter(key: str) -> bool:
    """Whether a key is a norm layer's counter of batches."""
    return key.rpartition(".")[2] == COUNTER


def _of_classifier(key: str, tensor: Tensor) -> bool:
    """Whether a tensor may be a classifier's: linear, or a 1 x 1 convolution."""
    if key.rpartition(".")[2].startswith("running_"):
        return False
    return tensor.ndim <= 2 or (tensor.ndim == 4 and tensor.shape[2:] == (1, 1))


COPIES = {"encoder_k": "encoder_q", "key_encoder": "query_encoder"}
"""Momentum copies of contrastive pairs, and the trained network, which is preferred when both match
equally well. Of other pairs the average is preferred (``files.names_average``)."""


def find_prefix(
    state: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    given: str | None,
    label: str,
) -> tuple[str, list[str]]:
    """Find the prefix under which most keys agree with the reference in name and shape.

    Ties go to the network that its authors use (MoCo's ``encoder_q`` before its momentum copy
    ``encoder_k``, a teacher or an average before the trained weights), then to the first in the
    file.

    Args:
        state: Tensors of the foreign checkpoint.
        reference: Tensors of the headless plain network.
        given: A prefix to take without searching, with or without its last dot.
        label: The source's name for messages.

    Returns:
        The prefix and the other prefixes that match equally well.

    Raises:
        SourceError: If no key agrees, or none under the given prefix.
    """
    scores = score_prefixes(state, reference)
    if given is not None:
        for prefix in (given, f"{given}."):
            if any(prefix + key in state for key in reference):
                return prefix, []
        best = max(scores, key=lambda prefix: scores[prefix], default=None)
        hint = "" if best is None else f" Most keys match under {best!r}."
        raise SourceError(f"{label}: no key matches under the given prefix {given!r}.{hint}")
    if not scores:
        raise SourceError(_nothing(state, reference, label))
    top = max(scores.values())
    tied = [prefix for prefix, score in scores.items() if score == top]
    best = next((prefix for prefix in tied if not _is_copy(prefix, tied)), tied[0])
    return best, [prefix for prefix in tied if prefix != best]


def score_prefixes(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, tuple[int, int]]:
    """Count the keys that match the reference under each possible prefix.

    A prefix ends at a dot or is empty; prefixes are in the file's order.

    Args:
        state: Tensors of the foreign checkpoint.
        reference: Tensors of the headless plain network.

    Returns:
        Number of keys that match in name and shape, and number that match in name, by prefix.
    """
    scores: dict[str, tuple[int, int]] = {}
    for key, tensor in state.items():
        start = 0
        while True:
            if (wanted := reference.get(key[start:])) is not None:
                shaped, named = scores.get(key[:start], (0, 0))
                scores[key[:start]] = (shaped + (tensor.shape == wanted.shape), named + 1)
            dot = key.find(".", start)
            if dot < 0:
                break
            start = dot + 1
    return scores


def unflatten_stages(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give keys of a flattened network their plain names: ``stem_0.bias`` to ``stem.0.bias``.

    timm flattens the first level of some networks when it is asked for their stages.
    """
    plain = {stage_key(key): key for key in reference}

    def renamed(key: str) -> str:
        start = 0
        while key[start:] not in plain:
            dot = key.find(".", start)
            if dot < 0:
                return key
            start = dot + 1
        return key if key[start:] in reference else key[:start] + plain[key[start:]]

    return {renamed(key): tensor for key, tensor in state.items()}


def is_stacked(found: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor stacks several sources' kernels: ``(m, *wanted.shape)``."""
    return wanted.ndim >= 2 and found.ndim == wanted.ndim + 1 and found.shape[1:] == wanted.shape


def _is_copy(prefix: str, tied: list[str]) -> bool:
    """Whether another prefix that matches as well is preferred to this one."""
    if any(copy in prefix and prefix.replace(copy, own) in tied for copy, own in COPIES.items()):
        return True
    return not names_average(prefix) and any(map(names_average, tied))


def _nothing(state: Mapping[str, Tensor], reference: Mapping[str, Tensor], label: str) -> str:
    """Write the message for a checkpoint of which no key agrees."""
    found = ", ".join(map(repr, list(state)[:4]))
    wanted = ", ".join(map(repr, list(reference)[:4]))
    text = f"{label}: no key matches the architecture. Found {found}, …; expected {wanted}, …."
    if not map_by_order(state, reference, "")[1]:
        return f"{text} Order and shapes agree throughout, though: give the source match: order."
    return (
        f"{text} It is of another architecture, or its keys must be renamed first; sources inspect "
        "shows what it is, and --architecture NAME builds that network."
    )
