"""LightningModules: what a backbone is trained for."""

from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.classification import ClassificationTask
from zoo_lightning.tasks.landmarks import LandmarkTask

__all__ = ["BaseTask", "ClassificationTask", "LandmarkTask"]
