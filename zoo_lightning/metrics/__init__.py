"""Torchmetrics and functions: of landmarks, numbers, classes, labels and masks, mean loss."""

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
from zoo_lightning.metrics.segmentation import ClassScores, class_scores, per_image_iou

__all__ = [
    "ClassAccuracy",
    "ClassScores",
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
    "class_scores",
    "cumulative_error_curve",
    "error_auc",
    "failure_rate",
    "label_f1",
    "label_scores",
    "per_image_iou",
    "per_image_nme",
    "per_point_error",
]
