"""The Atari games that ale-py ships, found by whatever people call them."""

from __future__ import annotations

import re
from types import ModuleType

from zoo_lightning.errors import ConfigError, nearest


def ale() -> ModuleType:
    """The package ``ale_py``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import ale_py
        import ale_py.vector_env
    except ImportError as error:
        raise ConfigError(
            f"Atari games need ale-py, which cannot be imported ({error}): "
            "pip install -e '.[rl]', or pip install ale-py"
        ) from error
    # Otherwise every environment greets the user on standard error.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py


def all_games() -> list[str]:
    """Names of all games, in alphabetical order, such as ``ms_pacman``."""
    return sorted(ale().roms.get_all_rom_ids())


def find_game(name: str) -> str:
    """The game that is meant by ``ms_pacman``, ``MsPacman``, ``ALE/MsPacman-v5`` and the like.

    Raises:
        ConfigError: no such game; names the nearest.
    """
    by_letters = {_letters(game): game for game in all_games()}
    bare = re.sub(r"(NoFrameskip|Deterministic)?-v\d+$", "", name.removeprefix("ALE/"))
    found = by_letters.get(_letters(bare))
    if found is None:
        guess = nearest(_letters(bare), by_letters)
        for letters, game in by_letters.items():
            guess = guess.replace(f"'{letters}'", f"'{game}'")
        raise ConfigError(
            f"unknown Atari game {name!r}.{guess} Known are the {len(by_letters)} games of "
            f"ale-py: {', '.join(by_letters.values())}"
        )
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
