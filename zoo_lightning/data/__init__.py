"""Data modules: where images and targets come from, and how they are loaded."""

from zoo_lightning.data.classification import ImageFolders
from zoo_lightning.data.drawn_faces import DrawnFaces
from zoo_lightning.data.landmarks import LandmarkCSV

__all__ = ["DrawnFaces", "ImageFolders", "LandmarkCSV"]
