"""Read and check W&B sweep files, by W&B's documentation and schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.finding import SWEEPS, experiment_folders
from zoo_lightning.files.plain_yaml import read_yaml
from zoo_lightning.sweeps.parameters import (
    Distribution,
    ParameterPath,
    is_integer,
    is_number,
    read_parameters,
    wrong_type,
)

KEYS = (
    "apiVersion", "command", "controller", "description", "early_terminate", "entity", "kind",
    "method", "metric", "name", "parameters", "program", "project", "run_cap",
)  # fmt: skip

LAUNCH = ("imports", "job", "image_uri", "launch", "scheduler", "settings")
"""Keys of W&B Launch, which is not supported."""

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")

CHANGEABLE = ("run_cap", "description", "target")
"""Keys whose values may change when a sweep is resumed."""

Goal = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class SweepMetric:
    """Metric that a sweep optimizes.

    Attributes:
        name: name under which runs log the metric.
        goal: ``minimize`` or ``maximize``.
        target: value at which the sweep ends; ``None`` for none.
        impute: how W&B's server imputes the metric of failed runs: ``latest``, ``best``, ``worst``
            or ``None``.
    """

    name: str
    goal: Goal = "minimize"
    target: float | None = None
    impute: str | None = None

    @property
    def rises(self) -> bool:
        """Whether higher is better."""
        return self.goal == "maximize"

    def best(self, values: Sequence[float]) -> float:
        """Best of some values of the metric."""
        return max(values) if self.rises else min(values)

    def reached(self, value: float | None) -> bool:
        """Whether a value is at least as good as the target."""
        if self.target is None or value is None:
            return False
        return value >= self.target if self.rises else value <= self.target


@dataclass(frozen=True)
class EarlyTermination:
    """Settings of ``early_terminate``: after which validations lagging runs are stopped.

    Attributes:
        min_iter: first band, number of validations; each further band is ``eta`` times later.
        max_iter: end of a run, number of validations; each band before it is ``eta`` times earlier.
        s: number of bands before ``max_iter``.
        eta: at each band, the best ``1 / eta`` of the runs continue; above 1.
        strict: whether to follow the Hyperband paper strictly.
    """

    min_iter: int | None
    max_iter: int | None
    s: int | None
    eta: float
    strict: bool


@dataclass(frozen=True)
class Sweep:
    """Parsed content of a sweep file.

    Attributes:
        file: path of the file.
        content: keys and values of the file, unchanged.
        name: name of the sweep.
        method: ``grid``, ``random`` or ``bayes``.
        metric: metric to optimise; ``None`` takes the task's monitored metric.
        parameters: distribution of each parameter, by path.
        command: words of the command, with W&B's macros.
        early: settings of early termination; ``None`` for none.
        run_cap: largest number of runs; ``None`` for no limit.
    """

    file: Path
    content: dict[str, Any]
    name: str
    method: str
    metric: SweepMetric | None
    parameters: dict[ParameterPath, Distribution]
    command: tuple[str, ...]
    early: EarlyTermination | None
    run_cap: int | None

    def text(self, key: str) -> str:
        """Text of a key of the file; empty if the file lacks it."""
        return self.content.get(key) or ""

    @property
    def varied(self) -> list[str]:
        """Names of the parameters that are not constant."""
        return [".".join(p) for p, each in self.parameters.items() if each.kind != "constant"]


def find_sweep(name: str) -> Path:
    """Find a sweep file by path or name.

    Args:
        name: path of a file, or name of one in ``experiments/sweeps`` of the current folder or of
            the package.

    Raises:
        ConfigError: there is no such file.
    """
    if Path(name).is_file():
        return Path(name)
    files = [file for each in experiment_folders() for file in (each / SWEEPS).glob("*.yaml")]
    for file in files:
        if file.stem == name:
            return file
    known = sorted({file.stem for file in files})
    raise ConfigError(
        f"unknown sweep {name!r}.{nearest(name, known)} Known: {', '.join(known) or 'none'}; "
        "or give the path of a YAML file"
    )


def read_sweep(file: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        ConfigError: the file cannot be read, or has an invalid key or value.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected method, metric and parameters, got {content!r}")
    try:
        return _sweep(file, content)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def changed_keys(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List the keys in which two sweeps differ, except those that may change on resuming."""
    found = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{key}.{inside}" for inside in changed_keys(old, new)]
        elif old != new and key not in CHANGEABLE:
            found.append(key)
    return found


def _sweep(file: Path, content: dict[str, Any]) -> Sweep:
    for key in content:
        if key in LAUNCH:
            raise ConfigError(f"{key}: is a key of W&B Launch, which is not supported; remove it")
    _check_keys("", content, KEYS)
    for key in ("apiVersion", "description", "entity", "name", "program", "project"):
        if not isinstance(content.get(key, ""), str):
            raise ConfigError(f"{key}: expected text, got {content[key]!r}")
    if content.get("kind", "sweep") != "sweep":
        raise ConfigError(f"kind: expected sweep, got {content['kind']!r}")
    if content.get("controller", {"type": "cloud"}) != {"type": "cloud"}:
        raise ConfigError(
            f"controller: expected {{type: cloud}}, got {content['controller']!r}; W&B's local "
            "controller is not supported: without a login the sweep runs locally anyway"
        )
    method = content.get("method")
    if method not in ("grid", "random", "bayes"):
        raise ConfigError(f"method: expected grid, random or bayes, got {method!r}")
    metric = _metric(content["metric"]) if "metric" in content else None
    early = _early(content["early_terminate"]) if "early_terminate" in content else None
    if metric is None and (early or method == "bayes"):
        key = "early_terminate" if early else "method: bayes"
        raise ConfigError(f"{key} needs a metric; add metric: {{name: ..., goal: ...}}")
    run_cap = content.get("run_cap")
    if run_cap is not None and (not is_integer(run_cap) or run_cap < 1):
        raise ConfigError(f"run_cap: expected a whole number of at least 1, got {run_cap!r}")
    parameters = read_parameters(content.get("parameters"))
    if method == "grid":
        for path, distribution in parameters.items():
            try:
                distribution.points()
            except ConfigError as error:
                raise ConfigError(f"parameters.{'.'.join(path)}: {error}") from error
    command = content.get("command", list(DEFAULT_COMMAND))
    if not isinstance(command, list) or not command:
        raise ConfigError(f"command: expected a list of words, got {command!r}")
    words = tuple(map(str, command))
    name = content.get("name") or file.stem
    return Sweep(file, content, name, method, metric, parameters, words, early, run_cap)


def _check_keys(place: str, given: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{place}: expected keys {', '.join(known)}, got {given!r}")
    for key in given:
        if key not in known:
            name = f"{place}.{key}" if place else key
            raise ConfigError(
                f"{name}: unknown key.{nearest(str(key), known)} Known: {', '.join(known)}"
            )
    return given


def _metric(given: Any) -> SweepMetric:
    given = _check_keys("metric", given, ("name", "goal", "target", "impute"))
    name, goal = given.get("name"), given.get("goal", "minimize")
    target, impute = given.get("target"), given.get("impute")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"metric.name: expected a logged name such as val/nme, got {name!r}")
    if name.startswith("test/"):
        raise ConfigError(
            f"metric.name: {name} is measured on the test data, which must not choose options; "
            f"use a validation metric such as {name.replace('test/', 'val/', 1)}"
        )
    if goal not in ("minimize", "maximize"):
        raise ConfigError(f"metric.goal: expected minimize or maximize, got {goal!r}")
    if target is not None and not is_number(target):
        raise ConfigError(f"metric.target: {wrong_type('a number', target)}")
    if impute not in (None, "latest", "best", "worst"):
        raise ConfigError(f"metric.impute: expected latest, best or worst, got {impute!r}")
    return SweepMetric(name, goal, target, impute)


def _early(given: Any) -> EarlyTermination:
    known = ("type", "min_iter", "max_iter", "s", "eta", "strict")
    given = _check_keys("early_terminate", given, known)
    if given.get("type") != "hyperband":
        raise ConfigError(f"early_terminate.type: expected hyperband, got {given.get('type')!r}")
    for key in ("min_iter", "max_iter", "s"):
        if key in given and (not is_integer(given[key]) or given[key] < 1):
            raise ConfigError(
                f"early_terminate.{key}: expected a whole number of at least 1, got {given[key]!r}"
            )
    eta, strict = given.get("eta", 3), given.get("strict", False)
    if not is_number(eta) or eta <= 1:
        raise ConfigError(f"early_terminate.eta: {wrong_type('a number above 1', eta)}")
    if not isinstance(strict, bool):
        raise ConfigError(f"early_terminate.strict: expected true or false, got {strict!r}")
    if "min_iter" not in given and not {"max_iter", "s"} <= set(given):
        raise ConfigError("early_terminate: expected min_iter, or max_iter and s; add them")
    if "min_iter" in given and {"max_iter", "s"} & set(given):
        raise ConfigError("early_terminate: has min_iter and max_iter or s; keep one way")
    if "max_iter" in given and given["max_iter"] / eta < 1:
        raise ConfigError(
            f"early_terminate: max_iter {given['max_iter']} has no band at eta {eta}; "
            "max_iter must be at least eta"
        )
    bands = {key: given.get(key) for key in ("min_iter", "max_iter", "s")}
    return EarlyTermination(eta=eta, strict=strict, **bands)
