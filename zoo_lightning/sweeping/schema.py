"""W&B's sweep files: read, and refused by name where something in them cannot be right.

The meaning of every key is that of W&B's documentation and of its own schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments import SWEEPS, experiment_folders
from zoo_lightning.sweeping.distributions import Distribution
from zoo_lightning.sweeping.numerals import expected, is_integer, is_number
from zoo_lightning.sweeping.parameters import read_parameters
from zoo_lightning.yaml_files import read_yaml

KEYS = (
    "apiVersion", "command", "controller", "description", "early_terminate", "entity", "kind",
    "method", "metric", "name", "parameters", "program", "project", "run_cap",
)  # fmt: skip

LAUNCH = ("imports", "job", "image_uri", "launch", "scheduler", "settings")
"""Keys of W&B Launch and of other machinery that starts no command."""

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")


@dataclass(frozen=True)
class Metric:
    """What a sweep looks at.

    Attributes:
        name: under which runs log it.
        goal: ``minimize`` or ``maximize``.
        target: once a run has reached it no new ones begin; ``None`` for no such end.
        impute: what W&B takes for runs that fail, if the file says so.
    """

    name: str
    goal: str = "minimize"
    target: float | None = None
    impute: str | None = None

    @property
    def rises(self) -> bool:
        """Whether higher is better."""
        return self.goal == "maximize"

    def best(self, values: list[float]) -> float:
        """The best of some values."""
        return max(values) if self.rises else min(values)

    def reached(self, value: float) -> bool:
        """Whether a value is as good as the target."""
        if self.target is None:
            return False
        return value >= self.target if self.rises else value <= self.target


@dataclass(frozen=True)
class Hyperband:
    """``early_terminate``: when runs that lag behind are stopped, counted in validations.

    Attributes:
        min_iter: the first band; the others are ``eta`` times further each.
        max_iter: end of the run; bands are ``eta`` times nearer to its beginning each.
        s: number of bands before ``max_iter``.
        eta: one in so many goes on.
        strict: follow the Hyperband paper closely.
    """

    min_iter: int | None
    max_iter: int | None
    s: int | None
    eta: float
    strict: bool


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        file: it was read from.
        content: of the file, as it is.
        name: of the sweep.
        method: ``grid``, ``random`` or ``bayes``.
        metric: ``None`` leaves it to the task.
        parameters: distributions by where their values go: one key, with dots as they are, or
            several for parameters that the file nests.
        command: words and W&B's macros.
        early: ``None`` lets every run end by itself.
        run_cap: most runs of the sweep; ``None`` for no such limit.
    """

    file: Path
    content: dict[str, Any]
    name: str
    method: str
    metric: Metric | None
    parameters: dict[tuple[str, ...], Distribution]
    command: tuple[str, ...]
    early: Hyperband | None
    run_cap: int | None

    def text(self, key: str) -> str:
        """A key's text, empty where the file has none."""
        return self.content.get(key) or ""


def find_sweep(name: str) -> Path:
    """File of a sweep.

    Args:
        name: a path, or a name below ``experiments/sweeps`` of the present folder or the package.

    Raises:
        ConfigError: there is none.
    """
    if Path(name).is_file():
        return Path(name)
    for folder in experiment_folders():
        file = folder / SWEEPS / f"{name}.yaml"
        if file.is_file():
            return file
    known = sorted(
        {file.stem for each in experiment_folders() for file in (each / SWEEPS).glob("*.yaml")}
    )
    raise ConfigError(
        f"unknown sweep {name!r}.{nearest(name, known)} Known are: {', '.join(known) or 'none'}; "
        "a path to a YAML file works too."
    )


def read_sweep(file: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        ConfigError: it cannot be read, or something in it cannot be right.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected method, metric and parameters, found {content!r}")
    try:
        return _sweep(file, content)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _sweep(file: Path, content: dict[str, Any]) -> Sweep:
    for key in content:
        if key in LAUNCH:
            raise ConfigError(f"{key}: is of W&B Launch, which is not supported; remove it")
        if key not in KEYS:
            raise ConfigError(
                f"{key}: unknown key.{nearest(str(key), KEYS)} Known: {', '.join(KEYS)}"
            )
    for key in ("apiVersion", "description", "entity", "name", "program", "project"):
        if not isinstance(content.get(key, ""), str):
            raise ConfigError(f"{key}: expected text, found {content[key]!r}")
    if content.get("kind", "sweep") != "sweep":
        raise ConfigError(f"kind: expected sweep, found {content['kind']!r}")
    if content.get("controller", {"type": "cloud"}) != {"type": "cloud"}:
        raise ConfigError(
            f"controller: expected {{type: cloud}}, found {content['controller']!r}; W&B's local "
            "controller is not supported: without a login the sweep runs here by itself"
        )
    method = content.get("method")
    if method not in ("grid", "random", "bayes"):
        raise ConfigError(f"method: expected grid, random or bayes, found {method!r}")
    metric = _metric(content["metric"]) if "metric" in content else None
    early = _early(content["early_terminate"]) if "early_terminate" in content else None
    for key in ("method: bayes", "early_terminate"):
        if metric is None and (early if key == "early_terminate" else method == "bayes"):
            raise ConfigError(f"{key} needs a metric; add metric: {{name: ..., goal: ...}}")
    run_cap = content.get("run_cap")
    if run_cap is not None and (not is_integer(run_cap) or run_cap < 1):
        raise ConfigError(f"run_cap: expected a whole number of at least 1, found {run_cap!r}")
    parameters = read_parameters(content.get("parameters"))
    if method == "grid":
        for path, distribution in parameters.items():
            _at(f"parameters.{'.'.join(path)}", distribution.points)
    command = content.get("command", list(DEFAULT_COMMAND))
    if not isinstance(command, list) or not command:
        raise ConfigError(f"command: expected a list of words, found {command!r}")
    words = tuple(map(str, command))
    name = content.get("name") or file.stem
    return Sweep(file, content, name, method, metric, parameters, words, early, run_cap)


def _at(place: str, check: Any, *arguments: Any) -> Any:
    """Call something; its complaints get the place."""
    try:
        return check(*arguments)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _only(place: str, given: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{place}: expected keys {', '.join(known)}, found {given!r}")
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{place}.{key}: unknown key.{nearest(str(key), known)} Known: {', '.join(known)}"
            )
    return given


def _metric(given: Any) -> Metric:
    given = _only("metric", given, ("name", "goal", "target", "impute"))
    name, goal = given.get("name"), given.get("goal", "minimize")
    target, impute = given.get("target"), given.get("impute")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"metric.name: expected a logged name such as val/nme, found {name!r}")
    if name.startswith("test/"):
        raise ConfigError(
            f"metric.name: {name} is measured on the test data, which must not choose options; "
            f"take one of validation, such as {name.replace('test/', 'val/', 1)}"
        )
    if goal not in ("minimize", "maximize"):
        raise ConfigError(f"metric.goal: expected minimize or maximize, found {goal!r}")
    if target is not None and not is_number(target):
        raise ConfigError(f"metric.target: {expected('a number', target)}")
    if impute not in (None, "latest", "best", "worst"):
        raise ConfigError(f"metric.impute: expected latest, best or worst, found {impute!r}")
    return Metric(name, goal, target, impute)


def _early(given: Any) -> Hyperband:
    known = ("type", "min_iter", "max_iter", "s", "eta", "strict")
    given = _only("early_terminate", given, known)
    if given.get("type") != "hyperband":
        raise ConfigError(f"early_terminate.type: expected hyperband, found {given.get('type')!r}")
    for key in ("min_iter", "max_iter", "s"):
        if key in given and (not is_integer(given[key]) or given[key] < 1):
            raise ConfigError(
                f"early_terminate.{key}: expected a whole number of at least 1, "
                f"found {given[key]!r}"
            )
    eta, strict = given.get("eta", 3), given.get("strict", False)
    if not is_number(eta) or eta <= 1:
        raise ConfigError(f"early_terminate.eta: {expected('a number above 1', eta)}")
    if not isinstance(strict, bool):
        raise ConfigError(f"early_terminate.strict: expected true or false, found {strict!r}")
    if "min_iter" not in given and not {"max_iter", "s"} <= set(given):
        raise ConfigError("early_terminate: expected min_iter, or max_iter and s; add them")
    if "min_iter" in given and {"max_iter", "s"} & set(given):
        raise ConfigError("early_terminate: has min_iter and max_iter or s; W&B takes one way only")
    if "max_iter" in given and given["max_iter"] / eta < 1:
        raise ConfigError(
            f"early_terminate: max_iter {given['max_iter']} has no band at eta {eta}; "
            "expected max_iter of at least eta"
        )
    return Hyperband(given.get("min_iter"), given.get("max_iter"), given.get("s"), eta, strict)
