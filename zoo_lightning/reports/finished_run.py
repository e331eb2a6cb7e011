"""What a run folder says of its run: figures with intervals, curves, configuration, costs.

Also of runs that have not ended, and of runs of earlier versions, which have fewer files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from zoo_lightning.benchmarking.report import METRICS_OF, ComparedMetric, image_figures
from zoo_lightning.reports.folder import Folder, finite, within
from zoo_lightning.runs.run_folder import CONFIG, METRICS
from zoo_lightning.sources.own_runs import SUMMARY
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.teachers import parse_teachers

NORMAL = 1.959964
"""97.5 % quantile of the normal distribution."""

FEWEST = 10
"""Samples below which no interval is given: the normal distribution would be a bad guess."""

GAMES = "test_games.csv"


@dataclass(frozen=True)
class Figure:
    """Metric of a test or a validation with its interval over samples.

    Attributes:
        label: name of the metric with its unit.
        mean: its value.
        low: lower end of the 95 % interval; NaN if unknown.
        high: upper end of the 95 % interval; NaN if unknown.
        samples: images or games; 0 if unknown.
    """

    label: str
    mean: float
    low: float = math.nan
    high: float = math.nan
    samples: int = 0

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return self.low == self.low


class RunFiles:
    """Contents of a run folder.

    Args:
        path: run folder.
        name: name of the run in tables and charts.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.folder = Folder(path)
        self.name = name or path.resolve().name
        self.summary = self.folder.mapping(SUMMARY)
        self.config = self.folder.yaml(CONFIG)
        self.curves = self.folder.curves(METRICS)

    @property
    def ended(self) -> bool:
        """Whether the run has written its summary."""
        return bool(self.summary)

    @property
    def task(self) -> str:
        """Class name of the task, from the configuration or the metrics; empty if unknown."""
        given = within(self.config, "model", "class_path")
        if isinstance(given, str):
            return given.rpartition(".")[2]
        keys = self.test or self.validation
        for task, metric in METRICS_OF.items():
            if {metric.name, metric.in_validation.name} & {*keys}:
                return task
        return ""

    @property
    def metric(self) -> ComparedMetric | None:
        """Metric that runs of the task are compared by; ``None`` for a task of the user's."""
        return METRICS_OF.get(self.task)

    @property
    def test(self) -> dict[str, float]:
        """Test metrics by name."""
        return self._numbers("test")

    @property
    def validation(self) -> dict[str, float]:
        """Metric of the best validation by name."""
        return self._numbers("validation")

    def _numbers(self, key: str) -> dict[str, float]:
        found = self.summary.get(key)
        pairs = found.items() if isinstance(found, dict) else []
        return {str(name): v for name, each in pairs if (v := finite(each)) is not None}

    @cached_property
    def main(self) -> Figure | None:
        """Figure that the run is judged by: of the test, else of the validation."""
        metric = self.metric
        if metric is not None and metric.name in self.test:
            mean = metric.scale * self.test[metric.name]
            return Figure(metric.unit, mean, *self._interval(metric, mean))
        if metric is not None and metric.in_validation.name in self.validation:
            judged = metric.in_validation
            return Figure(judged.unit, judged.scale * self.validation[judged.name])
        known = self.test or self.validation
        return next((Figure(name, value) for name, value in known.items()), None)

    def _interval(self, metric: ComparedMetric, mean: float) -> tuple[float, float, int]:
        """Interval over test images or games, and their number."""
        counted = self.summary.get("test_images") or self.summary.get("test_games")
        samples = int(finite(counted) or 0)
        if metric.name == "test/episodic_return":
            scores = [finite(row.get("score")) for row in self.folder.rows(GAMES)]
            values = [score for score in scores if score is not None]
        else:
            values = [*(self._images(metric, mean) or {}).values()]
        if len(values) < FEWEST:
            return math.nan, math.nan, samples or len(values)
        if metric.name == "test/acc":
            return *wilson(values), len(values)
        half = NORMAL * stdev(values) / math.sqrt(len(values))
        return mean - half, mean + half, len(values)

    def _images(self, metric: ComparedMetric, mean: float) -> dict[str, float] | None:
        try:
            return image_figures(self.folder.path, metric, mean)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.folder.note("test_errors.csv", f"{type(error).__name__}: {error}")
            return None

    @property
    def backbone(self) -> dict[str, Any]:
        """Options of the backbone."""
        found = within(self.config, "model", "init_args", "backbone", "init_args")
        return found if isinstance(found, dict) else {}

    @property
    def sources(self) -> list[tuple[str, str]]:
        """Name and weights of each source."""
        return named_sources(self.backbone.get("sources"))

    @property
    def teachers(self) -> list[tuple[str, str]]:
        """Name and weights of each teacher."""
        given = within(self.config, "model", "init_args", "teachers")
        try:
            return [(each.source.name, each.source.weights) for each in parse_teachers(given or [])]
        except Exception:  # as in named_sources
            return [("", str(given))]

    @property
    def compute(self) -> dict[str, Any]:
        """Cost of the training in multiply-adds and seconds; empty if it was not counted."""
        found = self.summary.get("compute")
        return found if isinstance(found, dict) else {}

    @property
    def seconds(self) -> float | None:
        """Seconds of the training and of all that it needed."""
        whole = finite(self.compute.get("seconds"))
        return finite(self.summary.get("seconds")) if whole is None else whole

    @property
    def steps_are(self) -> str:
        """What the steps of the logged values are."""
        return "agent steps" if self.task == "PPOTask" else "optimiser steps"


def named_sources(given: Any) -> list[tuple[str, str]]:
    """Name and weights of each source of a configuration; what cannot be read is shown as it is."""
    if not isinstance(given, list):
        return []
    try:
        return [(source.name, source.weights) for source in parse_sources(given)]
    except Exception:  # of an earlier version, or changed by hand
        return [("", str(each)) for each in given]


def wilson(values: Sequence[float]) -> tuple[float, float]:
    """Interval of Wilson (1927) of a share, for values of 0 and 100 percent."""
    count, share, z = len(values), fmean(values) / 100, NORMAL
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return 100 * (middle - half), 100 * (middle + half)
