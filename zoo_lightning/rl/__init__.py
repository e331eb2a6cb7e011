"""Reinforcement learning without Lightning: environments, rollouts, losses, evaluation, videos.

:class:`~zoo_lightning.tasks.ppo.PPOTask` trains with them. The names below are imported
when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
