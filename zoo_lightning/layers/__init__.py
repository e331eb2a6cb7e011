"""Aggregated layers in pure torch; nothing here knows of Lightning, checkpoints or data."""

from zoo_lightning.layers.aggregated import AggregatedLayer, Mode
from zoo_lightning.layers.aggregation import ConvGeometry
from zoo_lightning.layers.conv import ZooConv2d
from zoo_lightning.layers.gate import Gate
from zoo_lightning.layers.linear import ZooLinear

__all__ = ["AggregatedLayer", "ConvGeometry", "Gate", "Mode", "ZooConv2d", "ZooLinear"]
