"""What was seen and done between two updates: buffers made once and filled again and again.

``T`` steps of ``N`` environments with observations ``(C, H, W)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo_lightning.envs.stepping import Step
from zoo_lightning.rl.advantages import generalised_advantages


class Samples(NamedTuple):
    """Some of a rollout's steps, in any order: what a minibatch is made of.

    Attributes:
        observations: ``(B, C, H, W)`` uint8 in channels-last memory.
        actions: ``(B,)`` int64.
        log_probs: ``(B,)``, of the actions at the time of acting.
        values: ``(B,)``, at the time of acting.
        advantages: ``(B,)``.
        returns: ``(B,)``.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Rollout:
    """Buffers of a rollout.

    Observations are bytes with the channels last, in which layout convolutions are faster on CPUs
    and tensor cores; they are written once, when they come, and read by acting and learning alike.

    Args:
        steps: ``T``.
        num_envs: ``N``.
        shape: ``(C, H, W)`` of an observation.
        device: of the network.
    """

    def __init__(
        self,
        steps: int,
        num_envs: int,
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
    ) -> None:
        channels, height, width = shape
        self.steps, self.num_envs = steps, num_envs
        self._pixels = torch.empty(
            (steps, num_envs, height, width, channels), dtype=torch.uint8, device=device
        )

        def numbers(dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((steps, num_envs), dtype=dtype, device=device)

        self.actions, self.log_probs = numbers(torch.long), numbers()
        self.values, self.rewards = numbers(), numbers()
        self.ended, self.chosen = numbers(torch.bool), numbers(torch.bool)
        self.advantages, self.returns = numbers(), numbers()

    def observe(self, t: int, observations: np.ndarray) -> Tensor:
        """Write what is seen before step ``t``.

        Args:
            t: number of the step in the rollout.
            observations: ``(N, C, H, W)`` uint8.

        Returns:
            The same ``(N, C, H, W)``, a view of the buffer in channels-last memory.
        """
        view = self._pixels[t].permute(0, 3, 1, 2)
        return view.copy_(torch.from_numpy(observations))

    def note(
        self,
        t: int,
        actions: Tensor,
        log_probs: Tensor,
        values: Tensor,
        rewards: Tensor,
        step: Step,
    ) -> None:
        """Write what was done in step ``t`` and what it led to.

        Args:
            t: number of the step in the rollout.
            actions: ``(N,)``.
            log_probs: ``(N,)``, of the actions.
            values: ``(N,)``, of what was seen before.
            rewards: ``(N,)``, what games that were cut off would have brought included.
            step: for the rest.
        """
        self.actions[t], self.log_probs[t], self.values[t] = actions, log_probs, values
        self.rewards[t] = rewards
        self.ended[t] = torch.from_numpy(step.ended)
        self.chosen[t] = torch.from_numpy(step.chosen)

    def estimate(self, last_values: Tensor, discount: float, smoothing: float) -> None:
        """Compute advantages and returns once all steps are there.

        Args:
            last_values: ``(N,)``, of what is seen after the last step.
            discount: ``γ``.
            smoothing: ``λ``.
        """
        self.advantages = generalised_advantages(
            self.rewards, self.values, self.ended, last_values, discount, smoothing
        )
        self.returns = self.advantages + self.values

    def learnable(self) -> Tensor:
        """Numbers of the samples whose action the policy chose, in [0, T·N), in order."""
        return self.chosen.flatten().nonzero().squeeze(-1)

    def samples(self, numbers: Tensor) -> Samples:
        """Samples by their numbers ``(B,)`` int64."""
        pixels = self._pixels.flatten(0, 1).index_select(0, numbers)
        small = (self.actions, self.log_probs, self.values, self.advantages, self.returns)
        return Samples(
            pixels.permute(0, 3, 1, 2), *(each.flatten().index_select(0, numbers) for each in small)
        )
