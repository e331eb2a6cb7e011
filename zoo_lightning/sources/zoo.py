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
from zoo_lightning.sources.spec import Source, split_weights

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
    build: Callable[[], nn.Module] | None = None,
) -> list[Adapted]:
    """Read sources and fit each to the architecture.

    A run of this project in lite or full mode is folded first, with its average gates. A run with
    the output ``stages`` can be a source for pooled features, and vice versa. Checkpoints of other
    projects' layouts are translated (:mod:`zoo_lightning.sources.layouts`).

    Args:
        sources: Sources of the zoo.
        architecture: timm name; ``None`` for an architecture that is not timm's.
        reference: State dict of the headless plain network; input kernels are adapted to its
            number of image channels.
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
        own = source.normalisation or weights.normalisation
        inputs = len(own.bands or ()) if own else 0
        adapted = adapt(state, reference, source, architecture, inputs)
        report = adapted.report
        if (contents := weights.contents) is not None:
            container = ".".join(contents.containers)
            report = replace(report, container=container, other_containers=contents.others)
        report = replace(report, remarks=(*weights.remarks, *report.remarks))
        adapted = replace(adapted, report=report, origin=weights.origin, own=own, expected=own)
        loaded.append(adapted)
        del weights, contents, state  # before the next file is read
    return loaded


def check_preprocessing(loaded: Sequence[Adapted]) -> str | None:
    """Check that all sources expect one input, as those with a transformed first layer do.

    Sources of unknown preprocessing are left out, see :func:`unknown_preprocessing`.

    Args:
        loaded: Sources of the zoo.

    Returns:
        A warning with what each source expects, or with the reasons why first layers could not be
        transformed; ``None`` if all expect the same.
    """
    problems = [f"{each.source.name}: {each.problem}" for each in loaded if each.problem]
    if problems:
        return (
            "Sources see images that are normalised otherwise than those of their training, for "
            f"their first layers cannot be transformed. {'; '.join(problems)}."
        )
    known = [(each.source.name, each.expected) for each in loaded if each.expected is not None]
    if not known or all(expected.is_like(known[0][1]) for _, expected in known):
        return None
    lines = [f"{name}: {expected}" for name, expected in known]
    return (
        "The sources were trained on differently normalised images, but one input serves all. "
        + "; ".join(lines)
        + ". Give the backbone mean and std of its images, to which first layers are then "
        "transformed; fit takes them from the data."
    )


def unknown_preprocessing(loaded: Sequence[Adapted]) -> str | None:
    """Note which sources' preprocessing is unknown and assumed to be that of the zoo's images.

    Args:
        loaded: Sources of the zoo; random weights have no preprocessing.

    Returns:
        A note with their names; ``None`` if there are none.
    """
    names = [
        each.source.name
        for each in loaded
        if each.own is None and split_weights(each.source.weights)[0] != "random"
    ]
    if not names:
        return None
    return (
        f"preprocessing of {', '.join(names)} is unknown and taken to be that of the data; a "
        "source declares its own with mean, std, range and channels (docs/preprocessing.md)"
    )
