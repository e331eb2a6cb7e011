"""Fit a foreign state dict to the headless plain network of the wanted architecture.

Tensors of other projects' layouts are translated first, and position embeddings of another size
interpolated (:mod:`zoo_lightning.sources.layouts`). Keys are matched by name under a prefix that is
found automatically, or by order. Values are cast to float32, and the input kernel is adapted to the
image channels; nothing else changes. Matched, unused and missing tensors are reported. Files are
not read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.key_matching import find_prefix, is_stacked, map_by_order
from zoo_lightning.sources.layouts.translating import Translated, translate
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.spec import Source
from zoo_lightning.sources.stems import adapt_input_kernel, input_kernel

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Entries of a norm layer that a source may lack, as they are estimated again in training."""

LISTED = 8
"""Number of keys that a message lists before it only counts."""


@dataclass(frozen=True)
class MatchReport:
    """Report on matching a source's tensors to the architecture's.

    Attributes:
        total: Number of tensors of the architecture.
        matched: Number of tensors that the source provided.
        prefix: Prefix of the source's keys; empty with ``match: order``, unless it is given.
        unused: Keys of the source that the architecture does not have.
        missing: Norm statistics that the source lacked and that keep their initial value.
        adapted_input: Whether the input kernel was changed to another number of channels by timm's
            rule.
        transformed: Normalisation from which the first layer was transformed to that of the zoo's
            images; empty if it was not.
        cast: Floating types other than float32 that were cast, such as ``float16``.
        also_under: Other prefixes under which as many tensors matched.
        by_order: Whether tensors were matched by order instead of by name.
        container: Key of the file that contains the weights, with dots for nested keys; empty if
            they are at the top level.
        other_containers: Keys of the same file that contain other weights of the same network.
        layout: Name of the project in whose names and shapes the tensors were, such as
            ``Hugging Face ViT``; empty if in the architecture's own.
        remarks: What was interpolated or assumed, a line each.
    """

    total: int
    matched: int
    prefix: str
    unused: list[str]
    missing: list[str]
    adapted_input: bool = False
    transformed: str = ""
    cast: tuple[str, ...] = ()
    also_under: tuple[str, ...] = ()
    by_order: bool = False
    container: str = ""
    other_containers: tuple[str, ...] = ()
    layout: str = ""
    remarks: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return one line: ``318 of 318 tensors matched under 'backbone.', 54 left over``."""
        parts = [f"{self.matched} of {self.total} tensors matched"]
        if self.by_order:
            parts[0] += " by order"
        if self.prefix:
            parts[0] += f" under {self.prefix!r}"
        if self.layout:
            parts[0] += f", translated from {self.layout}"
        if self.other_containers:
            others = " and ".join(map(repr, self.other_containers))
            parts[0] += f" of container {self.container!r}"
            parts.append(f"beside {others} (container: KEY in the source takes another)")
        if self.unused:
            parts.append(f"{len(self.unused)} left over")
        if self.missing:
            kinds = [leaf for leaf in STATISTICS if any(k.endswith(leaf) for k in self.missing)]
            parts.append(f"{len(self.missing)} keep their initial value ({', '.join(kinds)})")
        if self.adapted_input:
            parts.append("input kernel adapted to other channels")
        if self.transformed:
            parts.append(f"first layer transformed from {self.transformed}")
        if self.cast:
            parts.append(f"cast from {' and '.join(self.cast)} to float32")
        if self.also_under:
            parts.append("as many match under " + ", ".join(map(repr, self.also_under)))
        parts += self.remarks
        return ", ".join(parts)


@dataclass(frozen=True)
class Adapted:
    """Weights of a source, fitted to the architecture.

    Attributes:
        state: Tensors with exactly the architecture's keys, floating-point ones in float32.
        report: Report on the match.
        source: Source of the weights.
        own: Normalisation of the images that the source was trained on; ``None`` if unknown.
        expected: Normalisation of the images that ``state`` expects: that of the zoo's images after
            the first layer was transformed, before that ``own``.
        problem: Reason why the first layer could not be transformed; empty if it was, or if it
            did not have to be.
        origin: Path or address of the weights.
        input_kernel: The source's input kernel as it was found, before it was changed to another
            number of channels; ``None`` if it was not.
    """

    state: dict[str, Tensor]
    report: MatchReport
    source: Source
    own: Normalisation | None = None
    expected: Normalisation | None = None
    problem: str = ""
    origin: str = ""
    input_kernel: Tensor | None = None


def adapt(
    state: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    source: Source,
    architecture: str | None = None,
    inputs: int = 0,
) -> Adapted:
    """Fit a source's tensors to an architecture.

    Args:
        state: The source's tensors by their own keys.
        reference: State dict of the headless plain network.
        source: Source with its name for messages, ``prefix`` and ``match``.
        architecture: The architecture's name for messages.
        inputs: Number of the source's input channels, where it is known and its input is no usual
            picture; else 0.

    Returns:
        A new state dict with the reference's keys, and the report.

    Raises:
        SourceError: If no key matches, if a kernel or a norm layer's parameter is missing or has
            another shape, if values are not finite, if the source has more layers, or if it is an
            aggregated run that was not folded.
    """
    label = f"Source {source.name!r} ({source.weights})"
    also_under: list[str] = []
    original, translated = state, Translated(dict(state))
    if source.match == "order":
        prefix = _prefix_for_order(source, state, label)
        pairs, problem = map_by_order(state, reference, prefix)
        if problem:
            raise SourceError(f"{label} cannot be matched by order: {problem}")
    else:
        translated = translate(state, reference)
        state = translated.state
        prefix, also_under = find_prefix(state, reference, source.prefix, label)
        pairs = {key: prefix + key for key in reference if prefix + key in state}
    try:
        fitted, changed = _take(state, reference, pairs, label, architecture, inputs)
        _refuse_larger(state, reference, prefix, set(pairs.values()), label)
    except SourceError as error:
        hint = _pooling_hint(state, reference) or _order_hint(original, reference, source)
        raise SourceError(f"{error}{hint}") from error
    used = set(pairs.values())
    report = MatchReport(
        total=len(reference),
        matched=len(pairs),
        prefix=prefix,
        unused=[key for key in state if key not in used],
        missing=[key for key in reference if key not in pairs],
        adapted_input=changed is not None,
        cast=_cast_types(state, used),
        also_under=tuple(also_under),
        by_order=source.match == "order",
        layout=translated.layout,
        remarks=translated.remarks,
    )
    return Adapted(fitted, report, source, input_kernel=changed)


def _prefix_for_order(source: Source, state: Mapping[str, Tensor], label: str) -> str:
    """Return the given prefix, checked to be one of the file's."""
    prefix = source.prefix or ""
    if prefix and not any(key.startswith(prefix) for key in state):
        found = ", ".join(map(repr, list(state)[:LISTED]))
        raise SourceError(f"{label}: no key begins with prefix {prefix!r}; keys are {found}, …")
    return prefix


def _pooling_hint(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> str:
    """Explain the difference of transformers that average their tokens, or take the class token's.

    The norm comes after the average in ``fc_norm``, and before the choice of a token in ``norm``.
    """
    averaged = any(re.fullmatch(r"(.*\.)?fc_norm\.weight", key) for key in state)
    if averaged and "fc_norm.weight" not in reference and "norm.weight" in reference:
        return (
            " It averages its tokens (fc_norm), and the architecture takes the class token: give "
            "one of vit_*_gap_*, or the import path of a function that builds the network with "
            "global_pool='avg'."
        )
    return ""


def _order_hint(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor], source: Source
) -> str:
    """Suggest matching by order where that would work."""
    if source.match == "order" or map_by_order(state, reference, source.prefix or "")[1]:
        return ""
    return " Order and shapes agree throughout, though: give the source match: order."


def _take(
    state: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    pairs: Mapping[str, str],
    label: str,
    architecture: str | None,
    inputs: int = 0,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Build the new state dict from pairs of keys, refusing what does not fit.

    Returns:
        The state dict, and the input kernel as it was found if it had to be changed.
    """
    stem = input_kernel(reference)
    taken: dict[str, Tensor] = {}
    wrong: list[str] = []
    missing: list[str] = []
    original: Tensor | None = None
    aggregated = False
    for key, wanted in reference.items():
        if key not in pairs:
            if key.rpartition(".")[2] not in STATISTICS:
                missing.append(f"{key} {tuple(wanted.shape)}")
            taken[key] = wanted.detach().clone()
            continue
        found = state[pairs[key]]
        if key == stem and found.shape != wanted.shape and found.is_floating_point():
            changed = adapt_input_kernel(found, wanted, inputs)
            if changed is not None:
                original, found = _converted(found, wanted), changed
        if found.shape != wanted.shape:
            aggregated |= is_stacked(found, wanted)
            wrong.append(f"{key} is {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        elif problem := _unusable(found, wanted):
            wrong.append(f"{key} {problem}")
        else:
            taken[key] = _converted(found, wanted)
    if aggregated:
        raise SourceError(
            f"{label} is a run in full or lite mode: fold it first (`ZooBackbone.fold`)."
        )
    if missing or wrong:
        raise SourceError(_refusal(label, len(reference), missing, wrong, architecture))
    return taken, original


def _refuse_larger(
    state: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    prefix: str,
    used: set[str],
    label: str,
) -> None:
    """Refuse a source with more layers than the architecture, as ResNet-101 for ResNet-50.

    Heads may be left over; layers within the architecture's own blocks may not.
    """
    blocks = {key.partition(".")[0] for key in reference}
    numbered = set()
    for key in reference:
        parts = key.split(".")
        numbered |= {".".join(parts[:i]) for i, part in enumerate(parts) if i and part.isdigit()}
    extra = []
    for key, tensor in state.items():
        if key in used or not key.startswith(prefix) or tensor.ndim < 2:
            continue
        parts = key[len(prefix) :].split(".")
        own = any(".".join(parts[:i]) in numbered for i, part in enumerate(parts) if part.isdigit())
        if parts[0] in blocks and len(parts) > 1 and (own or tensor.ndim > 2):
            extra.append(f"{key} {tuple(tensor.shape)}")
    if extra:
        raise SourceError(
            f"{label} has a larger architecture: it has layers that the wanted one lacks: "
            f"{_listed(extra)}."
        )


def _unusable(found: Tensor, wanted: Tensor) -> str:
    """Return the reason why a tensor of the right shape cannot be taken, or an empty text."""
    if found.layout != torch.strided or found.is_quantized or found.is_meta:
        return "is sparse, quantised or without values"
    if not wanted.is_floating_point():
        return ""
    if not found.is_floating_point():
        return f"holds {str(found.dtype).removeprefix('torch.')} instead of floating numbers"
    return "" if torch.isfinite(found.float()).all() else "holds infinite or undefined values"


def _converted(found: Tensor, wanted: Tensor) -> Tensor:
    """Return a tensor of its own, in float32 if the reference's is floating."""
    dtype = torch.float32 if wanted.is_floating_point() else wanted.dtype
    return found.detach().to(dtype).contiguous()


def _cast_types(state: Mapping[str, Tensor], keys: set[str]) -> tuple[str, ...]:
    """Return the floating types other than float32 among the tensors taken."""
    types = {state[key].dtype for key in keys if state[key].is_floating_point()}
    return tuple(sorted(str(kind).removeprefix("torch.") for kind in types - {torch.float32}))


def _refusal(
    label: str, total: int, missing: list[str], wrong: list[str], architecture: str | None
) -> str:
    """Write the message for a source that does not fit."""
    lines = [f"{label} does not fit {architecture or 'the architecture'}:"]
    if len(missing) + len(wrong) > total // 4:
        lines = [f"{label} is not of the architecture {architecture or 'wanted'}:"]
    if missing:
        lines.append(f"missing {_listed(missing)};")
    if wrong:
        lines.append(f"of another shape or type: {_listed(wrong)};")
    return " ".join(lines).rstrip(";") + "."


def _listed(entries: list[str]) -> str:
    """Join the first few entries and count the rest."""
    rest = len(entries) - LISTED
    return "; ".join(entries[:LISTED]) + (f"; and {rest} more" if rest > 0 else "")
