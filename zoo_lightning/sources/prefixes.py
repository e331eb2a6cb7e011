"""Find what the backbone's keys begin with in a foreign checkpoint, from the keys alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zoo_lightning.architecture import stage_key
from zoo_lightning.errors import SourceError
from zoo_lightning.sources.ordering import map_by_order

COPIES = {
    "encoder_k": "encoder_q",
    "key_encoder": "query_encoder",
    "student": "teacher",
    "online_network": "target_network",
    "online_encoder": "target_encoder",
}
"""Networks of which a file has two, and the other one, which is preferred when both match equally
well: the trained one of contrastive pairs, and the average that teaches of all others."""


def find_prefix(
    state: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    given: str | None,
    label: str,
) -> tuple[str, list[str]]:
    """Find the prefix under which most keys agree with the reference in name and shape.

    Ties go to the network that is meant to be used (MoCo's ``encoder_q`` before its momentum copy
    ``encoder_k``, a teacher before its student), then to whichever comes first in the file.

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
    """Count under each possible prefix the keys that match in name and shape, and in name.

    A prefix ends at a dot or is empty. They come in the file's order.
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
    """Tell whether a tensor stacks several sources' kernels: ``(m, *wanted.shape)``."""
    return wanted.ndim >= 2 and found.ndim == wanted.ndim + 1 and found.shape[1:] == wanted.shape


def _is_copy(prefix: str, tied: list[str]) -> bool:
    """Tell whether another prefix that matches as well is preferred to this one."""
    return any(copy in prefix and prefix.replace(copy, own) in tied for copy, own in COPIES.items())


def _nothing(state: Mapping[str, Tensor], reference: Mapping[str, Tensor], label: str) -> str:
    """Write the message for a checkpoint of which no key agrees."""
    found = ", ".join(map(repr, list(state)[:4]))
    wanted = ", ".join(map(repr, list(reference)[:4]))
    text = f"{label}: no key matches the architecture. Found {found}, …; expected {wanted}, …."
    if not map_by_order(state, reference, "")[1]:
        return f"{text} Order and shapes agree throughout, though: give the source match: order."
    return f"{text} It is of another architecture, or its keys must be renamed first."
