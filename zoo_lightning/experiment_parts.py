"""Parts of an experiment from its resolved options, before there is a model or a Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from zoo_lightning.architecture import Architecture
from zoo_lightning.errors import ConfigError, cause_of
from zoo_lightning.shares import INFORMED
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.starts import Start, find_start

if TYPE_CHECKING:
    from collections.abc import Mapping


def experiment_zoo(options: Any, experiment: str) -> tuple[Architecture, list[Source]]:
    """The architecture and the sources of resolved options.

    Raises:
        ConfigError: no sources.
    """
    init_args = options.model.init_args.backbone.init_args
    given = [
        each if isinstance(each, str) else dict(each) for each in init_args.get("sources") or []
    ]
    if not given:
        raise ConfigError(
            f"{experiment} has no sources; expected at least one: give --sources A,B or an "
            "experiment that has some"
        )
    return architecture_of(init_args), parse_sources(given)


def architecture_of(init_args: Mapping[str, Any]) -> Architecture:
    """The architecture that a backbone's options name."""
    output, in_chans = init_args.get("output", "pooled"), init_args.get("in_chans", 3)
    return Architecture(init_args["architecture"], output, in_chans)


def plain_data(described: Any) -> LightningDataModule:
    """The data that a configuration describes, without augmentation.

    Args:
        described: class and options, as a parser has them or in plain types.

    Raises:
        DataError: as the data raise it.
    """
    content = described if isinstance(described, dict) else described.as_dict()
    options = content.setdefault("init_args", {})
    if "augment" in options:
        options["augment"] = False
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    try:
        data = parser.instantiate_classes(parser.parse_object({"data": content})).data
        data.setup("fit")
    except Exception as error:
        # jsonargparse tries each type an option may have, and reports them all.
        ours = cause_of(error)
        if ours is None:
            raise
        raise ours from None
    return data


def resolve_start(
    options: Any, experiment: str, checkpoint: Mapping[str, Any] | None
) -> Start | None:
    """Put numbers in the place of an option that stands for numbers found from training data.

    A zoo's ``gate_init`` may be such a word, and the ``weights`` of one ordinary network.

    If there is a checkpoint, those it was trained with are taken and no data are read. Should it
    have none for as many sources, the word stays: the checkpoint's weights count whatever it says,
    and going on with a run compares its options with the present ones.

    Args:
        options: the parsed options of a subcommand; changed.
        experiment: its name, for messages.
        checkpoint: content of the checkpoint that weights come from, if there is one.

    Returns:
        What was found; ``None`` if there was nothing to find.

    Raises:
        ConfigError: data that nothing can be scored by.
        DataError: as the data raise it.
        SourceError: a source that cannot be read or does not fit.
    """
    init_args = options.model.init_args.backbone.init_args
    named = [name for name in ("gate_init", "weights") if init_args.get(name) in INFORMED]
    if not named:
        return None
    [option] = named  # no backbone has both
    if option == "weights" and len(init_args.get("sources") or []) < 2:
        init_args[option] = "uniform"  # there is nothing to average
        return None
    if checkpoint is not None:
        described = checkpoint.get("hyper_parameters")  # an ensemble's networks have their own
        found = described and described["backbone"]["init_args"].get(option)
        if isinstance(found, list) and len(found) == len(init_args["sources"]):
            init_args[option] = found
        return None
    architecture, sources = experiment_zoo(options, experiment)
    data = plain_data(options.data)
    try:
        start = find_start(architecture, sources, data, init_args[option])
    except ConfigError as error:
        raise ConfigError(
            f"{option} {init_args[option]!r} cannot be found from these data: {error}; give "
            f"{option} a number for each source"
        ) from error
    init_args[option] = start.gate_init
    return start
