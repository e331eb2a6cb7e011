"""Aggregated layers in pure torch; nothing here knows of Lightning, checkpoints or data."""

from zoo_lightning.layers.aggregated import AggregatedLayer, Mode
from zoo_lightning.layers.conv import ZooConv2d
from zoo_lightning.layers.gate import Gate
from zoo_lightning.layers.linear import ZooLinear
from zoo_lightning.layers.per_sample import ConvGeometry

__all__ = ["AggregatedLayer", "ConvGeometry", "Gate", "Mode", "ZooConv2d", "ZooLinear"]
