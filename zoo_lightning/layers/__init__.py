"""Aggregated layers in pure torch; nothing here knows of Lightning, checkpoints or data."""

from zoo_lightning.layers.aggregated import AggregatedLayer, Mode
from zoo_lightning.layers.conv import ZooConv2d
from zoo_lightning.layers.gate import Gate
from zoo_lightning.layers.linear import ZooLinear
from zoo_lightning.layers.per_sample import ConvGeometry
from zoo_lightning.layers.plan_table import plan_table
from zoo_lightning.layers.planner import PLANS

__all__ = [
    "PLANS",
    "AggregatedLayer",
    "ConvGeometry",
    "Gate",
    "Mode",
    "ZooConv2d",
    "ZooLinear",
    "plan_table",
]
