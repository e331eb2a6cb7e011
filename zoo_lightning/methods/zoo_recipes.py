"""Recipes of Zoo-Tuning and of its ablations."""

from __future__ import annotations

from typing import Any, ClassVar

from zoo_lightning.methods.recipe import Options, Setting, Trained, plain


def zoo(options: Options, setting: Setting, **changes: Any) -> None:
    """Put a zoo of all sources in the backbone's place, with the experiment's options if any."""
    described = options["model"]["init_args"]["backbone"]
    if described["class_path"].rpartition(".")[2] != "ZooBackbone":
        plain(options, list(setting.sources.values()))
        kept = options["model"]["init_args"]["backbone"]["init_args"]
        # As experiments/methods/lite.yaml has it.
        found = {"gate_init": "greedy", "norm_weights": "gates", "align": "none"}
        if options["model"]["class_path"].rpartition(".")[2] == "PPOTask":
            found = {}  # there is nothing to rank sources by before a policy has played
        described = {"class_path": "ZooBackbone", "init_args": {**kept, **found}}
        options["model"]["init_args"]["backbone"] = described
    described["init_args"].update(changes)


class ZooRecipe(Trained):
    """A zoo of all sources.

    Attributes:
        changes: options of the backbone in place of the experiment's.
    """

    zoo = True
    changes: ClassVar[dict[str, Any]]

    def configure(self, options: Options, setting: Setting) -> None:
        """All sources in a zoo, with the recipe's options."""
        zoo(options, setting, **self.changes)


class Lite(ZooRecipe):
    """Lite Zoo-Tuning (Shu et al. 2021, section 3.4), with the experiment's other options."""

    name = "lite"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite"}


class Full(ZooRecipe):
    """Zoo-Tuning (Shu et al. 2021, sections 3.2 and 3.3), with the experiment's other options."""

    name = "full"
    changes: ClassVar[dict[str, Any]] = {"mode": "full"}


class LiteAligned(ZooRecipe):
    """Lite with the channel alignment of section 3.2 in spatial layers."""

    name = "lite-aligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "align": "spatial"}


class FullAligned(ZooRecipe):
    """Full with the channel alignment of section 3.2 in spatial layers."""

    name = "full-aligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "align": "spatial"}


class LiteUnaligned(ZooRecipe):
    """Ablation: lite without channel alignment."""

    name = "lite-unaligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "align": "none"}


class FullUnaligned(ZooRecipe):
    """Ablation: full without channel alignment."""

    name = "full-unaligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "align": "none"}


class LiteSoftmax(ZooRecipe):
    """Ablation: lite whose gates sum to one."""

    name = "lite-softmax"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "gating": "softmax"}


class FullSoftmax(ZooRecipe):
    """Ablation: full whose gates sum to one."""

    name = "full-softmax"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "gating": "softmax"}


class Constant(ZooRecipe):
    """Ablation: no gates, but learned weights of the sources in every layer."""

    name = "constant"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "gating": "constant"}


class LiteShared(ZooRecipe):
    """Ablation: lite with one gate for all layers after the first."""

    name = "lite-shared"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "gating": "shared"}


class FullShared(ZooRecipe):
    """Ablation: full with one gate for all layers after the first."""

    name = "full-shared"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "gating": "shared"}


RELEASED = {"align": "released", "gate_init": "released", "norm_weights": "uniform"}
"""As the authors' code has it: gates scattered around 0.5, norm layers averaged, alignment in the
stem and the last two stages. Not as there are its two faults: all layers are lite in lite mode, and
the gates' moving average does not start at zero."""


class LiteReleased(ZooRecipe):
    """Lite with start and alignment of the authors' code, for ResNets."""

    name = "lite-released"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", **RELEASED}


class FullReleased(ZooRecipe):
    """Full with start and alignment of the authors' code, for ResNets."""

    name = "full-released"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", **RELEASED}
