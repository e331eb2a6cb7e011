"""``sources match``: permute the channels of sources to agree with those of one of them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.option_names import CommandParser, add_experiments, experiment_words
from zoo_lightning.files.folders import refuse_full
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.rebasin.activations import mean_correlation
from zoo_lightning.rebasin.channels import ChannelGraph, channel_groups
from zoo_lightning.rebasin.sources import MATCHINGS, kernel_cosines, match_sources
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.files import write_tensors
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.sources.zoo import check_preprocessing

ABOUT = """\
Permute the channels of every source so that they agree with those of a reference. Each source
computes what it did before, its features in another order; kernels at the same index become alike,
which is what averaging or aggregating them counts on. The files are ordinary sources.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line of ``sources match``.

    Returns:
        Exit status 0.

    Raises:
        ArchitectureError: the architecture's channels cannot be traced.
        ConfigError: an option is invalid.
        SourceError: a source does not fit.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    refuse_full(options.output, options.overwrite)
    if options.how == "activations" and not options.experiment:
        raise ConfigError(
            "--how activations needs training images: give --experiment NAME for its data, or use "
            "--how weights"
        )
    images = None
    if options.experiment:
        architecture, sources, images = of_experiment(options, rest, parser.option_names())
    elif rest:
        raise ConfigError(
            f"unknown options {' '.join(rest)}; options of fit need --experiment NAME."
            f"{nearest(rest[0].partition('=')[0], parser.option_names())}"
        )
    elif not options.sources or not options.architecture:
        raise ConfigError("give --architecture NAME and --sources A,B, or --experiment NAME")
    else:
        references = [reference.strip() for reference in options.sources.split(",")]
        architecture, sources = Architecture(options.architecture), parse_sources(references)
    reference = find_reference(sources, options.reference)
    loaded = load_architecture(architecture, sources)
    graph = channel_groups(architecture)
    matched = match_sources(
        architecture, loaded, options.how, images, reference, options.seed, graph
    )
    metadata = {"matched_to": sources[reference].name, "matched_by": options.how}
    for each in matched:
        write(each, architecture, options.output, metadata)

    def measures(each: Adapted) -> list[float]:
        return measure(graph, architecture, matched[reference].state, each.state, images)

    print(
        f"{architecture.label}: matched to {sources[reference].name} by {options.how}, "
        f"{graph.num_channels} channels in {len(graph.groups)} groups"
    )
    rows = [
        (old.source.name, measures(old), measures(new))
        for old, new in zip(loaded, matched, strict=True)
    ]
    del rows[reference]
    print(table(rows))
    print(f"wrote {len(matched)} sources to {options.output}")
    if warning := check_preprocessing(loaded):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "sources match",
        description=ABOUT,
        epilog="With --experiment, all options of fit for sources and data are accepted.",
    )
    parser.add_argument("--architecture", help="timm name or import path")
    parser.add_argument("--sources", help="references with commas between")
    add_experiments(
        parser,
        "whose sources, architecture and images to take; later ones override earlier ones",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the matched sources")
    parser.add_argument(
        "--how",
        choices=MATCHINGS,
        default="weights",
        help="what channels are matched by: kernels, or outputs for training images "
        "(default: %(default)s)",
    )
    parser.add_argument("--reference", help="name of the source that stays (default: the first)")
    parser.add_argument(
        "--samples", type=int, default=1000, help="training images for activations (default: 1000)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the order of groups (default: 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write to a folder that has files")
    return parser


def of_experiment(
    options: argparse.Namespace, rest: Sequence[str], command_options: Sequence[str]
) -> tuple[Architecture, list[Source], Tensor | None]:
    """Return an experiment's architecture, sources and, for matching by activations, images.

    Args:
        options: parsed options of this command.
        rest: further command-line words, which are options of ``fit``.
        command_options: options of this command, for suggestions.

    Raises:
        ConfigError: the experiment has no sources, or ``--samples`` is below 2.
        DataError: the experiment's data cannot be used.
    """
    # Lightning takes seconds to import, and matching by weights alone has no need of it.
    from zoo_lightning.experiments.parts import experiment_zoo, plain_data
    from zoo_lightning.experiments.resolving import resolve
    from zoo_lightning.transfer.ranking import training_batches

    if options.samples < 2:
        raise ConfigError(f"--samples {options.samples}: expected at least 2, better hundreds")
    words = [*experiment_words(options.experiment), *rest]
    for name in ("sources", "architecture"):
        if value := getattr(options, name):
            words += [f"--{name}", value]
    resolved = resolve(overrides=words, command_options=command_options)
    architecture, sources = experiment_zoo(resolved.options, resolved.name)
    if options.how != "activations":
        return architecture, sources, None
    data = plain_data(resolved.options.data)
    batches = training_batches(data, options.samples)
    images = [data.on_after_batch_transfer(batch, 0)["image"] for batch in batches]
    return architecture, sources, torch.cat(images)


def find_reference(sources: Sequence[Source], name: str | None) -> int:
    """Return the index of the reference source.

    Args:
        sources: sources to match.
        name: name of the reference; ``None`` takes the first source.

    Raises:
        ConfigError: no source has that name, or there are fewer than two sources.
    """
    names = [source.name for source in sources]
    if len(names) < 2:
        raise ConfigError(f"matching needs two sources or more, got {', '.join(names) or 'none'}")
    if name is not None and name not in names:
        raise ConfigError(
            f"--reference {name!r} is none of the sources.{nearest(name, names)} They are: "
            f"{', '.join(names)}."
        )
    return 0 if name is None else names.index(name)


def write(
    source: Adapted, architecture: Architecture, folder: Path, metadata: Mapping[str, str]
) -> Path:
    """Write a source atomically as a safetensors file, with its preprocessing as metadata.

    Args:
        source: source to write.
        architecture: architecture of the source, for the metadata.
        folder: output folder.
        metadata: further entries of the file's metadata.

    Returns:
        Path of the file, which is named after the source, with hyphens for unusual characters.
    """
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', source.source.name)}.safetensors"
    noted = {"architecture": architecture.label, **metadata}
    if source.expected is not None:
        noted["preprocessing"] = json.dumps(source.expected.as_dict())
    write_tensors(source.state, path, noted)
    return path


def measure(
    graph: ChannelGraph,
    architecture: Architecture,
    reference: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    images: Tensor | None,
) -> list[float]:
    """Measure the agreement of a source with the reference, by kernels and activations.

    Args:
        graph: channel groups of the architecture.
        architecture: architecture of both networks.
        reference: weights of the reference.
        state: weights of the other source.
        images: ``(N, C, H, W)``, normalised; ``None`` leaves activations out.
    """
    cosines = list(kernel_cosines(reference, state).values())
    result = [sum(cosines) / len(cosines)]
    if images is not None:
        result.append(mean_correlation(graph, architecture, reference, state, images))
    return result


def table(rows: Sequence[tuple[str, list[float], list[float]]]) -> str:
    """Format a table of the sources' agreement with the reference before and after matching.

    Args:
        rows: name of each source, with results of :func:`measure` before and after.
    """
    names = ("kernels", "activations")[: len(rows[0][1])]
    width = max(len(name) for name, _, _ in rows)
    lines = []
    for name, before, after in rows:
        cells = [
            f"{what} {old:.3f} -> {new:.3f}"
            for what, old, new in zip(names, before, after, strict=True)
        ]
        lines.append(f"{name.ljust(width)}  {'   '.join(cells)}")
    lines.append("kernels: mean cosine of kernels of the same place, over all layers; 1 if equal")
    if len(names) > 1:
        lines.append("activations: mean correlation of channels of the same place on the images")
    return "\n".join(lines)
