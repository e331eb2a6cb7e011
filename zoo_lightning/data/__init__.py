"""Data modules: where images and targets come from, and how they are loaded."""

from zoo_lightning.data.atari import AtariData
from zoo_lightning.data.class_lists import ListFiles
from zoo_lightning.data.classification import ImageFolders
from zoo_lightning.data.drawn_faces import DrawnFaces
from zoo_lightning.data.fashion_mnist import FashionMNISTSubset
from zoo_lightning.data.landmarks import COFW, W300, WFLW, COCOKeypoints, HRNetCSV, LandmarkCSV
from zoo_lightning.data.scenes import CountedFaces, PhotoMosaics
from zoo_lightning.data.torchvision_data import TorchvisionData

__all__ = [
    "COFW",
    "W300",
    "WFLW",
    "AtariData",
    "COCOKeypoints",
    "CountedFaces",
    "DrawnFaces",
    "FashionMNISTSubset",
    "HRNetCSV",
    "ImageFolders",
    "LandmarkCSV",
    "ListFiles",
    "PhotoMosaics",
    "TorchvisionData",
]
