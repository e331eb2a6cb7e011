"""Reinforcement learning without Lightning: PPO's arithmetic, rollouts, networks, playing."""
