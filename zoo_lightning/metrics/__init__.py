"""Torchmetrics and pure functions: errors of landmarks and numbers, class accuracy, mean loss."""

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
from zoo_lightning.metrics.regression import NumberErrors

__all__ = [
    "ClassAccuracy",
    "ErrorAUC",
    "FailureRate",
    "LandmarkErrors",
    "MeanLoss",
    "NormalizedMeanError",
    "NumberErrors",
    "cumulative_error_curve",
    "error_auc",
    "failure_rate",
    "per_image_nme",
    "per_point_error",
]
