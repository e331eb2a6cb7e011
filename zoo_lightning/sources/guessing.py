"""Infer the timm architecture of a checkpoint from the names and shapes of its tensors.

Candidates come from the family that the names indicate and are built without memory for their
weights, the most common first, so that this takes seconds.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import timm
import torch
from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.sources.adapting import STATISTICS, adapt
from zoo_lightning.sources.key_matching import score_prefixes, unflatten_stages
from zoo_lightning.sources.layouts.translating import translate, translations
from zoo_lightning.sources.positions import fit_positions
from zoo_lightning.sources.spec import Source
from zoo_lightning.sources.stems import input_kernel

RESNETS = (
    "resnet50 resnet18 resnet34 resnet101 resnet152 test_resnet wide_resnet50_2 wide_resnet101_2 "
    "resnext50_32x4d resnext101_32x8d resnext101_64x4d resnext101_32x4d resnext101_32x16d "
    "resnet10t resnet14t resnet26 resnet[125]*[cdst] resnet200 resnext50d_32x4d"
)

FAMILIES = {
    r"stage2\.0\.branches\.": "hrnet_*",
    r"layer1\.0\.se\.": "seresnet* seresnext* resnetrs* skresnet*",
    r"layer1\.0\.conv1\.weight$": RESNETS,
    r"(^|\.)s1\.b1\.conv1\.": "regnety_* regnetx_* regnetz_* regnetv_*",
    r"conv_stem\.weight$": "efficientnet_b? tf_efficientnet_b? mobilenetv3_* tf_mobilenetv3_* "
    "efficientnet_lite? tf_efficientnet_lite? efficientnetv2_* tf_efficientnetv2_* mobilenetv2_* "
    "test_efficientnet efficientnet_e? tf_efficientnet_e? mnasnet_* lcnet_*",
    r"stages[._]0\.blocks\.0\.conv_dw\.weight$": "convnext_* convnextv2_* test_convnext*",
    r"features\.denseblock1\.": "densenet*",
    r"(^|\.)features\.0\.weight$": "vgg*",
    r"layers\.0\.blocks\.0\.attn\.cpb_mlp\.0\.weight$": "swinv2_tiny_* swinv2_small_* "
    "swinv2_base_window* swinv2_large_*",
    r"layers\.0\.blocks\.0\.attn\.qkv\.weight$": "swin_tiny_* swin_small_* swin_base_* "
    "swin_large_* swin_s3_*",
    r"(^|\.)norm_pre\.weight$": "vit_base_patch32_clip_* vit_base_patch16_clip_* "
    "vit_large_patch14_clip_* vit_huge_patch14_clip_* vit_*_clip_*",
    r"blocks\.0\.attn\.q_norm\.weight$": "vit_*_dinov3* vit_*_qknorm*",
    r"(^|\.)reg_token$": "vit_*_reg4_dinov2 vit_*_reg?_*",
    r"blocks\.0\.ls1\.gamma$": "vit_*_dinov2 deit3_*",
    r"(^|\.)dist_token$": "deit_*_distilled_*",
    r"blocks\.0\.attn\.qkv\.weight$": "vit_tiny_patch16_224 vit_small_patch16_224 "
    "vit_base_patch16_224 vit_base_patch32_224 vit_large_patch16_224 vit_small_patch32_224 "
    "vit_large_patch32_224 vit_small_patch8_224 vit_base_patch8_224 vit_large_patch14_224 "
    "vit_huge_patch14_224 vit_*_patch??_384 test_vit vit_*_gap_* vit_*_siglip_*",
    r"stages\.0\.0\.conv1_1x1\.conv\.weight$": "resnet50_clip resnet101_clip resnet50x*_clip",
    r"(^|\.)level3\.tree1\.": "dla*",
}
"""Patterns of timm names of a family, the most common first, by a pattern of tensor names."""

SEPARATE = ("_gn", "_evos", "_pruned")
"""Suffixes of variants that are not tried: their tensors have other names, or they are rare."""


@dataclass(frozen=True)
class ArchitectureFit:
    """Agreement of a checkpoint's tensors with an architecture's.

    Attributes:
        architecture: timm name or import path of the architecture.
        fits: Whether the checkpoint can be a source of that architecture.
        prefix: Common prefix of the keys in the file.
        matched: Number of tensors that agree in name and shape.
        total: Number of tensors of the architecture.
        missing: Keys of the architecture that the file lacks, norm statistics excluded.
        other_shape: Keys of the architecture whose tensors have another shape in the file.
        left_over: Keys of the file that the architecture does not have.
        remark: Summary of the match, or the reason why it does not fit.
        alike: Other architectures with the same names and shapes of tensors.
    """

    architecture: str
    fits: bool
    prefix: str
    matched: int
    total: int
    missing: list[str]
    other_shape: list[str]
    left_over: list[str]
    remark: str
    alike: list[str] = field(default_factory=list)


def skeleton(architecture: str) -> dict[str, Tensor]:
    """State dict of a headless plain network; timm's networks are built on the meta device."""
    recipe = Architecture(architecture)
    return _timm_skeleton(architecture) if recipe.is_timm else recipe.plain().state_dict()


@lru_cache(maxsize=512)
def _timm_skeleton(architecture: str) -> dict[str, Tensor]:
    """State dict of timm's network without memory for weights; not to be changed."""
    with torch.device("meta"):
        return Architecture(architecture).plain().state_dict()


def fit_of(state: Mapping[str, Tensor], architecture: str, source: Source) -> ArchitectureFit:
    """Compare a checkpoint with one architecture.

    Args:
        state: Tensors of the checkpoint, an aggregated run already folded.
        architecture: timm name or import path.
        source: Source with its name for messages, ``prefix`` and ``match``.

    Raises:
        ArchitectureError: The architecture is unknown.
    """
    reference = skeleton(architecture)
    try:
        report = adapt(state, reference, source, architecture).report
    except SourceError as error:
        translated = translate(state, reference)
        return replace(_compare(translated.state, reference, architecture), remark=str(error))
    missing = [key for key in report.missing if key.rpartition(".")[2] not in STATISTICS]
    return ArchitectureFit(
        architecture,
        fits=True,
        prefix=report.prefix,
        matched=report.matched,
        total=report.total,
        missing=missing,
        other_shape=[],
        left_over=report.unused,
        remark=report.summary(),
    )


def _compare(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor], architecture: str
) -> ArchitectureFit:
    """Compare names and shapes alone, for what does not fit or has yet to be looked at closely."""
    scores = score_prefixes(state, reference)
    prefix = max(scores, key=lambda each: scores[each], default="")
    found = {key for key in reference if prefix + key in state}
    shaped = {key for key in found if state[prefix + key].shape == reference[key].shape}
    used = {prefix + key for key in found}
    return ArchitectureFit(
        architecture,
        fits=False,
        prefix=prefix,
        matched=len(shaped),
        total=len(reference),
        missing=[
            key
            for key in reference
            if key not in found and key.rpartition(".")[2] not in STATISTICS
        ],
        other_shape=[key for key in reference if key in found - shaped],
        left_over=[key for key in state if key not in used],
        remark="",
    )


def guess(state: Mapping[str, Tensor], source: Source) -> ArchitectureFit | None:
    """Find the timm architecture of a checkpoint.

    Args:
        state: Tensors of the checkpoint, an aggregated run already folded.
        source: Source with its name for messages, ``prefix`` and ``match``.

    Returns:
        The first architecture that fits, the most common tried first, with those that are alike;
        else the one with the largest fraction of matching tensors; ``None`` if the names belong to
        no known family.
    """
    # Renamed once, because joining large tensors for every candidate would take long.
    layout, state = next(translations(state), (None, dict(state)))
    found = _guess(state, source)
    if found is not None and layout is not None and found.fits:
        remark = f"{found.remark}, translated from {layout.name}"
        found = replace(found, remark=f"{remark}, {layout.remark}" if layout.remark else remark)
    return found


def _guess(state: dict[str, Tensor], source: Source) -> ArchitectureFit | None:
    """Find the architecture of a checkpoint with timm's names, as :func:`guess`."""
    best: ArchitectureFit | None = None
    resized: ArchitectureFit | None = None
    names = list(candidates(state))
    for name in names:
        # Positions of another size fit; then only the same network for other sizes may fit better.
        if resized is not None and not name.startswith(resized.architecture.rpartition("_")[0]):
            continue
        reference = skeleton(name)
        plain = unflatten_stages(state, reference)
        exact = close = _compare(plain, reference, name)
        if not _nearly(exact, reference):
            close = _compare(fit_positions(plain, reference)[0], reference, name)
        found = fit_of(state, name, source) if _nearly(close, reference) else exact
        if found.fits and close is exact:
            found.alike.extend(_alike(name, names))
            return found
        if found.fits and resized is None:
            resized = found
        if best is None or found.matched / found.total > best.matched / best.total:
            best = found
    return resized or (best if best is not None and best.matched else None)


def _nearly(found: ArchitectureFit, reference: Mapping[str, Tensor]) -> bool:
    """Whether all but the input kernel, whose channels may differ, is there: a quick look."""
    return not found.missing and found.other_shape in ([], [input_kernel(reference)])


def candidates(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield timm names of the family that a checkpoint's keys indicate, the most common first."""
    known = [name for name in timm.list_models() if not name.endswith(SEPARATE)]
    for marker, patterns in FAMILIES.items():
        if any(re.search(marker, key) for key in state):
            found = (fnmatch.filter(known, pattern) for pattern in patterns.split())
            yield from dict.fromkeys(name for names in found for name in names)
            return


def _alike(name: str, names: list[str]) -> list[str]:
    """Others of one name but for ``tf_`` in front, or words of variants, with equal shapes."""
    plain = name.removeprefix("tf_").partition("_clip_")[0]
    shapes = {key: tensor.shape for key, tensor in skeleton(name).items()}
    found = []
    for other in names:
        if other != name and other.removeprefix("tf_").startswith(plain):
            theirs = {key: tensor.shape for key, tensor in skeleton(other).items()}
            if theirs == shapes:
                found.append(other)
    return found
