"""Layers in pure PyTorch: aggregated convolutions and linear layers, their gates, heads and losses.

Nothing here imports Lightning. :mod:`zoo_lightning.nn.reference` has the equation that the layers
compute; :mod:`zoo_lightning.nn.fast` computes the same result in less time.
"""

from zoo_lightning.nn.aggregated import AggregatedLayer, Mode
from zoo_lightning.nn.conv import ZooConv2d
from zoo_lightning.nn.fast.plan_table import plan_table
from zoo_lightning.nn.fast.planner import PLANS
from zoo_lightning.nn.folding import fold_state
from zoo_lightning.nn.gate import Gate
from zoo_lightning.nn.linear import ZooLinear
from zoo_lightning.nn.reference import ConvGeometry, SourceKernels, reference

__all__ = [
    "PLANS",
    "AggregatedLayer",
    "ConvGeometry",
    "Gate",
    "Mode",
    "SourceKernels",
    "ZooConv2d",
    "ZooLinear",
    "fold_state",
    "plan_table",
    "reference",
]
