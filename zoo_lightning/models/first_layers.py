"""First layers of sources on the zoo's one input, which they see as they saw their own.

Sources were trained on differently normalised images: RGB or BGR, in 0..1 or 0..255, with another
mean and deviation. The zoo has one input for all. A pixel of a source's own input is an affine map
of one of the zoo's, so a convolution takes it into its kernel, and the constant that remains into
its bias, the running mean of the batch norm behind it, or the position embedding that is added.
The network then computes on the zoo's input what it computed on its own; only where the kernel
reaches into zero padding is the result another, see ``docs/preprocessing.md``.

Which layers see the image, and where the constant can go, is found by running the architecture with
random weights, and verified: a network in which it does not hold is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo_lightning.errors import SourceError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.nn.norm_search import is_norm
from zoo_lightning.nn.random_numbers import private_random_numbers
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.stems import (
    COLOURS,
    GREY,
    STEM_FOLDS,
    ChannelsError,
    InputMap,
    band_map,
    input_map,
    names_of_channels,
    on_zoo_input,
)

SIDE = 96
"""Side in pixels of the image that networks of any input size are verified with."""

TOLERANCE = 1e-6
"""Largest deviation of the verified outputs, relative to the effect of leaving the change out."""


@dataclass(frozen=True)
class Constant:
    """Tensor that takes the constant of a transformed first layer.

    Attributes:
        key: state-dict key of the tensor.
        kind: ``bias`` of the layer, ``running_mean`` of the batch norm behind it, or ``positions``,
            an embedding added to its outputs.
        first: for ``positions``, index of the first image patch; those before are other tokens.
    """

    key: str
    kind: Literal["bias", "running_mean", "positions"]
    first: int = 0

    def add(self, state: dict[str, Tensor], constant: Tensor) -> None:
        """Replace the tensor in a state dict by one that takes the constant.

        Args:
            state: state dict of the network; changed in place.
            constant: constant ``(C_out,)`` to add to the layer's output.
        """
        old = state[self.key]
        new = old.double().clone()
        if self.kind == "running_mean":  # the norm subtracts it
            new -= constant
        elif self.kind == "bias":
            new += constant
        else:
            new[:, self.first :] += constant
        state[self.key] = new.to(old.dtype)


@dataclass(frozen=True)
class FirstLayer:
    """Convolution that sees the image.

    Attributes:
        key: state-dict key of its kernel.
        constant: where a constant can go; ``None`` if nowhere.
    """

    key: str
    constant: Constant | None


@dataclass(frozen=True)
class FirstLayers:
    """Convolutions of an architecture that see the image.

    Attributes:
        layers: the convolutions; empty if they cannot be transformed.
        problem: reason why they cannot; else empty.
    """

    layers: tuple[FirstLayer, ...] = ()
    problem: str = ""


def on_input_of(source: Adapted, architecture: Architecture) -> Adapted:
    """Transform a source's first layer to the zoo's images.

    Args:
        source: source with the architecture's state-dict keys.
        architecture: architecture with the normalisation of the zoo's images. If that is unknown,
            or the source's is, the source is returned unchanged.

    Returns:
        The source on the zoo's images; if its first layer cannot be transformed, the source as it
        was with ``problem``.

    Raises:
        SourceError: the source declares its preprocessing, and its first layer cannot be
            transformed, or the normalisation of the zoo's images is unknown.
    """
    own, given = source.own, architecture.normalisation
    declares = source.source.normalisation is not None
    name = source.source.name
    if architecture.bands is not None or (own is not None and own.bands is not None):
        return _on_bands_of(source, architecture)
    if architecture.in_chans not in (1, 3, 4):  # without names, all of one kind to the source
        return source if source.input_kernel is None else _by_rule(source)
    if own is None:
        return source
    if given is None:
        if declares:
            raise SourceError(
                f"Source {name!r} declares its preprocessing ({own}), but the normalisation of the "
                "zoo's images is unknown: give the backbone mean and std, or fit a data module "
                "with mean and std."
            )
        return source
    if own.is_like(given) and source.input_kernel is None:
        return replace(source, expected=given)
    try:
        state = _transformed(source, architecture)
    except ChannelsError as error:
        problem = f"{error} (its own input: {own})"
        if declares:
            raise SourceError(
                f"The preprocessing of source {name!r} cannot be put into its first layer: "
                f"{problem}. Leave out the declaration, and normalise the data as the source's "
                "images were."
            ) from error
        return replace(source, problem=problem)
    report = replace(source.report, adapted_input=False, transformed=str(own))
    return replace(source, state=state, expected=given, report=report)


def _on_bands_of(source: Adapted, architecture: Architecture) -> Adapted:
    """Transform a source's first layer to images of named bands, if it knows one of them.

    Raises:
        SourceError: the source declares its bands, and its first layer cannot be transformed.
    """
    own, given, name = source.own, architecture.normalisation, source.source.name
    layers = first_layers(architecture.name, architecture.in_chans)
    key = layers.layers[0].key if layers.layers else ""
    kernel = source.state.get(key) if source.input_kernel is None else source.input_kernel
    taken: tuple[str, ...] = ()
    if kernel is not None and own is not None and own.bands is not None:
        taken = own.bands
    elif kernel is not None:
        fold = source.state[key].shape[1] // architecture.in_chans
        taken = names_of_channels(own, kernel.shape[1] // fold)
    bands = architecture.bands or (COLOURS if architecture.in_chans == 3 else ())
    # Names of colours in one form; those of other bands as they are.
    bands = tuple(each.lower() if each.lower() in COLOURS else each for each in bands)
    shared = [each for each in dict.fromkeys(taken) if each in bands]
    if taken and taken[0] == GREY and set(COLOURS) <= set(bands):
        shared = [GREY]
    if layers.problem or not shared:
        if source.source.bands is not None:
            reason = layers.problem or f"the data have none of them but {', '.join(bands)}"
            raise SourceError(
                f"The bands of source {name!r} ({', '.join(source.source.bands)}) cannot be taken: "
                f"{reason}. Give data.band_names and the source's bands the same names, or leave "
                "the declaration out."
            )
        return _by_rule(source)
    change = band_map(own, given, taken, bands)
    try:
        state = _changed(source, architecture, change, len(taken))
    except ChannelsError as error:
        return replace(source, problem=f"{error} (its own input: {own})")
    remark = f"first layer takes {', '.join(shared)}"
    if others := [each for each in bands if each not in shared and shared != [GREY]]:
        remark += f", and {len(others)} other band{'s' * (len(others) > 1)} by their mean"
    report = replace(source.report, adapted_input=False, remarks=(*source.report.remarks, remark))
    return replace(source, state=state, own=own and given, expected=given, report=report)


def _by_rule(source: Adapted) -> Adapted:
    """Source with the kernel of timm's rule, for images that are normalised band by band."""
    return replace(source, expected=None)


def _transformed(source: Adapted, architecture: Architecture) -> dict[str, Tensor]:
    """Compute the state dict of a source on the zoo's images.

    Raises:
        ChannelsError: the first layer cannot be transformed.
    """
    own, given = source.own, architecture.normalisation
    assert own is not None
    assert given is not None
    return _changed(source, architecture, None, 0)


def _changed(
    source: Adapted, architecture: Architecture, change: InputMap | None, taken: int
) -> dict[str, Tensor]:
    """Compute the state dict of a source on the zoo's images.

    Args:
        source: source to transform.
        architecture: architecture with the normalisation of the zoo's images.
        change: map from these images to the source's; ``None`` for that of colours.
        taken: number of the source's channels, with ``change``.

    Raises:
        ChannelsError: the first layer cannot be transformed.
    """
    own, given = source.own, architecture.normalisation
    found = first_layers(architecture.name, architecture.in_chans)
    if found.problem:
        raise ChannelsError(found.problem)
    state = dict(source.state)
    for layer in found.layers:
        wanted = state[layer.key]
        kernel = wanted if source.input_kernel is None else source.input_kernel
        fold = wanted.shape[1] // architecture.in_chans
        if change is None:
            assert own is not None
            assert given is not None
            seen = input_map(own, given, kernel.shape[1] // fold, architecture.in_chans)
        elif kernel.shape[1] != fold * taken:
            raise ChannelsError(f"its kernel {layer.key} has {kernel.shape[1]} input channels")
        else:
            seen = change
        changed, constant = on_zoo_input(kernel, seen)
        if changed.shape != wanted.shape:
            raise ChannelsError(f"its kernel {layer.key} has {kernel.shape[1]} input channels")
        state[layer.key] = changed.to(wanted.dtype)
        _put(layer, constant, state, source.report.missing)
    return state


def _put(layer: FirstLayer, constant: Tensor, state: dict[str, Tensor], missing: list[str]) -> None:
    """Add the constant of a layer to the tensor that takes it.

    Raises:
        ChannelsError: there is none.
    """
    if not constant.any():
        return
    if layer.constant is None:
        raise ChannelsError(
            f"the mean differs, and {layer.key.removesuffix('.weight')} has no bias, nor does a "
            "batch norm or a position embedding follow that could take the difference"
        )
    if layer.constant.key not in missing:  # statistics that the source lacks are estimated again
        layer.constant.add(state, constant)


@lru_cache(maxsize=32)
def first_layers(name: object, in_chans: int) -> FirstLayers:
    """Find and verify an architecture's convolutions that see the image.

    The network with random weights is run in double precision: with the image, with another one for
    which the kernels are transformed, and with a constant added to the layers' outputs. The random
    number generator is left as it was, and the result is kept for the process.

    Args:
        name: timm name, import path or function that builds the network.
        in_chans: number of channels of the image.
    """
    architecture = Architecture(name, "pooled", in_chans)  # type: ignore[arg-type]  # hashable
    with private_random_numbers(seed=0, cpu_only=True):
        try:
            return _Study(architecture).result()
        except RuntimeError as error:  # a network of the user's that takes no double precision
            reason = str(error).strip().partition("\n")[0]
            return FirstLayers(problem=f"the network cannot be run to verify it ({reason})")


@dataclass
class _Seen:
    """What was seen of a convolution in one run: its output and the batch norms that took it."""

    output: Tensor
    norms: list[str] = field(default_factory=list)


class _Study:
    """Runs of an architecture with random weights that find its first layers and verify them.

    Args:
        architecture: architecture to study.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.network = architecture.plain().double().eval()
        for module in self.network.modules():
            # Some start as nearly 0, and features would hardly depend on the image.
            if is_norm(module) and isinstance(weight := getattr(module, "weight", None), Tensor):
                nn.init.ones_(weight)
        self.modules = dict(self.network.named_modules())
        self.state = {key: value.clone() for key, value in self.network.state_dict().items()}
        with torch.no_grad():
            self.image = self._image()

    def result(self) -> FirstLayers:
        """Find the layers, and verify that transforming them is exact."""
        if self.image.shape[1] != self.architecture.in_chans:
            return FirstLayers(problem=f"its images have {self.image.shape[1]} channels")
        with torch.no_grad():
            seen, before = self._look()
            layers = tuple(self._layer(name, each) for name, each in seen.items())
            if not layers or not all(self._takes(layer) for layer in layers):
                return FirstLayers(problem="no ordinary convolution sees the image itself")
            change, other = self._other_image()
            state = dict(self.state)
            for layer in layers:
                state[layer.key] = on_zoo_input(state[layer.key], change)[0]
            without = self._features(self.state, other)
            if not _agree(self._features(state, other), before, without):
                return FirstLayers(
                    problem="the image is used otherwise than by convolutions with these kernels"
                )
            return FirstLayers(self._verified(layers, before))

    def _image(self) -> Tensor:
        """Return an image that the network takes; a small one if it takes images of any size."""
        image = self.architecture.example_input(self.network).double()
        config = getattr(self.network, "pretrained_cfg", None) or {"fixed_input_size": True}
        if config.get("fixed_input_size") or image.shape[-1] <= SIDE:
            return image
        small = image[..., :SIDE, :SIDE].contiguous()
        try:
            self._features(self.state, small)
        except (RuntimeError, AssertionError, ValueError):  # smaller than the network takes
            return image
        return small

    def _look(self) -> tuple[dict[str, _Seen], list[Tensor]]:
        """Run the network on the image; return the convolutions that see it, and the features."""
        seen: dict[str, _Seen] = {}
        first: dict[str, _Seen] = {}
        hooks = []

        def watch(name: str, module: nn.Module) -> None:
            def convolution(_: nn.Module, inputs: tuple, output: Tensor) -> None:
                if not first:
                    first[name] = _Seen(output)
                if inputs[0].shape == self.image.shape and torch.equal(inputs[0], self.image):
                    seen[name] = _Seen(output)

            def norm(_: nn.Module, inputs: tuple) -> None:
                for each in (*seen.values(), *(() if seen else first.values())):
                    if inputs[0] is each.output:
                        each.norms.append(name)

            if isinstance(module, nn.Conv2d):
                hooks.append(module.register_forward_hook(convolution))
            elif isinstance(module, _BatchNorm):
                hooks.append(module.register_forward_pre_hook(norm))

        for name, module in self.modules.items():
            watch(name, module)
        try:
            features = self._features(self.state, self.image)
        finally:
            for hook in hooks:
                hook.remove()
        # The first one may see the image with its pixels folded into more channels.
        return seen or first, features

    def _layer(self, name: str, seen: _Seen) -> FirstLayer:
        """Describe a convolution, with the tensor that could take a constant."""
        key, constant = f"{name}.weight", None
        channels, positions = seen.output.shape[1], seen.output[0, 0].numel()
        statistics = [f"{norm}.running_mean" for norm in seen.norms]
        embeddings = [
            key
            for key, value in self.state.items()
            if key.rpartition(".")[2] == "pos_embed"
            and value.dim() == 3
            and value.shape[1] >= positions
            and value.shape[2] == channels
        ]
        if f"{name}.bias" in self.state:
            constant = Constant(f"{name}.bias", "bias")
        elif len(statistics) == 1 and statistics[0] in self.state:
            constant = Constant(statistics[0], "running_mean")
        elif len(embeddings) == 1:
            first = self.state[embeddings[0]].shape[1] - positions
            constant = Constant(embeddings[0], "positions", first)
        return FirstLayer(key, constant)

    def _takes(self, layer: FirstLayer) -> bool:
        """Whether a layer's kernel has a shape and grouping that can be transformed."""
        kernel, module = self.state.get(layer.key), self.modules[layer.key.removesuffix(".weight")]
        fold, odd = divmod(module.in_channels, self.architecture.in_chans)
        return kernel is not None and module.groups == 1 and not odd and fold in STEM_FOLDS

    def _other_image(self) -> tuple[InputMap, Tensor]:
        """Return a map of channels without offset, and the image of which it makes the first."""
        count = self.architecture.in_chans
        matrix = torch.randn(count, count, dtype=torch.float64) + 3 * torch.eye(count)
        other = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(matrix), self.image)
        return InputMap(matrix, torch.zeros(count, dtype=torch.float64)), other

    def _verified(
        self, layers: tuple[FirstLayer, ...], before: list[Tensor]
    ) -> tuple[FirstLayer, ...]:
        """Remove the tensors that cannot take a constant after all."""
        if all(each.constant is not None and each.constant.kind == "bias" for each in layers):
            return layers
        state, added = dict(self.state), {}
        for layer in layers:
            if layer.constant is None:
                return layers
            constant = torch.randn(len(state[layer.key]), dtype=torch.float64)
            layer.constant.add(state, constant)
            added[layer.key.removesuffix(".weight")] = constant
        with self._shifted({name: -constant for name, constant in added.items()}):
            after = self._features(state, self.image)
        if _agree(after, before, self._features(state, self.image)):
            return layers
        return tuple(replace(layer, constant=None) for layer in layers)

    @contextmanager
    def _shifted(self, constants: Mapping[str, Tensor]) -> Iterator[None]:
        """Add constants to the outputs of layers inside the block."""

        def add(constant: Tensor) -> object:
            return lambda module, inputs, output: output + constant[:, None, None]

        hooks = [
            self.modules[name].register_forward_hook(add(constant))
            for name, constant in constants.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _features(self, state: Mapping[str, Tensor], image: Tensor) -> list[Tensor]:
        """Run the network with other weights."""
        self.network.load_state_dict(state)
        features = self.architecture.features(self.network, image)
        return features if isinstance(features, list) else [features]


def _agree(after: list[Tensor], before: list[Tensor], without: list[Tensor]) -> bool:
    """Whether features agree, compared with those without the change that should keep them."""
    error, effect = (
        max(float((a - b).abs().max()) for a, b in zip(some, before, strict=True))
        for some in (after, without)
    )
    return effect > 0 and error <= TOLERANCE * effect
