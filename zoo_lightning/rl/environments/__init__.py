"""Vectorised environments for policies: Atari games, and the protocol of others."""

from zoo_lightning.rl.environments.atari import AtariEnvs, all_games, find_game
from zoo_lightning.rl.environments.stepping import Game, Step

__all__ = ["AtariEnvs", "Game", "Step", "all_games", "find_game"]
