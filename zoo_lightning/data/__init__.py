"""Data modules for classes, numbers and landmarks of images, and Atari games, and their options."""

from zoo_lightning.data.atari import AtariData
from zoo_lightning.data.augmentation import Augmentation
from zoo_lightning.data.classification.fashion_mnist import FashionMNISTSubset
from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.classification.hugging_face import HuggingFaceData
from zoo_lightning.data.classification.lists import ListFiles
from zoo_lightning.data.classification.shards import WebDatasetShards
from zoo_lightning.data.classification.torchvision_data import TorchvisionData
from zoo_lightning.data.example_files import write_checkpoints, write_image_folders
from zoo_lightning.data.landmarks.head_pose import head_poses
from zoo_lightning.data.landmarks.published import (
    COFW,
    W300,
    WFLW,
    COCOKeypoints,
    HRNetCSV,
    LandmarkCSV,
)
from zoo_lightning.data.landmarks.schemes import SCHEMES, LandmarkScheme
from zoo_lightning.data.loading import ImageDataModule
from zoo_lightning.data.multi_label.images import MultiLabelImages
from zoo_lightning.data.numbers import ImageNumbers
from zoo_lightning.data.segmentation.masks import ImageMasks
from zoo_lightning.data.synthetic.drawn_faces import DrawnFaces
from zoo_lightning.data.synthetic.scenes import CountedFaces, PhotoMosaics

__all__ = [
    "COFW",
    "SCHEMES",
    "W300",
    "WFLW",
    "AtariData",
    "Augmentation",
    "COCOKeypoints",
    "CountedFaces",
    "DrawnFaces",
    "FashionMNISTSubset",
    "HRNetCSV",
    "HuggingFaceData",
    "ImageDataModule",
    "ImageFolders",
    "ImageMasks",
    "ImageNumbers",
    "LandmarkCSV",
    "LandmarkScheme",
    "ListFiles",
    "MultiLabelImages",
    "PhotoMosaics",
    "TorchvisionData",
    "WebDatasetShards",
    "head_poses",
    "write_checkpoints",
    "write_image_folders",
]
