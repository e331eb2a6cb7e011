"""Read all sources of a zoo and fit them to one architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from torch import Tensor, nn

from zoo_lightning.nn.folding import fold_state, is_aggregated
from zoo_lightning.sources.adapting import Adapted, adapt
from zoo_lightning.sources.reading import check_architecture, read_weights
from zoo_lightning.sources.spec import Source
from zoo_lightning.sources.stems import adapt_statistics

ALIKE = 0.01
"""Largest tolerated difference of means or standard deviations, such as 127/255 and 0.5."""

_WANTED: ContextVar[bool] = ContextVar("weights_wanted", default=True)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build backbones inside the block without reading sources, for loading a checkpoint."""
    token = _WANTED.set(False)
    try:
        yield
    finally:
        _WANTED.reset(token)


def weights_wanted() -> bool:
    """Whether backbones should read their sources; false inside :func:`without_weights`."""
    return _WANTED.get()


def load_sources(
    sources: Sequence[Source],
    architecture: str | None,
    reference: Mapping[str, Tensor],
    in_chans: int = 3,
    build: Callable[[], nn.Module] | None = None,
) -> list[Adapted]:
    """Read sources and fit each to the architecture.

    A run of this project in lite or full mode is folded first, with its average gates. A run with
    the output ``stages`` can be a source for pooled features, and vice versa. Checkpoints of other
    projects' layouts are translated (:mod:`zoo_lightning.sources.layouts`).

    Args:
        sources: Sources of the zoo.
        architecture: timm name; ``None`` for an architecture that is not timm's.
        reference: State dict of the headless plain network with ``in_chans`` input channels.
        in_chans: Number of image channels, to which input kernels and statistics are adapted.
        build: Function that builds the headless plain network, for ``random:SEED`` with an
            architecture that is not timm's; ``None`` for timm's.

    Returns:
        One entry per source, in the same order.

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
        source = replace(source, match=weights.match or source.match)
        adapted = adapt(state, reference, source, architecture)
        report = adapted.report
        if (contents := weights.contents) is not None:
            container = ".".join(contents.containers)
            report = replace(report, container=container, other_containers=contents.others)
        report = replace(report, remarks=(*weights.remarks, *report.remarks))
        mean = adapt_statistics(weights.mean, in_chans)
        std = adapt_statistics(weights.std, in_chans)
        loaded.append(replace(adapted, report=report, mean=mean, std=std, origin=weights.origin))
        del weights, contents, state  # before the next file is read
    return loaded


def check_preprocessing(loaded: Sequence[Adapted]) -> str | None:
    """Check that the sources' training images were normalised alike, since all get one input.

    Sources with unknown normalisation are left out.

    Args:
        loaded: Sources of the zoo.

    Returns:
        A warning with each source's mean and standard deviation, or ``None`` if they agree.
    """
    known = _known_statistics(loaded)
    rounded = {tuple(tuple(round(v, 3) for v in values) for values in each) for _, *each in known}
    if len(rounded) < 2:
        return None
    lines = [f"{name}: mean {_short(mean)}, std {_short(std)}" for name, mean, std in known]
    return (
        "The sources were trained on differently normalised images, but one input serves all. "
        + "; ".join(lines)
        + ". Set the data's mean and std to those of most sources."
    )


def check_normalisation(
    loaded: Sequence[Adapted], mean: Sequence[float], std: Sequence[float]
) -> str | None:
    """Check that the data are normalised like the sources' images.

    Sources with unknown normalisation are left out; sources that differ among themselves are
    reported by :func:`check_preprocessing`.

    Args:
        loaded: sources of the zoo.
        mean: mean of the data per channel, in [0, 1] units.
        std: standard deviation of the data per channel, in [0, 1] units.

    Returns:
        A warning with the options to set, or ``None`` if they agree.
    """
    known = _known_statistics(loaded)
    if not known or check_preprocessing(loaded):
        return None
    _, source_mean, source_std = known[0]
    theirs, ours = (*source_mean, *source_std), (*mean, *std)
    alike = len(theirs) == len(ours) and all(
        abs(a - b) <= ALIKE for a, b in zip(theirs, ours, strict=True)
    )
    if alike:
        return None
    return (
        f"The sources' images were normalised by mean {_short(source_mean)} and std "
        f"{_short(source_std)}, but the data are by mean {_short(mean)} and std {_short(std)}. "
        f"Set --data.mean '{_listed(source_mean)}' --data.std '{_listed(source_std)}'."
    )


def _known_statistics(
    loaded: Sequence[Adapted],
) -> list[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    """Name, mean and deviation of each source that has both."""
    return [
        (each.source.name, each.mean, each.std)
        for each in loaded
        if each.mean is not None and each.std is not None
    ]


def _listed(values: Sequence[float]) -> str:
    """Write values as the command line takes them."""
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"


def _short(values: Sequence[float]) -> str:
    """Write values per channel with three decimals."""
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
