"""What Zoo-Tuning is compared with, as far as it is one ordinary network: scratch, single, soup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo_lightning.architecture import Architecture, Output, trace
from zoo_lightning.backbone import (
    Backbone,
    NormWeights,
    average_networks,
    averaging_weights,
    load_architecture,
    plain_config,
)
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.zoo import weights_wanted


class PlainBackbone(Backbone):
    """The ordinary network: from random weights, from one source, or from the average of several.

    The number of sources says which: none is training from scratch; one is fine-tuning a single
    source, with its own norm statistics; several are a uniform soup (Wortsman et al., *Model
    soups*, ICML 2022, equation 1, before fine-tuning), with norm statistics reset.

    Args:
        architecture: timm model name, import path or function that makes the network.
        sources: none, one or several; see :mod:`zoo_lightning.sources.spec`.
        weights: share of each source in the average: ``uniform`` or a number for each.
        output: ``pooled``, ``map`` or ``stages``.
        in_chans: channels of the input image.
    """

    def __init__(
        self,
        architecture: str | Callable,
        sources: list[str | dict[str, Any]] | None = None,
        weights: NormWeights | list[float] = "uniform",
        output: Output = "pooled",
        in_chans: int = 3,
    ) -> None:
        parsed = parse_sources(sources or [])
        super().__init__(Architecture(architecture, output, in_chans), parsed)
        self.config = plain_config(self.architecture, parsed, weights=weights)
        if not parsed or not weights_wanted():
            self.net = self.architecture.build()
        else:
            self.loaded = load_architecture(self.architecture, parsed)
            networks = [self.architecture.build(adapted.state) for adapted in self.loaded]
            shares = averaging_weights(weights, "auto", parsed)
            self.net = networks[0] if len(networks) == 1 else average_networks(networks, shares)
        seen = trace(self.architecture, self.net)
        self.feature_shapes, self.reductions = seen.shapes, seen.reductions

    @property
    def method(self) -> str:
        """``scratch``, ``single:SOURCE`` or ``soup``."""
        if not self.sources:
            return "scratch"
        return f"single:{self.sources[0].name}" if len(self.sources) == 1 else "soup"
