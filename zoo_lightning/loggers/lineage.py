"""Log a run's sources, best checkpoint and report as artifacts of Weights & Biases.

Inputs of a run are its sources, or the checkpoint whose weights it is initialised from; its outputs
are the best checkpoint and the report. A source's artifact holds a reference with a checksum, which
identifies runs on the same file; weights are uploaded only on request. No file is unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from zoo_lightning.loggers.selection import tolerate_failures, wandb_runs
from zoo_lightning.loggers.wandb_internals import log_input
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.files import write_tensors
from zoo_lightning.sources.spec import Source, split_address, split_weights

if TYPE_CHECKING:
    import wandb

HUB = "https://huggingface.co"


@rank_zero_only
def log_sources(
    loggers: Sequence[Logger], backbone: Backbone, folder: Path, upload: bool = False
) -> None:
    """Log the sources of a backbone as inputs of the run.

    Args:
        loggers: the run's loggers.
        backbone: backbone whose sources are logged, whether they have been read or not.
        folder: the run's folder, to which weights without a file of their own are written.
        upload: whether to log the weights themselves.
    """
    loaded: Sequence[Adapted | None] = backbone.loaded or [None] * len(backbone.sources)
    with tolerate_failures("the sources"):
        for _, run in wandb_runs(loggers):
            for source, found in zip(backbone.sources, loaded, strict=True):
                log_input(run, source_artifact(source, found, folder if upload else None))


@rank_zero_only
def log_start(loggers: Sequence[Logger], checkpoint: Path) -> None:
    """Log the checkpoint of a run's initial weights as an input of the run."""
    import wandb

    with tolerate_failures("the checkpoint of the initial weights"):
        for _, run in wandb_runs(loggers):
            name = artifact_name(f"start-{checkpoint.resolve().parent.parent.name}")
            artifact = wandb.Artifact(name, "model")
            artifact.add_reference(checkpoint.resolve().as_uri(), name=checkpoint.name)
            log_input(run, artifact)


def source_artifact(
    source: Source, found: Adapted | None, folder: Path | None = None
) -> wandb.Artifact:
    """Create the W&B artifact of a source.

    Args:
        source: name and location of the source.
        found: the source's weights as read; ``None`` if they come from a checkpoint.
        folder: the run's folder, if the artifact should contain the weights; ``None`` for a
            reference.
    """
    import wandb

    metadata: dict[str, Any] = {**vars(source)}
    if found is not None:
        own = found.own and found.own.as_dict()
        metadata |= {"matched": found.report.summary(), "preprocessing": own}
    artifact = wandb.Artifact(artifact_name(f"source-{source.name}"), "source", metadata=metadata)
    origin = Path(found.origin) if found is not None and found.origin else None
    file = origin if origin is not None and origin.is_file() else None
    if folder is not None and found is not None:
        if file is None:  # of a hub's cache or made from a seed: as the backbone got it
            file = folder / "wandb" / "sources" / f"{artifact_name(source.name)}.safetensors"
            write_tensors(found.state, file, {"source": source.weights})
        add_file(artifact, file)
        return artifact
    address = web_address(source)
    if address is not None:
        artifact.add_reference(address, name="weights", checksum=False)  # asks no server
    elif file is not None:
        artifact.add_reference(file.resolve().as_uri(), name=file.name)
    else:  # an artifact is what it contains, so it must contain something
        with artifact.new_file("reference.txt") as stream:
            stream.write(f"{source.weights}\n")
    return artifact


def web_address(source: Source) -> str | None:
    """Public web address of a source, or ``None`` if it has none."""
    kind, rest = split_weights(source.weights)
    if kind in ("https", "http"):
        return split_address(source.weights)[0]
    if kind == "timm":
        return f"{HUB}/timm/{rest}"
    return f"{HUB}/{rest.partition('@')[0]}" if kind == "hf-hub" else None


@rank_zero_only
def log_checkpoint(loggers: Sequence[Logger], file: Path, summary: Mapping[str, Any]) -> None:
    """Log a run's best checkpoint as its output ``model-RUN_ID``, with the summary as metadata."""
    import wandb

    with tolerate_failures("the best checkpoint"):
        for _, run in wandb_runs(loggers):
            artifact = wandb.Artifact(
                artifact_name(f"model-{run.id}"), "model", metadata=finite(summary)
            )
            add_file(artifact, file)
            run.log_artifact(artifact, aliases=["best"])


@rank_zero_only
def log_report(loggers: Sequence[Logger], file: Path) -> None:
    """Log a run's ``report.html`` as its output ``report-RUN_ID``."""
    import wandb

    with tolerate_failures("the report"):
        for _, run in wandb_runs(loggers):
            artifact = wandb.Artifact(artifact_name(f"report-{run.id}"), "report")
            add_file(artifact, file)
            run.log_artifact(artifact, aliases=["latest"])


def add_file(artifact: wandb.Artifact, file: Path) -> None:
    """Add a file to an artifact without copying it to W&B's cache."""
    artifact.add_file(str(file.resolve()), name=file.name, policy="immutable", skip_cache=True)


def artifact_name(words: str) -> str:
    """Convert text to a valid W&B artifact name of at most 128 characters."""
    return re.sub(r"[^\w.-]+", "-", words, flags=re.ASCII)[:128]


def finite(value: Any) -> Any:
    """Replace infinities in a summary by text, because W&B metadata cannot hold them."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return str(value) if value in (float("inf"), float("-inf")) else value
