"""Architectures: ordinary networks, built from a timm name or a function and traced.

An architecture is a timm model name, an import path such as ``mypackage.nets.small_net``, a name of
this package (``nature_cnn``), or a function that returns an ``nn.Module``.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from zoo_lightning.errors import ArchitectureError, ConfigError, nearest
from zoo_lightning.nn.norm_search import NormSearch, is_norm
from zoo_lightning.sources.normalisation import Normalisation, statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Output = Literal["pooled", "map", "stages"]

OURS = {
    "nature_cnn": "zoo_lightning.models.nature_cnn.nature_cnn",
    "keras_mobilenetv2_035": "zoo_lightning.models.keras_mobilenetv2.keras_mobilenetv2_035",
    "keras_mobilenetv2_050": "zoo_lightning.models.keras_mobilenetv2.keras_mobilenetv2_050",
    "keras_mobilenetv2_075": "zoo_lightning.models.keras_mobilenetv2.keras_mobilenetv2_075",
    "keras_mobilenetv2_100": "zoo_lightning.models.keras_mobilenetv2.keras_mobilenetv2_100",
    "keras_mobilenetv2_140": "zoo_lightning.models.keras_mobilenetv2.keras_mobilenetv2_140",
}
"""Import paths of the architectures that have a name in this package."""

MODULE_FACTORY_INPUT = 64
"""Side in pixels of the image on which a network without a declared input size is traced."""

STAGES_OF_COLUMN = 4
"""Number of stages of a network whose feature maps all have one size, such as a ViT."""

_vouched: set[str] = set()


def vouch_for(name: str | None) -> None:
    """Allow checkpoints to name this import path, because the user has named it.

    Building a network from an import path runs code, which an untrusted file must not choose. Paths
    in configurations, command lines and code are allowed.

    Args:
        name: import path; a timm name or ``None`` changes nothing.
    """
    if name is not None:
        _vouched.add(name)


def is_vouched_for(name: str) -> bool:
    """Whether a checkpoint may name this architecture."""
    return timm.is_model(name) or name in OURS or name in _vouched


@dataclass(frozen=True)
class Architecture:
    """An ordinary network without a head: how to build it, and which features it returns.

    Args:
        name: timm model name, one of ``OURS``, import path, or a function without required
            arguments.
        output: ``pooled`` features ``(B, F)``, the last feature ``map`` ``(B, F, H, W)``, or the
            list of ``stages`` (timm's ``features_only``).
        in_chans: number of channels of the input image.
        mean: mean of each channel, or one for all, by which the zoo's images in [0, 1] are
            normalised; ``None`` if unknown, and sources are then used as they are.
        std: standard deviation of each channel, or one for all, of these images.
        image_size: side of the images in pixels, for a timm network that is made for images of one
            size, such as a ViT, to build it for others; ``None`` for its own size.
        bands: names of the channels of the zoo's images, ``red`` and others; ``None`` for red,
            green and blue, for grey, or for channels without names.

    Raises:
        ArchitectureError: there is no such timm model or import path, or it cannot be called
            without arguments.
        ConfigError: ``output`` is unknown, ``mean`` and ``std`` are no numbers for the channels, or
            the network has no ``image_size``.
    """

    name: str | Callable[[], nn.Module]
    output: Output = "pooled"
    in_chans: int = 3
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    image_size: int | None = None
    bands: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for option in ("mean", "std", "bands"):  # lists, of configurations, cannot be hashed
            if isinstance(values := getattr(self, option), list):
                object.__setattr__(self, option, tuple(values))
        _check_normalisation(self.mean, self.std, self.in_chans)
        if self.bands is not None and len(self.bands) != self.in_chans:
            raise ConfigError(
                f"bands must name all {self.in_chans} channels of the images (in_chans), got "
                f"{', '.join(self.bands)}"
            )
        if self.output not in ("pooled", "map", "stages"):
            raise ConfigError(f"output must be one of pooled, map, stages, got {self.output!r}")
        if self.image_size is not None:
            self._check_image_size(self.image_size)
        if not self.is_timm:
            _check_factory(self.label, self._factory())
        vouch_for(self.label)

    def _check_image_size(self, size: int) -> None:
        """Check that the network can be built for the image size, without memory for weights."""
        if not self.is_timm:
            raise ConfigError(
                f"image_size is for timm's networks, and {self.label} is none; leave it out, and "
                "let the function build the network for images of your size"
            )
        try:
            with torch.device("meta"):
                network: Any = timm.create_model(self.label, num_classes=0, **self._options)
                image = torch.empty(1, self.in_chans, size, size)
                network.eval().forward_features(image)
        except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
            said = str(error).strip().partition("\n")[0]
            takes = "" if "img_size" in said else f" ({said})"
            raise ConfigError(
                f"image_size {size} does not suit {self.label}{takes}: leave it out for "
                "a network that takes images of any size, such as a convolutional one; give a "
                "transformer a multiple of its patches, and of its windows if it has some"
            ) from error

    @property
    def _options(self) -> dict[str, Any]:
        """Arguments of timm's model function, besides ``num_classes``."""
        size = {} if self.image_size is None else {"img_size": self.image_size}
        return {"in_chans": self.in_chans, **size}

    @property
    def normalisation(self) -> Normalisation | None:
        """Normalisation of the zoo's images; ``None`` if unknown."""
        if self.mean is None or self.std is None:
            return None
        return Normalisation(tuple(self.mean), tuple(self.std))

    def with_images_of(self, data: object) -> Architecture:
        """Copy with the normalisation of a data module's images; itself if the module has none.

        Args:
            data: data module with ``mean`` and ``std``, as those of this package.
        """
        mean, std = (statistics(getattr(data, name, None)) for name in ("mean", "std"))
        fitting = all(values and len(values) in (1, self.in_chans) for values in (mean, std))
        return replace(self, mean=mean, std=std) if fitting else self

    @property
    def is_timm(self) -> bool:
        """Whether the network is a timm model."""
        return isinstance(self.name, str) and timm.is_model(self.name)

    def _factory(self) -> Callable[[], nn.Module]:
        """Function that builds a network that is not a timm model."""
        return _import_factory(self.name) if isinstance(self.name, str) else self.name

    @property
    def label(self) -> str:
        """Name for messages and files; the import path of a function."""
        if isinstance(self.name, str):
            return self.name
        return f"{self.name.__module__}.{self.name.__qualname__}"

    def plain(self, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Build the network without a head; sources are fitted to its state-dict keys.

        Args:
            state: weights to load; ``None`` leaves the random initialisation.

        Raises:
            ArchitectureError: the function does not return a network.
        """
        if isinstance(self.name, str) and self.is_timm:
            made: Any = timm.create_model(self.name, num_classes=0, **self._options)
            if self.output == "map":  # found here, and not in a forward pass that is compiled
                made.gives_maps = _gives_maps(self.name)
            network = made
        else:
            network = self._factory()()
            if not isinstance(network, nn.Module):
                raise ArchitectureError(
                    f"architecture {self.label!r} must return an nn.Module, got a "
                    f"{type(network).__name__}; name a function or a class that builds a network"
                )
        if state is not None:
            network.load_state_dict(state)
        return network

    def build(self, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Build the network that returns the features of ``output``, with the weights of ``state``.

        For ``stages`` this is timm's ``features_only`` network, in which layers may have other
        names; timm transfers the weights. A network whose maps all have one size, such as a ViT,
        has four stages, the normalised outputs of blocks at equal distances, the last included.

        Args:
            state: state dict of the network of :meth:`plain`; ``None`` leaves the random
                initialisation.

        Raises:
            ArchitectureError: the function does not return a network.
        """
        if self.output != "stages" or not isinstance(self.name, str) or not self.is_timm:
            return self.plain(state)
        # HRNet's stages are its four branches, which its own heads use; timm's default are the
        # features that its classifier computes from them.
        options: dict = {"feature_location": ""} if self.name.startswith("hrnet") else {}
        options |= _stage_options(self.name) | self._options
        if state is not None:
            overlay = {"state_dict": dict(state), "num_classes": 0, "url": "", "hf_hub_id": None}
            overlay["input_size"] = (self.in_chans, *_sides(self.name))
            options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        # timm warns of the layers that stages leave out, as intended here.
        builder = logging.getLogger("timm.models._builder")
        level = builder.level
        builder.setLevel(logging.ERROR)
        try:
            return timm.create_model(self.name, features_only=True, **options)
        finally:
            builder.setLevel(level)

    def used_keys(self, keys: Iterable[str]) -> list[str]:
        """State-dict keys of the plain network that the network of :meth:`build` has as well."""
        if self.output != "stages" or not self.is_timm:
            return list(keys)
        built = self.build().state_dict()
        return [key for key in keys if {key, stage_key(key), f"{GETTER}{key}"} & built.keys()]

    def features(self, network: nn.Module, x: Tensor) -> Tensor | list[Tensor]:
        """Run a network of :meth:`build` and return pooled features, a feature map or stages."""
        if self.output == "map" and self.is_timm:
            model: Any = network  # with methods of timm's models
            if model.gives_maps:
                return model.forward_features(x)
            return model.forward_intermediates(
                x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
            )[0]
        y = network(x)
        if self.output == "pooled" and isinstance(y, Tensor) and y.dim() == 4:
            y = y.mean(dim=(2, 3))
        return y

    def example_input(self, network: nn.Module) -> Tensor:
        """Noise ``(1, C, H, W)`` of the input size that the network declares, else 64×64 pixels.

        ``C`` is ``in_chans``, unless a network that is not timm's declares another number.
        """
        config = getattr(network, "default_cfg", None) or getattr(network, "pretrained_cfg", None)
        size: Sequence[int] = (self.in_chans, MODULE_FACTORY_INPUT, MODULE_FACTORY_INPUT)
        if config:
            channels, *sides = config["input_size"]
            size = (self.in_chans if self.is_timm else channels, *sides)
        else:
            size = getattr(network, "input_size", size)
        if self.image_size is not None:
            size = (self.in_chans, self.image_size, self.image_size)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, *size, generator=generator)


GETTER = "model."
"""Prefix of the state-dict keys of timm's ``features_only`` network that holds a whole model."""


def _sides(name: str) -> tuple[int, int]:
    """Height and width in pixels of the images that a timm model is made for."""
    config = timm.get_pretrained_cfg(name)
    size = None if config is None else config.input_size
    return (224, 224) if size is None else (size[1], size[2])


@cache
def _stage_options(name: str) -> dict[str, Any]:
    """Options of timm's ``features_only`` with which stages are maps ``(B, C, H, W)``."""
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
    info = [dict(each) for each in model.feature_info]
    if len(info) > 1 and len({each.get("reduction") for each in info}) == 1:
        count = min(STAGES_OF_COLUMN, len(info))
        last = [len(info) * (stage + 1) // count - 1 for stage in range(count)]
        return {"out_indices": last, "feature_cls": partial(FeatureGetterNet, norm=True)}
    channels_last = getattr(model, "output_fmt", "NCHW") != "NCHW"
    return {"feature_cls": "getter"} if channels_last else {}


@cache
def _gives_maps(name: str) -> bool:
    """Whether ``forward_features`` of a timm model is taken as it is, as a map ``(B, C, H, W)``.

    Others return tokens ``(B, N, C)`` or maps ``(B, H, W, C)``. Some return several tensors, which
    are taken as they are, too.
    """
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
        y = model.eval().forward_features(torch.empty(1, *model.pretrained_cfg["input_size"]))
    if not isinstance(y, Tensor):
        return True
    return y.dim() == 4 and getattr(model, "output_fmt", "NCHW") == "NCHW"


def stage_key(key: str) -> str:
    """Convert a plain network's state-dict key to that of timm's flattened ``features_only``."""
    return key.replace(".", "_", 1)


def _check_normalisation(mean: object, std: object, in_chans: int) -> None:
    """Check the mean and deviation of the zoo's images.

    Raises:
        ConfigError: one is given without the other, or they are no numbers for the channels.
    """
    if mean is None and std is None:
        return
    for option, given in (("mean", mean), ("std", std)):
        values = statistics(given)
        if not values or (option == "std" and min(values) <= 0):
            wanted = "numbers above 0" if option == "std" else "numbers"
            raise ConfigError(
                f"{option} must be {wanted}, one for each channel or one for all, and mean and std "
                f"are given together; got {given!r}"
            )
        if len(values) not in (1, in_chans):
            raise ConfigError(
                f"in_chans must be the number of channels of the images, {len(values)} as {option} "
                f"{list(values)} has it, got {in_chans}; --data.bands grey reads grey images, "
                "--data.bands all those of other channels, and sets in_chans"
            )


def _import_factory(path: str) -> Callable[[], nn.Module]:
    module, _, name = OURS.get(path, path).rpartition(".")
    try:
        factory = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise ArchitectureError(
            f"architecture {path!r} is neither a timm model nor can it be imported ({error}); "
            "expected a timm name such as 'resnet18' or an import path such as 'mypackage.my_net'"
        ) from error
    if factory is None:
        raise ArchitectureError(
            f"unknown architecture {path!r}; expected a timm model name (timm.list_models() "
            f"lists them), {', '.join(OURS)}, or an import path."
            f"{nearest(path, [*OURS, *timm.list_models()])}"
        )
    return factory


def _check_factory(label: str, factory: object) -> None:
    """Check that a function or class can be called without arguments."""
    if isinstance(factory, nn.Module) or not callable(factory):
        found = type(factory).__name__
        raise ArchitectureError(
            f"architecture {label!r} must be a function or a class that builds a network when "
            f"called without arguments, such as 'mypackage.my_net', got a {found}"
        )
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some that are written in C have no signature
        return
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in free]
    if required:
        raise ArchitectureError(
            f"architecture {label!r} cannot be called without arguments: it needs "
            f"{', '.join(required)}; name a function that calls it with them, such as "
            "'mypackage.my_net'"
        )


@dataclass
class Trace:
    """Facts about a network from one forward pass.

    Attributes:
        called: names of the leaf modules that ran, in order.
        before_norm: names of convolutions and linear layers whose output a norm layer normalises,
            see :mod:`zoo_lightning.nn.norm_search`.
        shapes: shapes of the features without the batch: one, or one for each stage.
        reductions: pixels of the image that a cell of each feature map spans; 0 for pooled
            features.
        windowed: names of the leaf modules whose input has several rows for each image.
    """

    called: list[str] = field(default_factory=list)
    before_norm: set[str] = field(default_factory=set)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    reductions: list[int] = field(default_factory=list)
    windowed: set[str] = field(default_factory=set)


def trace(architecture: Architecture, network: nn.Module) -> Trace:
    """Run a network once in evaluation mode, and record its layers, norms and feature shapes.

    Args:
        architecture: architecture of the network.
        network: network that the architecture built; it is left unchanged.
    """
    seen, search, hooks, rows = Trace(), NormSearch(), [], dict[str, int]()

    def note(name: str, module: nn.Module) -> None:
        def before(_: nn.Module, inputs: tuple) -> None:
            if is_norm(module) and inputs:
                search.meet(module, inputs[0])
            if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim():
                rows[name] = len(inputs[0])

        def after(_: nn.Module, __: tuple, output: object) -> None:
            seen.called.append(name)
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                search.begin(name, output)

        hooks.append(module.register_forward_pre_hook(before))
        hooks.append(module.register_forward_hook(after))

    for name, module in network.named_modules():
        # timm's norm layers hold an activation, but count as leaves.
        if is_norm(module) or not any(module.children()):
            note(name, module)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            image = architecture.example_input(network)
            with search:
                y = architecture.features(network, image)
            once = {name: count for name, count in rows.items() if count > 1}
            if once:  # windows of the image, or something else that does not grow with the batch
                called = list(seen.called)
                architecture.features(network, image.repeat(2, 1, 1, 1))
                seen.called = called
                seen.windowed = {name for name, count in once.items() if rows[name] == 2 * count}
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    seen.before_norm = search.before_norm
    seen.shapes = [tuple(t.shape[1:]) for t in (y if isinstance(y, (list, tuple)) else [y])]
    height = image.shape[-2]
    seen.reductions = [round(height / shape[1]) if len(shape) == 3 else 0 for shape in seen.shapes]
    return seen
