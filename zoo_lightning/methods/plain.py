"""One ordinary network from no, one or several sources: scratch, single, soup, start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo_lightning.architecture import Architecture, Output, trace
from zoo_lightning.backbone import (
    Backbone,
    average_networks,
    load_architecture,
    plain_config,
)
from zoo_lightning.shares import AverageWeights, average_shares
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.zoo import weights_wanted


class PlainBackbone(Backbone):
    """The ordinary network: from random weights, from one source, or from the average of several.

    The number of sources decides: none is training from scratch; one is fine-tuning a single
    source, with its own norm statistics; several are averaged, with norm statistics reset. Equal
    weights are a uniform soup (Wortsman et al., *Model soups*, ICML 2022, equation 1, before
    fine-tuning). Unequal ones are the network ``Σ a_i W_i`` that a lite zoo with the gates ``a_i``
    starts as. Under Adam and AdamW it is also trained like that zoo as long as the gates stay as
    they are and nothing is aligned (see ``docs/lite_is_one_network.md``), at the cost of one
    network.

    Args:
        architecture: timm model name, import path or function that makes the network.
        sources: none, one or several; see :mod:`zoo_lightning.sources.spec`.
        weights: share of each source in the average: ``uniform``, or a number of at least 0 for
            each, brought to a sum of 1. On the command line also ``rank``, ``probe`` or ``greedy``,
            for the numbers that :mod:`zoo_lightning.starts` finds from the training data.
        output: ``pooled``, ``map`` or ``stages``.
        in_chans: channels of the input image.
    """

    def __init__(
        self,
        architecture: str | Callable,
        sources: list[str | dict[str, Any]] | None = None,
        weights: AverageWeights | list[float] = "uniform",
        output: Output = "pooled",
        in_chans: int = 3,
    ) -> None:
        parsed = parse_sources(sources or [])
        super().__init__(Architecture(architecture, output, in_chans), parsed)
        self.config = plain_config(self.architecture, parsed, weights=weights)
        self.weights = weights
        shares = average_shares(weights, parsed, weights_wanted()) if parsed else None
        if shares is None or not weights_wanted():
            self.net = self.architecture.build()
        else:
            self.loaded = load_architecture(self.architecture, parsed)
            networks = [self.architecture.build(adapted.state) for adapted in self.loaded]
            self.net = networks[0] if len(networks) == 1 else average_networks(networks, shares)
        seen = trace(self.architecture, self.net)
        self.feature_shapes, self.reductions = seen.shapes, seen.reductions

    @property
    def method(self) -> str:
        """``scratch``, ``single:SOURCE``, ``soup`` (equal weights) or ``start`` (others)."""
        if not self.sources:
            return "scratch"
        if len(self.sources) == 1:
            return f"single:{self.sources[0].name}"
        return "soup" if self.weights == "uniform" else "start"
