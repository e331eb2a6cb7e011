"""Activation checkpointing of a backbone's stages: memory against time.

A stage's activations are not stored but computed again in the backward pass (Chen et al., *Training
Deep Nets with Sublinear Memory Cost*, arXiv:1604.06174). The second pass adds the same gates to a
layer's sum and number once more, which leaves their average as it is; norm statistics must be kept
from following twice.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.backbone import Backbone


def checkpoint_stages(backbone: Backbone, compiled: bool) -> None:
    """Make a backbone compute each stage's activations again in the backward pass.

    Args:
        backbone: backbone whose network has ``set_grad_checkpointing``, as timm's have.
        compiled: whether the backbone will be compiled.

    Raises:
        ConfigError: the network has no such method, or it will be compiled.
    """
    if compiled:
        raise ConfigError(
            "checkpoint_activations and compile are both true: layers note their gates in passing, "
            "which a compiled stage that runs twice must not, and compilers choose by themselves "
            "what to compute again; leave one of them out"
        )
    set_checkpointing: Any = getattr(backbone.net, "set_grad_checkpointing", None)
    try:
        if set_checkpointing is None:
            raise AttributeError("no set_grad_checkpointing")
        set_checkpointing(True)
    except (AttributeError, AssertionError, TypeError) as error:  # timm asserts
        raise ConfigError(
            f"checkpoint_activations: architecture {backbone.architecture.label!r} has no stages "
            f"whose activations can be computed again ({error or 'not supported'}); leave it out, "
            "or take one of timm's architectures"
        ) from error


class NormStatisticsKept:
    """Running statistics of a backbone's batch norms that a second forward pass does not change.

    Args:
        backbone: backbone whose norm layers are to be kept from now on, until :meth:`release`.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._before: list[tuple[_BatchNorm, float | None, Tensor | None]] = []
        for norm in backbone.modules():
            if isinstance(norm, _BatchNorm):
                seen = norm.num_batches_tracked
                self._before.append((norm, norm.momentum, None if seen is None else seen.clone()))
                norm.momentum = 0.0  # what is there counts for all, a new batch for nothing

    def release(self) -> None:
        """Let the statistics follow again."""
        for norm, momentum, seen in self._before:
            norm.momentum = momentum
            if seen is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(seen)
