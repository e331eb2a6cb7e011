"""Ordinary networks: built by timm name or by any function, and looked at before they become a zoo.

Nothing here knows of sources' files or of aggregation. An architecture is a timm model name, an
import path such as ``mypackage.nets.small_net``, a name of our own, or a function, that returns an
``nn.Module``.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import timm
import torch
from torch import Tensor, nn

from zoo_lightning.errors import ArchitectureError, ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Output = Literal["pooled", "map", "stages"]

OURS = {"nature_cnn": "zoo_lightning.rl.networks.nature_cnn"}
"""Import paths of the architectures that have a name of our own."""

MODULE_FACTORY_INPUT = 64
"""Side in pixels of the image on which a network that does not say its own is looked at."""


_vouched: set[str] = set()


def vouch_for(name: str | None) -> None:
    """Let checkpoints, too, name an import path that the user has named.

    To build a network from an import path is to call code, which a file from anybody must not
    choose. What configurations, command lines and code name is vouched for by that.

    Args:
        name: the path; a timm name or ``None`` changes nothing.
    """
    if name is not None:
        _vouched.add(name)


def is_vouched_for(name: str) -> bool:
    """Whether a checkpoint may name this architecture."""
    return timm.is_model(name) or name in OURS or name in _vouched


@dataclass(frozen=True)
class Architecture:
    """A recipe for an ordinary headless network.

    Args:
        name: timm model name, one of ``OURS``, import path, or a function without required
            arguments.
        output: ``pooled`` features ``(B, F)``, the last feature ``map`` ``(B, F, H, W)``, or the
            list of ``stages`` (timm's ``features_only``).
        in_chans: channels of the input image.

    Raises:
        ArchitectureError: no such timm model or import path, or nothing that makes a network when
            called without arguments.
    """

    name: str | Callable[[], nn.Module]
    output: Output = "pooled"
    in_chans: int = 3

    def __post_init__(self) -> None:
        if self.output not in ("pooled", "map", "stages"):
            raise ConfigError(
                f"unknown output {self.output!r} of a backbone; expected pooled, map or stages"
            )
        if not self.is_timm:
            named = isinstance(self.name, str)
            _check_factory(self.label, _import_factory(self.name) if named else self.name)
        vouch_for(self.label)

    @property
    def is_timm(self) -> bool:
        """Whether the name is one of timm's."""
        return isinstance(self.name, str) and timm.is_model(self.name)

    @property
    def label(self) -> str:
        """Name to print and to save; for a function its import path."""
        if isinstance(self.name, str):
            return self.name
        return f"{self.name.__module__}.{self.name.__qualname__}"

    def plain(self, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Headless network under its ordinary names: the one that sources' weights are fitted to.

        Args:
            state: weights to start from; ``None`` leaves the random initialisation.

        Raises:
            ArchitectureError: the function makes something else than a network.
        """
        if self.is_timm:
            network = timm.create_model(self.name, num_classes=0, in_chans=self.in_chans)
        else:
            factory = _import_factory(self.name) if isinstance(self.name, str) else self.name
            network = factory()
            if not isinstance(network, nn.Module):
                raise ArchitectureError(
                    f"architecture {self.label!r} gives a {type(network).__name__}, expected an "
                    "nn.Module; name a function or a class that makes one"
                )
        if state is not None:
            network.load_state_dict(state)
        return network

    def build(self, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The network in the form that ``output`` asks for, with the weights of ``state``.

        Stages have timm's own reduced network, in which layers may have other names; timm itself
        carries the weights over.
        """
        if self.output != "stages" or not self.is_timm:
            return self.plain(state)
        # HRNet's stages are its four branches, which its own heads see; timm's default is what its
        # classifier makes of them.
        options: dict = {"feature_location": ""} if self.name.startswith("hrnet") else {}
        if state is not None:
            overlay = {"state_dict": dict(state), "num_classes": 0, "url": "", "hf_hub_id": None}
            overlay["input_size"] = (self.in_chans, 224, 224)
            options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        # timm warns of the layers that stages leave out; leaving them out is what was asked for.
        builder = logging.getLogger("timm.models._builder")
        level = builder.level
        builder.setLevel(logging.ERROR)
        try:
            return timm.create_model(
                self.name, features_only=True, in_chans=self.in_chans, **options
            )
        finally:
            builder.setLevel(level)

    def used_keys(self, keys: Iterable[str]) -> list[str]:
        """Those of the plain network's keys that :meth:`build`'s network has, in their order."""
        if self.output != "stages" or not self.is_timm:
            return list(keys)
        built = self.build().state_dict()
        return [key for key in keys if key in built or stage_key(key) in built]

    def features(self, network: nn.Module, x: Tensor) -> Tensor | list[Tensor]:
        """Run a network that :meth:`build` made: pooled features, feature map or stages."""
        if self.output == "map" and self.is_timm:
            return network.forward_features(x)
        y = network(x)
        if self.output == "pooled" and isinstance(y, Tensor) and y.dim() == 4:
            y = y.mean(dim=(2, 3))
        return y

    def example_input(self, network: nn.Module) -> Tensor:
        """One image of the size the network was designed for: ``(1, in_chans, H, W)``, noise."""
        config = getattr(network, "default_cfg", None) or getattr(network, "pretrained_cfg", None)
        size = (self.in_chans, MODULE_FACTORY_INPUT, MODULE_FACTORY_INPUT)
        if config:
            size = tuple(config["input_size"])
            size = (self.in_chans if self.is_timm else size[0], *size[1:])
        elif hasattr(network, "input_size"):
            size = tuple(network.input_size)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, *size, generator=generator)


def stage_key(key: str) -> str:
    """A plain network's key as timm's stages have it where they flatten the network."""
    return key.replace(".", "_", 1)


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
    """Refuse what cannot be called without arguments to make a network."""
    if isinstance(factory, nn.Module) or not callable(factory):
        found = type(factory).__name__
        raise ArchitectureError(
            f"architecture {label!r} is a {found} itself, expected a function or a class that "
            "makes a network when called without arguments, such as 'mypackage.my_net'"
        )
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some that are written in C do not say
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
    """What one forward pass showed of a network.

    Attributes:
        called: names of the leaf modules that ran, in order.
        before_norm: names of those whose output went straight into a norm layer.
        shapes: of the features: one shape, or one for each stage.
        reductions: pixels of the image that a cell of each feature map spans; 0 without cells.
    """

    called: list[str] = field(default_factory=list)
    before_norm: set[str] = field(default_factory=set)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    reductions: list[int] = field(default_factory=list)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer, torch's or timm's."""
    return any("Norm" in cls.__name__ for cls in type(module).__mro__)


def trace(architecture: Architecture, network: nn.Module) -> Trace:
    """Run a network once, in evaluation mode, and note which layers ran and where norms follow."""
    seen, producers, hooks = Trace(), {}, []

    def note(name: str, module: nn.Module) -> None:
        def before(_: nn.Module, inputs: tuple) -> None:
            if is_norm(module) and inputs and id(inputs[0]) in producers:
                seen.before_norm.add(producers[id(inputs[0])][0])

        def after(_: nn.Module, __: tuple, output: object) -> None:
            seen.called.append(name)
            producers[id(output)] = (name, output)  # kept alive, so that no id comes twice

        hooks.append(module.register_forward_pre_hook(before))
        hooks.append(module.register_forward_hook(after))

    for name, module in network.named_modules():
        # timm's norm layers hold an activation: they are leaves to us all the same.
        if is_norm(module) or not any(module.children()):
            note(name, module)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            image = architecture.example_input(network)
            y = architecture.features(network, image)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    seen.shapes = [tuple(t.shape[1:]) for t in (y if isinstance(y, (list, tuple)) else [y])]
    height = image.shape[-2]
    seen.reductions = [round(height / shape[1]) if len(shape) == 3 else 0 for shape in seen.shapes]
    return seen
