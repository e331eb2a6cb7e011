"""Heads of landmark networks, pure torch: features to coordinates or to heat maps."""

from zoo_lightning.heads.coordinates import CoordinateHead
from zoo_lightning.heads.heatmaps import HeatmapHead

__all__ = ["CoordinateHead", "HeatmapHead"]
