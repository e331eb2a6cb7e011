"""Torchmetrics and functions: errors of landmarks, numbers, classes and labels, mean loss."""

from zoo_lightning.metrics.classification import ClassAccuracy
from zoo_lightning.metrics.functional import (
    cumulative_error_curve,
    error_auc,
    failure_rate,
    per_image_nme,
    per_point_error,
)
from zoo_lightning.metrics.landmarks import (
    ErrorAUC,
    FailureRate,
    LandmarkErrors,
    NormalizedMeanError,
)
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.metrics.multi_label import (
    LabelOutputs,
    LabelPredictions,
    average_precisions,
    best_thresholds,
    label_f1,
    label_scores,
)
from zoo_lightning.metrics.regression import NumberErrors

__all__ = [
    "ClassAccuracy",
    "ErrorAUC",
    "FailureRate",
    "LabelOutputs",
    "LabelPredictions",
    "LandmarkErrors",
    "MeanLoss",
    "NormalizedMeanError",
    "NumberErrors",
    "average_precisions",
    "best_thresholds",
    "cumulative_error_curve",
    "error_auc",
    "failure_rate",
    "label_f1",
    "label_scores",
    "per_image_nme",
    "per_point_error",
]
