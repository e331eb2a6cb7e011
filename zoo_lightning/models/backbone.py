"""``ZooBackbone``: any architecture whose layers aggregate those of several sources.

A task uses two properties of a backbone: called with images it returns features, and
``num_features`` is their number. The rest builds, saves and folds a zoo. Pure PyTorch: no
Lightning.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from zoo_lightning.errors import ArchitectureError, ConfigError
from zoo_lightning.models.aggregable import check_network
from zoo_lightning.models.architecture import Architecture, Output, Trace, trace
from zoo_lightning.models.attention_heads import AttentionHeads, attention_heads
from zoo_lightning.models.first_layers import on_input_of
from zoo_lightning.models.initialization import (
    GateInit,
    NormWeights,
    averaging_weights,
    check_choice,
    check_gate_init,
    gate_start,
)
from zoo_lightning.nn import PLANS, AggregatedLayer, Mode, ZooConv2d, ZooLinear
from zoo_lightning.nn.aggregated import SampleCount
from zoo_lightning.nn.folding import fold_state
from zoo_lightning.nn.gate import GATES, Gating, share_gate
from zoo_lightning.nn.norm_search import is_norm
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.normalisation import KEYS
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.sources.zoo import (
    check_preprocessing,
    load_sources,
    unknown_preprocessing,
    weights_wanted,
)

Align = Literal["none", "released", "spatial", "heads", "all"]

UNALIGNED = ("layer1.", "layer2.")
"""Prefixes of the layers of a ResNet that the authors' code does not align."""


class Backbone(nn.Module):
    """A network without a head, with its architecture and sources.

    Args:
        architecture: architecture of the ordinary network.
        sources: sources of its initial weights; empty for random weights.

    Attributes:
        net: the network.
        config: constructor arguments in plain types, from which the backbone can be rebuilt.
        loaded: weights and loading report of each source; empty if the weights come from a
            checkpoint.
        num_features: number of channels ``F`` of the pooled features or the last feature map.
        progress: fraction of the training that is done, in [0, 1], set by the task.
        feature_shapes: shape ``(F,)`` or ``(F, H, W)`` of each output, for images of the
            architecture's own size.
        reductions: pixels of the image that a cell of each output spans; 0 for pooled features.
    """

    net: nn.Module
    config: dict[str, Any]

    def __init__(self, architecture: Architecture, sources: Sequence[Source]) -> None:
        super().__init__()
        self.architecture = architecture
        self.sources = list(sources)
        self.loaded: list[Adapted] = []
        self.progress = 0.0
        self.feature_shapes: list[tuple[int, ...]] = []
        self.reductions: list[int] = []

    @property
    def method(self) -> str:
        """Name of the transfer method, as written to ``summary.json``."""
        raise NotImplementedError

    @property
    def num_features(self) -> int:
        """Number of channels ``F`` of the pooled features or the last feature map."""
        return self.feature_shapes[-1][0]

    def prepare(self) -> None:
        """Load what is needed for training only, such as teachers.

        Raises:
            SourceError: a source cannot be read.
        """

    def penalty(self) -> Tensor | None:
        """Scalar that the backbone adds to the training loss; ``None`` for nothing."""
        return None

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map images ``(B, in_chans, H, W)`` to features ``(B, F)``, ``(B, F, H, W)`` or a list."""
        return self.architecture.features(self.net, x)

    def folded_state(self) -> dict[str, Tensor]:
        """State dict of the equivalent ordinary network."""
        return {key: value.detach().clone() for key, value in self.net.state_dict().items()}

    def fold(self, head: nn.Module | None = None) -> nn.Module:
        """Build the ordinary network, which holds no sources.

        It is equivalent to a lite zoo in evaluation. Of a full zoo, which has a kernel for each
        image, it takes the kernels of the average gates, and computes something else.

        Args:
            head: head on the features. A linear layer on pooled features becomes timm's classifier,
                if that is a linear layer or a 1×1 convolution.

        Returns:
            A timm model with exactly timm's state-dict keys, or the module that the architecture's
            function builds; with a head that cannot be timm's classifier, a :class:`Headed` network
            of both. In evaluation mode.
        """
        device = next(self.parameters()).device
        folded = self.architecture.build()
        folded.load_state_dict(self.folded_state())
        if head is not None:
            folded = self._with_head(folded, head)
        return folded.to(device).eval()

    def _with_head(self, folded: nn.Module, head: nn.Module) -> nn.Module:
        pooled = self.architecture.output == "pooled"
        if pooled and self.architecture.is_timm and isinstance(head, nn.Linear):
            classified: Any = copy.deepcopy(folded)  # with methods of timm's models
            classified.reset_classifier(head.out_features)
            if load_classifier(classified.get_classifier(), head):
                return classified
        return Headed(self.architecture, folded, copy.deepcopy(head))

    def parameter_counts(self) -> dict[str, int]:
        """Count the parameters in ``training``, and when ``folded`` into an ordinary network."""
        ordinary = self.architecture.build()
        return {
            "training": sum(p.numel() for p in self.parameters()),
            "folded": sum(p.numel() for p in ordinary.parameters()),
        }

    def describe(self) -> str:
        """Format the architecture, the sources' loading reports and the parameters as lines."""
        counts = self.parameter_counts()
        lines = [
            f"architecture  {self.architecture.label} ({self.architecture.output} features, "
            f"{self.num_features} channels)",
            f"method        {self.method}",
        ]
        for index, source in enumerate(self.sources):
            matched = (
                self.loaded[index].report.summary() if self.loaded else "weights from a checkpoint"
            )
            lines.append(f"source        {source.name} ({source.weights}): {matched}")
        if not self.sources:
            lines.append("source        none: random initialisation")
        warning = check_preprocessing(self.loaded)
        if warning:
            lines.append(f"warning       {warning}")
        if self.architecture.normalisation and (note := unknown_preprocessing(self.loaded)):
            lines.append(f"note          {note}")
        lines.append(
            f"parameters    {counts['training']:,} while training, {counts['folded']:,} folded"
        )
        return "\n".join(lines)


class Headed(nn.Module):
    """An ordinary network and a head on its features.

    Args:
        architecture: architecture that extracts the head's features from the network.
        net: network that the architecture built.
        head: head on the features.
    """

    def __init__(self, architecture: Architecture, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.architecture, self.net, self.head = architecture, net, head

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, in_chans, H, W)`` to the head's output."""
        return self.head(self.architecture.features(self.net, x))


def load_classifier(classifier: object, head: nn.Linear) -> bool:
    """Copy a linear head's weights into the classifier of a timm network.

    Args:
        classifier: result of timm's ``get_classifier``.
        head: linear layer on pooled features ``(B, F)``.

    Returns:
        Whether the weights were copied. The classifier must be a linear layer or a 1×1 convolution
        of the same size; others, with norm layers or several heads, compute something else.
    """
    state = head.state_dict()
    if isinstance(classifier, nn.Conv2d):
        state["weight"] = state["weight"][:, :, None, None]
    elif not isinstance(classifier, nn.Linear):
        return False
    wanted = {key: value.shape for key, value in classifier.state_dict().items()}
    if {key: value.shape for key, value in state.items()} != wanted:
        return False
    classifier.load_state_dict(state)
    return True


class ZooBackbone(Backbone):
    """Aggregated network over several sources (Zoo-Tuning and lite Zoo-Tuning).

    Args:
        architecture: timm model name, import path or function that builds the ordinary network.
        sources: at least one source; each a string or a mapping (``name``, ``weights``, ``prefix``,
            ``match``, its preprocessing and more), see :mod:`zoo_lightning.sources.spec`.
        mode: ``full`` for one kernel per sample, ``lite`` for one per batch in training and one
            for all afterwards.
        align: which layers have a channel alignment: ``none``, ``spatial`` (kernels larger than
            1×1), ``released`` (of these the stem's and those of ``layer3`` and ``layer4``, as in
            the authors' code for ResNets: 10 of ResNet-50's 53 convolutions), ``heads``
            (``spatial`` and the queries, keys and values of attention) or ``all``. Queries, keys
            and values are aligned within each head, so that heads are not mixed; attention whose
            heads are not found, see :mod:`zoo_lightning.models.attention_heads`, is not aligned.
        gate_init: gates before training. ``released`` as in the authors' code, scattered around
            0.5; ``sum_to_one``, 1/m for every source; ``auto``, ``released`` in layers that a norm
            layer follows and ``sum_to_one`` in the others; or a number in (0, 1) for each source.
            On the command line also ``rank``, ``probe`` or ``greedy``, for numbers that
            :mod:`zoo_lightning.transfer.starts` finds from the training data.
        norm_weights: weights of the sources in parameters that are averaged, not aggregated (those
            of norm layers and others): ``uniform``, ``gates`` for the numbers of ``gate_init``, or
            a number for each source. Divided by their sum.
        output: features to return: ``pooled``, ``map`` or ``stages``.
        in_chans: number of channels of the input image; first kernels of sources whose
            preprocessing is unknown are adapted by timm's rule.
        plan: how aggregated layers compute, which changes speed only: ``auto`` by a cost model,
            ``benchmark`` by timing each shape once, ``reference`` by the equation as it stands, or
            the same way everywhere by its name.
        gating: kind of the gates: ``sigmoid``, independent for each source, as in the paper; for
            comparison ``softmax``, which sums to one, ``constant``, learned weights that do not
            depend on the input, or ``shared``, one gate for all layers after the first.
        mean: mean of each channel, or one for all, by which the images in [0, 1] are normalised
            before the backbone gets them. First layers of sources whose preprocessing is known are
            transformed to these images, see ``docs/preprocessing.md``. ``None`` uses sources as
            they are. On the command line it comes from the data.
        std: standard deviation that each channel is then divided by, one for each or one for all.
        image_size: side of the images in pixels, to build a timm network that is made for one size,
            such as a ViT, for another; ``None`` for its own.
        bands: names of the channels of the images, by which first layers of sources take the
            channels that they know, see ``docs/howto/bands.md``; ``None`` for red, green and blue,
            for grey, or for channels without names. On the command line it comes from the data.

    Raises:
        ArchitectureError: the architecture is unknown, or a layer cannot be aggregated.
        ConfigError: an option's value is not allowed, or options contradict each other.
        SourceError: a source cannot be read or does not fit.
    """

    def __init__(
        self,
        architecture: str | Callable[[], nn.Module],
        sources: list[str | dict[str, Any]],
        mode: Mode = "full",
        align: Align = "spatial",
        gate_init: GateInit | list[float] = "auto",
        norm_weights: NormWeights | list[float] = "uniform",
        output: Output = "pooled",
        in_chans: int = 3,
        plan: str = "auto",
        gating: Gating = "sigmoid",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        image_size: int | None = None,
        bands: list[str] | None = None,
    ) -> None:
        parsed = parse_sources(sources)
        super().__init__(
            Architecture(architecture, output, in_chans, mean, std, image_size, bands), parsed
        )
        if not parsed:
            raise ConfigError(
                "sources must have at least one source, got none; for random weights use "
                "PlainBackbone"
            )
        check_choice("mode", mode, ("full", "lite"))
        check_choice("align", align, get_args(Align))
        check_choice("plan", plan, PLANS)
        check_choice("gating", gating, tuple(GATES))
        self.mode: Mode = mode
        self.plan = plan
        self.align = align
        self.gating: Gating = gating
        self.gate_init = check_gate_init(gate_init, parsed, wanted=weights_wanted())
        self.config = plain_config(
            self.architecture,
            parsed,
            mode=mode,
            align=align,
            gate_init=gate_init,
            norm_weights=norm_weights,
            plan=plan,
            gating=gating,
        )
        shares = averaging_weights(norm_weights, self.gate_init, parsed)
        networks = self._source_networks()
        check_network(networks[0])
        seen = trace(self.architecture, networks[0])
        if align == "released" and not any(name.startswith("layer4.") for name in seen.called):
            raise ConfigError(
                "align 'released' is for ResNets like the authors', with stages layer1 to layer4, "
                f"which {self.architecture.label} does not have: use align 'spatial'"
            )
        self.feature_shapes, self.reductions = seen.shapes, seen.reductions
        self.net = self._aggregate(networks, seen, shares)

    @property
    def method(self) -> str:
        """``zoo`` or ``lite``."""
        return "lite" if self.mode == "lite" else "zoo"

    def _source_networks(self) -> list[nn.Module]:
        """Build the ordinary network with each source's weights, or with random weights."""
        if not weights_wanted():
            return [self.architecture.build() for _ in self.sources]
        self.loaded = load_architecture(self.architecture, self.sources)
        return [self.architecture.build(adapted.state) for adapted in self.loaded]

    def _aggregate(self, networks: list[nn.Module], seen: Trace, shares: Tensor) -> nn.Module:
        net = average_networks(networks, shares)
        calls = Counter(seen.called)
        heads = AttentionHeads()
        if self.align in ("heads", "all"):
            heads = attention_heads(self.architecture, net)
        modules = [dict(network.named_modules()) for network in networks]
        for name, module in list(net.named_modules()):
            # A layer that never runs itself (its weight is used by another layer) stays averaged.
            if not isinstance(module, (nn.Conv2d, nn.Linear)) or not calls[name]:
                continue
            layers = [by_name[name] for by_name in modules]
            aggregated = self._aggregate_layer(layers, name, name in seen.before_norm, heads)
            if not name:
                raise ArchitectureError(
                    f"architecture {self.architecture.label!r} is a single layer; wrap it in a "
                    "module so that it has a name"
                )
            net.set_submodule(name, aggregated)
        for name, own in heads.blocks.items():
            layer, owner = net.get_submodule(name), net.get_submodule(own.bank)
            if isinstance(layer, AggregatedLayer) and isinstance(owner, AggregatedLayer):
                layer.alignment = owner.alignment  # one map for a head's queries and keys
        layers_of = {n: m for n, m in net.named_modules() if isinstance(m, AggregatedLayer)}
        if windowed := seen.windowed & layers_of.keys():
            samples = SampleCount()
            first = next(name for name in seen.called if name in layers_of)
            for name in {first, *windowed}:
                layers_of[name].samples = samples
                layers_of[name].windowed = name != first
        if self.gating == "shared":
            named = dict(net.named_modules())
            order = [name for name in dict.fromkeys(seen.called) if name in named]
            share_gate([named[n] for n in order if isinstance(named[n], AggregatedLayer)])
        return net

    def _aggregate_layer(
        self, layers: list[nn.Module], name: str, norm_follows: bool, heads: AttentionHeads
    ) -> AggregatedLayer:
        weight = torch.stack([layer.get_parameter("weight").detach() for layer in layers])
        like, bias = layers[0], None
        if like.bias is not None:
            bias = torch.stack([layer.get_parameter("bias").detach() for layer in layers])
        spatial = weight.dim() == 5 and weight.shape[-2:] != (1, 1)
        aligned = {
            "none": False,
            "released": spatial and not name.startswith(UNALIGNED),
            "spatial": spatial,
            "heads": spatial or name in heads.blocks,
            "all": name not in heads.undivided,
        }[self.align]
        own = heads.blocks.get(name)
        options = {
            "mode": self.mode,
            "aligned": aligned,
            "gate_start": gate_start(self.gate_init, len(layers), norm_follows),
            "plan": self.plan,
            "gating": self.gating,
            "blocks": None if own is None else own.index,
            "num_maps": 0 if own is None else own.maps,
        }
        if isinstance(like, nn.Conv2d):
            return ZooConv2d(like, weight, bias, **options)
        if isinstance(like, nn.Linear):
            return ZooLinear(like, weight, bias, **options)
        raise TypeError(f"layer {name!r} must be a convolution or linear layer, got {type(like)}")

    def aggregated_layers(self) -> dict[str, AggregatedLayer]:
        """Aggregated layers by their names in the network, in order."""
        layers = self.net.named_modules()
        return {name: layer for name, layer in layers if isinstance(layer, AggregatedLayer)}

    def folded_state(self, gates: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """State dict of an ordinary network, aggregated with one set of gates per layer.

        Args:
            gates: gates ``(m,)`` of each aggregated layer by its name; ``None`` takes the moving
                averages, with which lite mode evaluates. In full mode the result approximates the
                zoo.
        """
        return fold_state(self.net.state_dict(), gates)


def plain_config(
    architecture: Architecture, sources: Sequence[Source], **options: Any
) -> dict[str, Any]:
    """Convert constructor arguments to plain types, which a checkpoint can hold."""
    return {
        "architecture": architecture.label,
        "sources": [plain_source(source) for source in sources],
        **{k: list(v) if isinstance(v, (list, tuple)) else v for k, v in options.items()},
        "output": architecture.output,
        "in_chans": architecture.in_chans,
        "mean": architecture.mean and list(architecture.mean),
        "std": architecture.std and list(architecture.std),
        **({} if architecture.image_size is None else {"image_size": architecture.image_size}),
        **({} if architecture.bands is None else {"bands": list(architecture.bands)}),
    }


def plain_source(source: Source) -> dict[str, Any]:
    """Convert a source to plain types, without the preprocessing that it does not declare."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(source).items()}
    return {key: value for key, value in values.items() if key not in KEYS or value is not None}


def load_architecture(architecture: Architecture, sources: Sequence[Source]) -> list[Adapted]:
    """Read the sources' weights and fit them to an architecture.

    With the output ``stages``, sources may lack parameters that the stages do not use, such as the
    last layers of a classifier; these keep their random values. First layers are transformed to the
    architecture's images, if their normalisation and the source's are known.

    Args:
        architecture: architecture to fit the weights to.
        sources: sources to read.

    Returns:
        State dict and loading report of each source.

    Raises:
        SourceError: a source cannot be read or does not fit.
    """
    initial = architecture.plain().state_dict()
    reference = {key: initial[key] for key in architecture.used_keys(initial)}
    name = architecture.label if architecture.is_timm else None
    loaded = load_sources(sources, name, reference, architecture.plain)
    return [on_input_of(replace(each, state=initial | each.state), architecture) for each in loaded]


@torch.no_grad()
def average_networks(networks: Sequence[nn.Module], shares: Tensor) -> nn.Module:
    """Build a network with the average of several networks' parameters and new norm statistics.

    Args:
        networks: networks of one architecture.
        shares: weight of each network, ``(m,)``, summing to 1.
    """
    states = [network.state_dict() for network in networks]
    average = {
        key: sum(share * state[key] for share, state in zip(shares.tolist(), states, strict=True))
        if value.is_floating_point()
        else value
        for key, value in states[0].items()
    }
    net = copy.deepcopy(networks[0])
    net.load_state_dict(average)
    for module in net.modules():
        # Statistics of different networks have no meaningful average (as in the authors' code).
        reset = getattr(module, "reset_running_stats", None)
        if is_norm(module) and callable(reset):
            reset()
    return net
