"""Data modules: where images and targets come from, and how they are loaded."""

from zoo_lightning.data.classification import ImageFolders
from zoo_lightning.data.drawn_faces import DrawnFaces
from zoo_lightning.data.landmarks import COFW, W300, WFLW, COCOKeypoints, HRNetCSV, LandmarkCSV

__all__ = [
    "COFW",
    "W300",
    "WFLW",
    "COCOKeypoints",
    "DrawnFaces",
    "HRNetCSV",
    "ImageFolders",
    "LandmarkCSV",
]
