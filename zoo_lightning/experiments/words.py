"""Rearrange and complete the words of a command line before they are parsed.

Experiments are moved before the options that override them. If only a checkpoint is given, its
run's configuration replaces the experiment; options that only zoos have imply the method.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.finding import experiment_name, find_experiment
from zoo_lightning.files.plain_yaml import read_yaml
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.runs.run_folder import CONFIG, PLAN, find_checkpoint
from zoo_lightning.sources.own_runs import run_of

EXPERIMENTS = ("--experiment", "--config", "-c")
"""Options whose values are experiments or configuration files."""

EVALUATING = ("validate", "test", "predict")
"""Subcommands that evaluate a checkpoint and train nothing."""

BACKBONE_OPTION = re.compile(r"--model\.(?:init_args\.)?backbone\.(?:init_args\.)?(\w+)")
BACKBONE_CLASS = re.compile(r"--model\.(?:init_args\.)?backbone(?:\.class_path)?")


def _parameters(cls: type) -> set[str]:
    return set(inspect.signature(cls).parameters)


ZOO_ONLY = _parameters(ZooBackbone) - _parameters(PlainBackbone)
"""Backbone options that a zoo has and a single network has not."""


def experiments_first(words: Sequence[str]) -> list[str]:
    """Move experiments before the options that override them.

    Args:
        words: command line, the subcommand first.

    Returns:
        The subcommand, the experiments, then everything else, each in the given order.
    """
    if not words or words[0].startswith("-"):
        return list(words)
    first, rest = list(words[:1]), []
    following = iter(words[1:])
    for word in following:
        name, sign, value = word.partition("=")
        if name not in EXPERIMENTS:
            rest.append(word)
            continue
        given = [word] if sign else [word, *itertools.islice(following, 1)]
        value = value if sign else "".join(given[1:])
        # Options as JSON, as agents of sweeps give them, stay where they are.
        (rest if value.startswith("{") else first).extend(given)
    return first + rest


def check_has_experiment(words: Sequence[str]) -> None:
    """Refuse options of data or model if neither an experiment nor a class is given.

    Args:
        words: command line, the subcommand first.

    Raises:
        ConfigError: naming the first such option.
    """
    names = [word.partition("=")[0] for word in words[1:] if word.startswith("-")]
    if {*EXPERIMENTS, "--help", "-h", "--print_config"} & {*names}:
        return
    for part in ("--data", "--model"):
        options = [name for name in names if name.startswith(f"{part}.")]
        named = {part, f"{part}.class_path", f"{part}.help"} & {*names}
        if options and not named:
            raise ConfigError(
                f"{options[0]} needs the class that it is an option of; give --experiment NAME, "
                f"such as classification-folders or landmarks-faces68, or {part} CLASS"
            )


def run_without_experiment(words: Sequence[str]) -> Path | None:
    """Find the run whose configuration is used if no experiment is given.

    Args:
        words: command line, the subcommand first.

    Returns:
        Folder of the run in ``--ckpt_path`` if no experiment is given and the folder has a
        configuration; otherwise ``None``.

    Raises:
        ConfigError: no experiment is given, and the checkpoint does not exist; or its folder is
            that of ``fit --method``, whose own training has not begun.
    """
    if not words or words[0] not in (*EVALUATING, "fit"):
        return None
    options = dict(itertools.pairwise(words[1:]))
    options |= {name: value for name, sign, value in (w.partition("=") for w in words) if sign}
    if set(EXPERIMENTS) & set(options):
        return None
    given = options.get("--ckpt_path")
    if given in ("last", "best"):
        folder = options.get("--run_dir" if words[0] == "fit" else "--output")
        run = Path(folder) if folder else None
    elif given:
        run = Path(given) if Path(given).is_dir() else run_of(find_checkpoint(given, None, ""))
    else:
        run = None
    if run is None or (run / CONFIG).is_file():
        return run
    if (run / PLAN).is_file():
        raise ConfigError(
            f"{run} is the folder of fit --method, whose trainings have not ended; give the "
            f"command that it was begun with, with --run_dir {run}, to resume it"
        )
    return None


def implied_zoo(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Add ``--experiment methods/lite`` or ``methods/full`` if an option of zoos is given.

    For instance, ``classification-folders`` trains one network from the average of its sources;
    with an option of gates, a zoo of the same sources is trained.

    Args:
        words: command line, experiments before options.

    Returns:
        The command line with the method's experiment after the one that it changes, and a line that
        reports it; or the unchanged words and ``None``, also if a method or a class is given.

    Raises:
        ConfigError: an experiment is unknown, a file cannot be read, or a method is given before an
            experiment that replaces it.
    """
    network: int | None = None  # place of the experiment that names PlainBackbone
    method_before: str | None = None
    found: dict[str, Any] = {}
    for place, given in _experiments(words):
        file = find_experiment(given)
        content = read_yaml(file)
        for key in ("model", "init_args", "backbone"):
            content = content.get(key) if isinstance(content, dict) else None
        if not isinstance(content, dict):
            continue
        is_method = experiment_name(file).startswith("methods/")
        if "class_path" in content:
            if method_before and not is_method:
                raise ConfigError(
                    f"--experiment {method_before} has no effect before --experiment {given}, "
                    "which names another backbone; give the method behind it"
                )
            plain = str(content["class_path"]).rpartition(".")[2] == PlainBackbone.__name__
            network, found = (place if plain and not is_method else None), {}
        if is_method:
            method_before = given
        found |= content.get("init_args") or {}
    for word, following in itertools.pairwise([*words, ""]):
        name, sign, value = word.partition("=")
        if BACKBONE_CLASS.fullmatch(name):
            return list(words), None
        if option := BACKBONE_OPTION.fullmatch(name):
            found[option[1]] = value if sign else following
    gates = [name for name in found if name in ZOO_ONLY]
    if network is None or not gates:
        return list(words), None
    method = "full" if found.get("mode") == "full" else "lite"
    added = ["--experiment", f"methods/{method}"]
    line = (
        f"{', '.join(gates)}: only zoos have it, so a {method} zoo of the experiment's sources is "
        f"trained, as with --experiment methods/{method}"
    )
    return [*words[:network], *added, *words[network:]], line


def _experiments(words: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield each experiment or file that is named, with the place behind it."""
    for place, (word, following) in enumerate(itertools.pairwise([*words, ""])):
        name, sign, value = word.partition("=")
        if name in EXPERIMENTS and not (value or following).startswith("{"):
            yield place + (1 if sign else 2), value if sign else following
