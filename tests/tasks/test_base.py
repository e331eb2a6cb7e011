"""What all tasks check of their data."""

from types import SimpleNamespace

import pytest

from zoo_lightning import PlainBackbone
from zoo_lightning.errors import ConfigError
from zoo_lightning.tasks import (
    ClassificationTask,
    LandmarkTask,
    MultiLabelTask,
    RegressionTask,
    SegmentationTask,
    base,
)
from zoo_lightning.tasks.base import TASKS


@pytest.mark.parametrize(
    ("task", "output", "right"),
    [
        (ClassificationTask, "pooled", "a class for each image"),
        (MultiLabelTask, "pooled", "several labels for each image"),
        (SegmentationTask, "stages", "a class for each pixel"),
        (RegressionTask, "pooled", "numbers"),
        (LandmarkTask, "pooled", "points"),
    ],
)
def test_data_of_another_task_are_refused_with_that_tasks_name(task, output, right):
    made = task(PlainBackbone("test_resnet", output=output))
    made.check_data(SimpleNamespace(target_kind=right))
    made.check_data(SimpleNamespace())  # data of one's own need not say it
    for kind in TASKS.keys() - {right}:
        with pytest.raises(ConfigError, match=rf"needs {right}, .* has {kind}; give model"):
            made.check_data(SimpleNamespace(target_kind=kind))


def test_teachers_of_another_task_may_teach_features(monkeypatch):
    content = {"zoo_lightning": {"task": "RegressionTask"}}
    monkeypatch.setattr(
        base, "load_output_teachers", lambda specs, build, seen: build(content, "runs/ages")
    )
    with pytest.raises(ConfigError, match=r"runs/ages is of a task 'RegressionTask'.*features"):
        MultiLabelTask(PlainBackbone("test_resnet"))._load_output_teachers([], None)
