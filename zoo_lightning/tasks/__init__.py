"""LightningModules that train a backbone: classes, labels, landmarks, numbers, masks, PPO."""

from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.classification import ClassificationTask
from zoo_lightning.tasks.landmarks import LandmarkTask
from zoo_lightning.tasks.multi_label import MultiLabelTask
from zoo_lightning.tasks.ppo import PPOTask
from zoo_lightning.tasks.regression import RegressionTask
from zoo_lightning.tasks.segmentation import SegmentationTask

__all__ = [
    "BaseTask",
    "ClassificationTask",
    "LandmarkTask",
    "MultiLabelTask",
    "PPOTask",
    "RegressionTask",
    "SegmentationTask",
]
