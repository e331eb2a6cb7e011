"""Where a run's weights came from and what became of them, as artifacts of Weights & Biases.

Sources go in, or a checkpoint to start from; the best checkpoint comes out. A source's artifact
holds a reference with a checksum, so that runs on the same file are seen to be; its weights are
uploaded only on request. Nothing is unpickled here: files are passed on as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from zoo_lightning.backbone import Backbone
from zoo_lightning.loggers import unharmed, wandb_runs
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.spec import Source, split_address, split_weights
from zoo_lightning.sources.writing import write_tensors

if TYPE_CHECKING:
    import wandb

HUB = "https://huggingface.co"


@rank_zero_only
def log_sources(
    loggers: Sequence[Logger], backbone: Backbone, folder: Path, upload: bool = False
) -> None:
    """Log the sources of a backbone as inputs of the run.

    Args:
        loggers: of the run.
        backbone: with its sources, read or not.
        folder: of the run, for weights that lie in no file of their own.
        upload: whether the weights themselves are to be logged.
    """
    loaded = backbone.loaded or [None] * len(backbone.sources)
    with unharmed("the sources"):
        for _, run in wandb_runs(loggers):
            for source, found in zip(backbone.sources, loaded, strict=True):
                use(run, source_artifact(source, found, folder if upload else None))


@rank_zero_only
def log_start(loggers: Sequence[Logger], checkpoint: Path) -> None:
    """Log the checkpoint whose weights a new training starts from as an input of the run."""
    import wandb

    with unharmed("the checkpoint that the run starts from"):
        for _, run in wandb_runs(loggers):
            name = artifact_name(f"start-{checkpoint.resolve().parent.parent.name}")
            artifact = wandb.Artifact(name, "model")
            artifact.add_reference(checkpoint.resolve().as_uri(), name=checkpoint.name)
            use(run, artifact)


def use(run: Any, artifact: wandb.Artifact) -> None:
    """Log a new artifact as an input of a run.

    ``run.use_artifact`` does the same, but refuses to offline, and online waits for the server
    without a limit of time; a training must not.
    """
    if hasattr(run, "_log_artifact"):
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


def source_artifact(
    source: Source, found: Adapted | None, folder: Path | None = None
) -> wandb.Artifact:
    """Artifact of a source.

    Args:
        source: what it is called and where it is.
        found: what was read of it; ``None`` where a checkpoint brought the weights.
        folder: of the run, if the weights are to be in the artifact.
    """
    import wandb

    metadata: dict[str, Any] = {**vars(source)}
    if found is not None:
        metadata |= {"matched": found.report.summary(), "mean": found.mean, "std": found.std}
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
    """Where a source can be had by everybody, if that is on the web."""
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

    with unharmed("the best checkpoint"):
        for _, run in wandb_runs(loggers):
            artifact = wandb.Artifact(
                artifact_name(f"model-{run.id}"), "model", metadata=finite(summary)
            )
            add_file(artifact, file)
            run.log_artifact(artifact, aliases=["best"])


def add_file(artifact: wandb.Artifact, file: Path) -> None:
    """Add a file that stays where it is: copies of checkpoints would fill the user's home."""
    artifact.add_file(str(file.resolve()), name=file.name, policy="immutable", skip_cache=True)


def artifact_name(words: str) -> str:
    """A name with the signs that Weights & Biases takes, at most 128 of them."""
    return re.sub(r"[^\w.-]+", "-", words, flags=re.ASCII)[:128]


def finite(value: Any) -> Any:
    """A value of a summary with words in place of infinities, which metadata may not hold."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return str(value) if value in (float("inf"), float("-inf")) else value
