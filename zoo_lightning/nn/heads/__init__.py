"""Heads in pure PyTorch: from features to coordinates, heat maps, maps of scores, or numbers."""

from zoo_lightning.nn.heads.coordinates import CoordinateHead
from zoo_lightning.nn.heads.heatmaps import HeatmapHead
from zoo_lightning.nn.heads.maps import MapHead
from zoo_lightning.nn.heads.numbers import NumberHead

__all__ = ["CoordinateHead", "HeatmapHead", "MapHead", "NumberHead"]
