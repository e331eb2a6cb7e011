"""Rollouts: buffers for the steps between two updates, and the loop that fills them.

Shapes: ``T`` steps of ``N`` environments with observations ``(C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo_lightning.rl.advantages import add_cut_off_value, generalised_advantages
from zoo_lightning.rl.environments.stepping import Environments, Game, Step
from zoo_lightning.rl.losses import evaluate_actions, sample_actions


class Samples(NamedTuple):
    """Minibatch of samples of a rollout.

    Attributes:
        observations: ``(B, C, H, W)`` uint8 in channels-last memory.
        actions: ``(B,)`` int64.
        log_probs: ``(B,)``, log-probabilities of the actions at the time of acting.
        values: ``(B,)``, values at the time of acting.
        advantages: ``(B,)``, advantage estimates.
        returns: ``(B,)``, targets of the values.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Rollout:
    """Buffers of a rollout, reused for all rollouts of a training.

    Observations are uint8 in channels-last memory, in which convolutions are faster on CPUs and
    tensor cores; they are written once and read by acting and learning.

    Args:
        steps: number of steps ``T``.
        num_envs: number of environments ``N``.
        shape: shape ``(C, H, W)`` of an observation.
        device: device of the network.
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
        # What environments return stays on the host until all steps are taken: a copy a step of
        # each would make the host wait for the device.
        self._on_host = {
            name: torch.zeros_like(getattr(self, name), device="cpu")
            for name in ("actions", "rewards", "ended", "chosen")
        }
        self._frames: Tensor | None = None
        if torch.device(device).type == "cuda":
            # Pinned memory is copied while the host goes on.
            self._frames = torch.empty((num_envs, *shape), dtype=torch.uint8, pin_memory=True)

    def observe(self, t: int, observations: np.ndarray) -> Tensor:
        """Store the observations before step ``t``.

        Args:
            t: number of the step in the rollout.
            observations: ``(N, C, H, W)`` uint8.

        Returns:
            The observations ``(N, C, H, W)`` as a view of the buffer, in channels-last memory.
        """
        view = self._pixels[t].permute(0, 3, 1, 2)
        frames = torch.from_numpy(observations)
        if self._frames is not None:
            # Free again: the previous step's actions were read after its copy had ended.
            frames = self._frames.copy_(frames)
        return view.copy_(frames, non_blocking=True)

    def record(self, t: int, actions: Tensor, rewards: Tensor, step: Step) -> None:
        """Store, on the host, the actions of step ``t`` and their results.

        Args:
            t: number of the step in the rollout.
            actions: ``(N,)``, actions taken.
            rewards: ``(N,)``, rewards, including the discounted value of the last state where a
                game was truncated.
            step: result of the environments' step.
        """
        self._on_host["actions"][t], self._on_host["rewards"][t] = actions, rewards
        self._on_host["ended"][t] = torch.from_numpy(step.ended)
        self._on_host["chosen"][t] = torch.from_numpy(step.chosen)

    def complete(self, logits: Tensor, values: Tensor) -> None:
        """Bring what was recorded to the network's device, once all steps are taken.

        Args:
            logits: ``(T, N, A)``, logits that the actions were sampled from.
            values: ``(T, N)``, values of the observations before each step.
        """
        for name, recorded in self._on_host.items():
            getattr(self, name).copy_(recorded)
        self.values.copy_(values)
        chosen = evaluate_actions(logits.flatten(0, 1), self.actions.flatten())
        self.log_probs.copy_(chosen.log_prob.view_as(self.log_probs))

    def estimate(self, last_values: Tensor, gamma: float, gae_lambda: float) -> None:
        """Compute advantages and returns once all steps are stored.

        Args:
            last_values: ``(N,)``, values of the observations after the last step.
            gamma: discount ``γ``.
            gae_lambda: ``λ`` of generalised advantage estimation.
        """
        self.advantages = generalised_advantages(
            self.rewards, self.values, self.ended, last_values, gamma, gae_lambda
        )
        self.returns = self.advantages + self.values

    def learnable(self) -> Tensor:
        """Sorted indices in [0, T·N) of the samples whose action the policy chose."""
        return self.chosen.flatten().nonzero().squeeze(-1)

    def samples(self, numbers: Tensor) -> Samples:
        """Gather samples by their indices ``(B,)`` int64."""
        pixels = self._pixels.flatten(0, 1).index_select(0, numbers)
        small = (self.actions, self.log_probs, self.values, self.advantages, self.returns)
        return Samples(
            pixels.permute(0, 3, 1, 2), *(each.flatten().index_select(0, numbers) for each in small)
        )


Policy = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function from observations ``(N, C, H, W)`` uint8 to logits ``(N, A)``, values ``(N,)``."""


def as_bytes(observations: np.ndarray, device: torch.device | str) -> Tensor:
    """Move observations ``(N, C, H, W)`` uint8 to a device, in channels-last memory."""
    return torch.from_numpy(observations).to(device).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def collect_rollout(
    rollout: Rollout,
    policy: Policy,
    envs: Environments,
    observations: np.ndarray,
    gamma: float,
    generator: torch.Generator,
) -> tuple[np.ndarray, Tensor, list[Game]]:
    """Act in the environments until a rollout's buffers are full.

    Args:
        rollout: buffers to overwrite.
        policy: policy that acts, the same function that is trained.
        envs: environments that have been reset.
        observations: ``(N, C, H, W)``, current observations.
        gamma: discount ``γ`` of the last state's value in truncated games.
        generator: random generator of the actions, on the CPU, so that they are the same on every
            device.

    Returns:
        The observations after the last step, their values ``(N,)``, and the games that ended.
    """
    device = rollout.actions.device
    games: list[Game] = []
    logits, values = [], []
    for t in range(rollout.steps):
        scores, value = policy(rollout.observe(t, observations))
        logits.append(scores)
        values.append(value)
        actions = sample_actions(scores.cpu(), generator)  # the one read of a step
        step = envs.step(actions.numpy())
        observations = step.observations
        rewards = torch.from_numpy(step.rewards)
        if step.last_observations is not None:
            final_values = policy(as_bytes(step.last_observations, device))[1].cpu()
            truncated = torch.from_numpy(step.truncated)
            rewards = add_cut_off_value(rewards, truncated, final_values, gamma)
        rollout.record(t, actions, rewards, step)
        games += step.games
    rollout.complete(torch.stack(logits), torch.stack(values))
    return observations, policy(as_bytes(observations, device))[1], games
