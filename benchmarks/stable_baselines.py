"""Stable-Baselines3's PPO on Atari with our hyper-parameters, for comparisons."""

from __future__ import annotations

from typing import Any


def stable_baselines(game: str, num_envs: int, steps: int, minibatches: int, **options: Any) -> Any:
    """Build PPO with RL Baselines3 Zoo's hyper-parameters for Atari, which are our defaults.

    Args:
        game: name of the game, such as ``space_invaders``.
        num_envs: number of environments.
        steps: steps of each environment in a rollout.
        minibatches: minibatches in an epoch.
        options: options of PPO in place of the hyper-parameters, such as ``seed``.

    Returns:
        ``stable_baselines3.PPO``, before any training.
    """
    import ale_py
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    name = "".join(word.capitalize() for word in game.split("_"))
    settings = {
        "learning_rate": 2.5e-4,
        "n_steps": steps,
        "batch_size": num_envs * steps // minibatches,
        "n_epochs": 4,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range": 0.1,
        "clip_range_vf": 0.1,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "device": "cpu",
        "seed": 0,
        **options,
    }
    games = make_atari_env(f"{name}NoFrameskip-v4", num_envs, seed=settings["seed"])
    return PPO("CnnPolicy", VecFrameStack(games, 4), **settings)
