"""Build parts of an experiment from its resolved options: zoo, data, informed start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.errors import ConfigError, cause_of
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.initialization import INFORMED
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.transfer.starts import InformedStart, check_channels, find_start

if TYPE_CHECKING:
    from collections.abc import Mapping


def experiment_zoo(options: Any, experiment: str) -> tuple[Architecture, list[Source]]:
    """Return the architecture and the sources of an experiment's options.

    Args:
        options: resolved options of ``fit``.
        experiment: name of the experiment, for messages.

    Raises:
        ConfigError: the options name no sources.
    """
    init_args = options.model.init_args.backbone.init_args
    resolve_bands(options)
    given = [
        each if isinstance(each, str) else dict(each) for each in init_args.get("sources") or []
    ]
    if not given:
        raise ConfigError(
            f"{experiment} has no sources; expected at least one: give --sources A,B or an "
            "experiment that has some"
        )
    return architecture_of(init_args, options.data), parse_sources(given)


def architecture_of(init_args: Mapping[str, Any], data: Any = None) -> Architecture:
    """Return the architecture of a backbone's options.

    Args:
        init_args: the backbone's options.
        data: ``class_path`` and ``init_args`` of the data, whose images it gets; ``None`` takes
            their normalisation from the backbone's options alone.
    """
    output, in_chans = init_args.get("output", "pooled"), init_args.get("in_chans", 3)
    images = init_args.get("mean"), init_args.get("std")
    size = init_args.get("image_size")
    bands = init_args.get("bands")
    architecture = Architecture(init_args["architecture"], output, in_chans, *images, size, bands)
    given = (data or {}).get("init_args") or {}
    return architecture.with_images_of(SimpleNamespace(**dict(given)))


def resolve_bands(options: Any) -> None:
    """Take the channels of the network from the data's option ``bands``.

    The images are read for what the options do not say: mean and deviation of each band, and the
    values of black and white. They become options, so that a run's configuration has them.

    Args:
        options: resolved options of a subcommand; changed in place.

    Raises:
        ConfigError: there is no such band, or the network's ``in_chans`` is another number.
        DataError: images cannot be used.
    """
    given = options["data"].get("init_args") or {}
    backbone = options["model"]["init_args"].get("backbone") or {}
    init_args = backbone.get("init_args") or {}
    if given.get("bands") is None or "in_chans" not in init_args:
        return
    data: Any = _built_data(options["data"])
    data.find_bands()
    if init_args["in_chans"] not in (3, data.in_chans):
        raise ConfigError(
            f"model.backbone.in_chans is {init_args['in_chans']}, but data.bands are "
            f"{data.in_chans}; leave it out, for the number comes from the data"
        )
    init_args["in_chans"] = data.in_chans
    init_args["bands"] = data.channel_names
    given["mean"], given["std"] = tuple(data.mean), tuple(data.std)
    given["value_range"] = data.value_range


def _built_data(described: Any) -> LightningDataModule:
    """Build a configuration's data module."""
    content = described if isinstance(described, dict) else described.as_dict()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    try:
        return parser.instantiate(parser.parse_object({"data": content})).data
    except Exception as error:
        # jsonargparse tries each type an option may have, and reports them all.
        ours = cause_of(error)
        if ours is None:
            raise
        raise ours from None


def plain_data(described: Any) -> LightningDataModule:
    """Build and set up a configuration's data module for ``fit``, without augmentation.

    Args:
        described: ``class_path`` and ``init_args``, as a namespace or a dictionary.

    Raises:
        DataError: as the data raise it.
    """
    content = described if isinstance(described, dict) else described.as_dict()
    options = content.setdefault("init_args", {})
    if "augment" in options:
        options["augment"] = False
    data = _built_data(content)
    data.setup("fit")
    return data


def resolve_start(
    options: Any, experiment: str, checkpoint: Mapping[str, Any] | None
) -> InformedStart | None:
    """Replace an option such as ``gate_init: greedy`` by numbers from the training data.

    This applies to ``gate_init`` of a zoo and ``weights`` of an ordinary network. Probes are fitted
    to features of the training data.

    With a checkpoint, its numbers are used and no data are read. If it has no numbers for this
    number of sources, the option is left unchanged: the weights do not depend on it, and resuming
    compares it with the run's.

    Args:
        options: parsed options of a subcommand; changed in place.
        experiment: name of the experiment, for messages.
        checkpoint: content of the checkpoint that the weights come from, or ``None``.

    Returns:
        The numbers and how they were found; ``None`` if none had to be found.

    Raises:
        ConfigError: there are no sources, or the data have no labels to score sources by.
        DataError: as the data raise it.
        SourceError: a source cannot be read or does not fit the architecture.
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
    if options.get("run_test"):
        data.setup("test")  # a missing test part is not to be found after minutes
    rank_zero_info(
        f"start         training images decide {option} {init_args[option]}, which may take minutes"
    )
    images = getattr(data, "train_set", None)
    if images is not None and len(images):
        check_channels(images[(0, 0)]["image"].shape[-3], architecture.in_chans)
    try:
        start = find_start(architecture, sources, data, init_args[option])
    except ConfigError as error:
        raise ConfigError(
            f"{option} {init_args[option]!r} cannot be found from these data: {error}; give "
            f"{option} a number for each source"
        ) from error
    init_args[option] = start.gate_init
    return start
