"""Heads in pure PyTorch: from features to coordinates, heat maps of points, or maps of scores."""

from zoo_lightning.nn.heads.coordinates import CoordinateHead
from zoo_lightning.nn.heads.heatmaps import HeatmapHead
from zoo_lightning.nn.heads.maps import MapHead

__all__ = ["CoordinateHead", "HeatmapHead", "MapHead"]
