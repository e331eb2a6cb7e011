"""Heads, pure torch: features to coordinates, to heat maps of points, or to any maps of scores."""

from zoo_lightning.heads.coordinates import CoordinateHead
from zoo_lightning.heads.heatmaps import HeatmapHead
from zoo_lightning.heads.maps import MapHead

__all__ = ["CoordinateHead", "HeatmapHead", "MapHead"]
