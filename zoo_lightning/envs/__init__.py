"""Environments that a policy acts in, many at a time. Nothing here knows of networks."""

from zoo_lightning.envs.atari import AtariEnvs
from zoo_lightning.envs.games import all_games, find_game
from zoo_lightning.envs.stepping import Game, Step

__all__ = ["AtariEnvs", "Game", "Step", "all_games", "find_game"]
