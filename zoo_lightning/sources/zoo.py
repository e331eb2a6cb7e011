"""Read all sources of a zoo and fit them to one architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from torch import Tensor, nn

from zoo_lightning.layers.folding import fold_state, is_aggregated
from zoo_lightning.sources.adapting import Adapted, adapt
from zoo_lightning.sources.prefixes import unflatten_stages
from zoo_lightning.sources.reading import check_architecture, read_weights
from zoo_lightning.sources.spec import Source
from zoo_lightning.sources.stems import adapt_statistics

ALIKE = 0.01
"""Difference of means, and of deviations, that does not matter, as of 127/255 and 0.5."""

_WANTED: ContextVar[bool] = ContextVar("weights_wanted", default=True)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build backbones without reading their sources: a checkpoint will bring all weights."""
    token = _WANTED.set(False)
    try:
        yield
    finally:
        _WANTED.reset(token)


def weights_wanted() -> bool:
    """Tell whether sources should be read; false within :func:`without_weights`."""
    return _WANTED.get()


def load_sources(
    sources: Sequence[Source],
    architecture: str | None,
    reference: Mapping[str, Tensor],
    in_chans: int = 3,
    build: Callable[[], nn.Module] | None = None,
) -> list[Adapted]:
    """Read sources and fit each to the architecture.

    A run of this project in lite or full mode is folded first, with its average gates; one of a
    network's stages may serve for pooled features, and the other way round.

    Args:
        sources: The zoo.
        architecture: Its timm name; ``None`` for an architecture that is not timm's.
        reference: The state dict of the headless plain network with ``in_chans`` input channels.
        in_chans: Image channels; sources' input kernels, means and deviations are changed to them.
        build: Builds the headless plain network; lets ``random:SEED`` serve an architecture that is
            not timm's.

    Returns:
        One entry a source, in the same order.

    Raises:
        ArchitectureError: If timm does not know the architecture.
        SourceError: If a source cannot be read or does not fit.
    """
    check_architecture(architecture)
    loaded = []
    for source in sources:
        weights = read_weights(source, architecture, build)
        state = weights.state
        if is_aggregated(state):  # a run of this project, in lite or full mode
            state = fold_state(state)
        state = unflatten_stages(state, reference)
        source = replace(source, match=weights.match or source.match)
        adapted = adapt(state, reference, source, architecture)
        mean = adapt_statistics(weights.mean, in_chans)
        std = adapt_statistics(weights.std, in_chans)
        loaded.append(replace(adapted, mean=mean, std=std, origin=weights.origin))
    return loaded


def check_preprocessing(loaded: Sequence[Adapted]) -> str | None:
    """Compare how the sources' images were normalised, since one input serves all.

    Sources of which it is not known are left out.

    Returns:
        A warning that names each source's mean and deviation, or ``None`` if they agree.
    """
    known = [each for each in loaded if each.mean is not None and each.std is not None]
    rounded = {
        (tuple(round(v, 3) for v in each.mean), tuple(round(v, 3) for v in each.std))
        for each in known
    }
    if len(rounded) < 2:
        return None
    lines = [
        f"{each.source.name}: mean {_short(each.mean)}, std {_short(each.std)}" for each in known
    ]
    return (
        "The sources were trained on differently normalised images, but one input serves all. "
        + "; ".join(lines)
        + ". Set the data's mean and std to those of most sources."
    )


def check_normalisation(
    loaded: Sequence[Adapted], mean: Sequence[float], std: Sequence[float]
) -> str | None:
    """Compare how the data are normalised with how the sources' images were.

    Sources of which it is not known are left out; of sources that differ among themselves,
    :func:`check_preprocessing` tells.

    Args:
        loaded: the zoo.
        mean: of the data per channel, in [0, 1] units.
        std: their deviation.

    Returns:
        A warning with the options to set, or ``None`` if they agree.
    """
    known = [each for each in loaded if each.mean is not None and each.std is not None]
    if not known or check_preprocessing(known):
        return None
    theirs, ours = (*known[0].mean, *known[0].std), (*mean, *std)
    alike = len(theirs) == len(ours) and all(
        abs(a - b) <= ALIKE for a, b in zip(theirs, ours, strict=True)
    )
    if alike:
        return None
    return (
        f"The sources' images were normalised by mean {_short(known[0].mean)} and std "
        f"{_short(known[0].std)}, but the data are by mean {_short(mean)} and std {_short(std)}. "
        f"Set --data.mean '{_listed(known[0].mean)}' --data.std '{_listed(known[0].std)}'."
    )


def _listed(values: Sequence[float]) -> str:
    """Write values as the command line takes them."""
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"


def _short(values: Sequence[float]) -> str:
    """Write values per channel with three decimals."""
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
