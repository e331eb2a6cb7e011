"""``PlainBackbone``: an ordinary network from random weights, one source or an average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo_lightning.models.architecture import Architecture, Output, trace
from zoo_lightning.models.backbone import (
    Backbone,
    average_networks,
    load_architecture,
    plain_config,
)
from zoo_lightning.models.initialization import AverageWeights, average_shares
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.zoo import weights_wanted


class PlainBackbone(Backbone):
    """Ordinary network with random weights, those of one source, or the average of several.

    Without sources it is trained from scratch. One source is fine-tuned, with its own norm
    statistics. Several are averaged, with norm statistics reset: equal weights are a uniform soup
    (Wortsman et al., *Model soups*, ICML 2022, equation 1, before fine-tuning); unequal weights
    ``a_i`` make the network ``Σ a_i W_i`` that a lite zoo with the gates ``a_i`` computes before
    training. Under Adam and AdamW it is also trained like that zoo as long as the gates do not
    change and nothing is aligned (see ``docs/lite_is_one_network.md``), at the cost of one network.

    Args:
        architecture: timm model name, import path or function that builds the network.
        sources: no, one or several sources; see :mod:`zoo_lightning.sources.spec`.
        weights: weight of each source in the average: ``uniform``, or a number of at least 0 for
            each source, divided by their sum. On the command line also ``rank``, ``probe`` or
            ``greedy``, for numbers that :mod:`zoo_lightning.transfer.starts` finds from the
            training data.
        output: features to return: ``pooled``, ``map`` or ``stages``.
        in_chans: number of channels of the input image.
        mean: mean of each channel, or one for all, by which the images in [0, 1] are normalised;
            first layers of sources are transformed to it, see ``docs/preprocessing.md``. ``None``
            uses sources as they are.
        std: standard deviation that each channel is then divided by, one for each or one for all.
        image_size: side of the images in pixels, to build a timm network that is made for one size,
            such as a ViT, for another; ``None`` for its own.
        bands: names of the channels of the images, by which first layers of sources take the
            channels that they know, see ``docs/howto/bands.md``; ``None`` for red, green and blue,
            for grey, or for channels without names. On the command line it comes from the data.

    Raises:
        ArchitectureError: the architecture is unknown.
        ConfigError: an option's value is not allowed.
        SourceError: a source cannot be read or does not fit.
    """

    def __init__(
        self,
        architecture: str | Callable,
        sources: list[str | dict[str, Any]] | None = None,
        weights: AverageWeights | list[float] = "uniform",
        output: Output = "pooled",
        in_chans: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        image_size: int | None = None,
        bands: list[str] | None = None,
    ) -> None:
        parsed = parse_sources(sources or [])
        super().__init__(
            Architecture(architecture, output, in_chans, mean, std, image_size, bands), parsed
        )
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
        """``scratch``, ``single:SOURCE``, ``soup`` (equal weights) or ``start`` (unequal)."""
        if not self.sources:
            return "scratch"
        if len(self.sources) == 1:
            return f"single:{self.sources[0].name}"
        return "soup" if self.weights == "uniform" else "start"
