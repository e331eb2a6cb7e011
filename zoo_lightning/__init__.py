"""Zoo-Tuning: one good model from several pretrained models of one architecture.

The names below are imported when they are first used, since torch and Lightning take seconds.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "ZooBackbone": "zoo_lightning.backbone",
    "PlainBackbone": "zoo_lightning.methods",
    "ClassificationTask": "zoo_lightning.tasks",
    "LandmarkTask": "zoo_lightning.tasks",
    "PPOTask": "zoo_lightning.tasks",
    "load_task": "zoo_lightning.tasks.loading",
    "save_ensemble": "zoo_lightning.methods.saving",
    "export": "zoo_lightning.deployment.export",
    "Predictor": "zoo_lightning.predicting.predictor",
    "informed_start": "zoo_lightning.starts",
    "gate_report": "zoo_lightning.gates.report",
    "AtariData": "zoo_lightning.data",
    "DrawnFaces": "zoo_lightning.data",
    "FashionMNISTSubset": "zoo_lightning.data",
    "ImageFolders": "zoo_lightning.data",
    "LandmarkCSV": "zoo_lightning.data",
    "ListFiles": "zoo_lightning.data",
    "TorchvisionData": "zoo_lightning.data",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    """Import a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo_lightning' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
