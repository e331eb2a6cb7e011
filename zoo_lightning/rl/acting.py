"""Acting: from what is seen to actions, and from actions to a rollout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from zoo_lightning.envs.stepping import Environments, Game
from zoo_lightning.rl.advantages import add_cut_off_value
from zoo_lightning.rl.losses import draw_actions, judge_actions
from zoo_lightning.rl.rollout import Rollout

Policy = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Logits ``(N, A)`` and values ``(N,)`` of observations ``(N, C, H, W)`` uint8."""


def as_bytes(observations: np.ndarray, device: torch.device | str) -> Tensor:
    """Observations ``(N, C, H, W)`` uint8 on a device, in channels-last memory."""
    return torch.from_numpy(observations).to(device).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def fill(
    rollout: Rollout,
    policy: Policy,
    envs: Environments,
    observations: np.ndarray,
    discount: float,
    generator: torch.Generator,
) -> tuple[np.ndarray, Tensor, list[Game]]:
    """Act until a rollout's buffers are full.

    Args:
        rollout: to be overwritten.
        policy: in the form in which it will learn.
        envs: already begun.
        observations: ``(N, C, H, W)``, what is seen now.
        discount: ``γ``, for what games that are cut off would still have brought.
        generator: of the actions, on the CPU, so that they are the same on every device.

    Returns:
        What is seen afterwards; its values ``(N,)``; the games that ended.
    """
    device = rollout.actions.device
    games: list[Game] = []
    for t in range(rollout.steps):
        logits, values = policy(rollout.observe(t, observations))
        actions = draw_actions(logits.cpu(), generator)
        step = envs.step(actions.numpy())
        observations = step.observations
        rewards = torch.from_numpy(step.rewards).to(device)
        if step.last_observations is not None:
            final_values = policy(as_bytes(step.last_observations, device))[1]
            truncated = torch.from_numpy(step.truncated).to(device)
            rewards = add_cut_off_value(rewards, truncated, final_values, discount)
        actions = actions.to(device)
        rollout.note(t, actions, judge_actions(logits, actions).log_prob, values, rewards, step)
        games += step.games
    return observations, policy(as_bytes(observations, device))[1], games
