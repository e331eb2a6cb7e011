"""``sources match``: write sources with their channels permuted to agree with one of them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from zoo_lightning.architecture import Architecture
from zoo_lightning.backbone import load_architecture
from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.matching.activations import mean_correlation
from zoo_lightning.matching.channels import ChannelGraph, channel_groups
from zoo_lightning.matching.sources import WAYS, agreement, match_sources
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.sources.writing import write_tensors
from zoo_lightning.sources.zoo import check_preprocessing

ABOUT = """\
Permute the channels of every source so that they agree with those of a reference. Each source
computes what it did before, its features in another order; kernels at the same index become alike,
which is what averaging or aggregating them counts on. The files are ordinary sources.
"""


def main(arguments: Sequence[str]) -> int:
    """Command line of ``sources match``.

    Returns:
        Exit status 0.

    Raises:
        ArchitectureError: the architecture's channels cannot be followed.
        ConfigError: options that cannot be right.
        SourceError: a source does not fit.
    """
    options, rest = _parser().parse_known_args(arguments)
    refuse_full(options.output, options.overwrite)
    if options.how == "activations" and not options.experiment:
        raise ConfigError(
            "--how activations looks at training images and needs --experiment NAME, whose data "
            "they are; or match by --how weights"
        )
    images = None
    if options.experiment:
        architecture, sources, images = of_experiment(options, rest)
    elif rest:
        raise ConfigError(
            f"unknown options {' '.join(rest)}; options of fit need --experiment NAME"
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning sources match",
        description=ABOUT,
        epilog="With --experiment, all options of fit that say what its sources and data are.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--architecture", help="timm name or import path")
    parser.add_argument("--sources", help="references with commas between")
    parser.add_argument(
        "--experiment",
        action="append",
        default=[],
        help="whose sources, architecture and images to take; later ones override earlier ones",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the matched sources")
    parser.add_argument("--how", choices=WAYS, default="weights", help="(default: %(default)s)")
    parser.add_argument("--reference", help="name of the source that stays (default: the first)")
    parser.add_argument(
        "--samples", type=int, default=1000, help="training images for activations (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of groups (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="write to a folder with files")
    return parser


def refuse_full(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something.

    Raises:
        ConfigError: it does, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file; expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(
            f"--output {folder} is not empty; give another folder, or --overwrite to replace files "
            "of the same names in it"
        )


def of_experiment(
    options: argparse.Namespace, rest: Sequence[str]
) -> tuple[Architecture, list[Source], Tensor | None]:
    """Architecture, sources and, where they are asked for, training images of an experiment.

    Raises:
        ConfigError: the experiment has no sources, or too few samples.
        DataError: its data cannot be used.
    """
    # Lightning takes seconds to import, and matching by weights alone has no need of it.
    from zoo_lightning.experiment_parts import experiment_zoo, plain_data
    from zoo_lightning.experiment_sources import ExperimentReader
    from zoo_lightning.ranking import training_batches
    from zoo_lightning.trainer_cli import run

    if options.samples < 2:
        raise ConfigError(f"--samples {options.samples}: expected at least 2, better hundreds")
    given = [word for name in options.experiment for word in ("--experiment", name)]
    words = ["fit", *given, *rest]
    for name in ("sources", "architecture"):
        if value := getattr(options, name):
            words += [f"--{name}", value]
    reader = run(words, ExperimentReader)
    architecture, sources = experiment_zoo(reader.options, reader.experiment)
    if options.how != "activations":
        return architecture, sources, None
    data = plain_data(reader.options.data)
    batches = training_batches(data, options.samples)
    images = [data.on_after_batch_transfer(batch, 0)["image"] for batch in batches]
    return architecture, sources, torch.cat(images)


def find_reference(sources: Sequence[Source], name: str | None) -> int:
    """Index of the source of a name; of the first without one.

    Raises:
        ConfigError: none of that name, or fewer than two sources.
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
    """Write a source as safetensors with its preprocessing, whole or not at all.

    Returns:
        The file's path: the source's name, with hyphens for what file names should not have.
    """
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', source.source.name)}.safetensors"
    noted = {"architecture": architecture.label, **metadata}
    if source.mean is not None and source.std is not None:
        noted["preprocessing"] = json.dumps({"mean": source.mean, "std": source.std})
    write_tensors(source.state, path, noted)
    return path


def measure(
    graph: ChannelGraph,
    architecture: Architecture,
    reference: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    images: Tensor | None,
) -> list[float]:
    """Agreement of kernels and, with images, of activations."""
    cosines = list(agreement(reference, state).values())
    result = [sum(cosines) / len(cosines)]
    if images is not None:
        result.append(mean_correlation(graph, architecture, reference, state, images))
    return result


def table(rows: Sequence[tuple[str, list[float], list[float]]]) -> str:
    """Each source's agreement with the reference before and after, and what it means."""
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
