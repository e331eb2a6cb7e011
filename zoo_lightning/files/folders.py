"""Check of output folders."""

from __future__ import annotations

from pathlib import Path

from zoo_lightning.errors import ConfigError


def refuse_full(folder: Path, overwrite: bool) -> None:
    """Refuse an output folder that is not empty.

    Args:
        folder: folder given as ``--output``; need not exist.
        overwrite: whether files in the folder may be replaced.

    Raises:
        ConfigError: the folder is not empty and ``overwrite`` is false, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file; expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(
            f"--output {folder} is not empty; give another folder, or --overwrite to replace files "
            "of the same names in it"
        )
