"""Torchmetrics and pure functions: landmark errors, accuracy by class, scores of masks, losses."""

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
from zoo_lightning.metrics.segmentation import ClassScores, class_scores, per_image_iou

__all__ = [
    "ClassAccuracy",
    "ClassScores",
    "ErrorAUC",
    "FailureRate",
    "LandmarkErrors",
    "MeanLoss",
    "NormalizedMeanError",
    "class_scores",
    "cumulative_error_curve",
    "error_auc",
    "failure_rate",
    "per_image_iou",
    "per_image_nme",
    "per_point_error",
]
