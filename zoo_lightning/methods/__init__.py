"""Transfer methods: Zoo-Tuning's baselines, ensembles and soups, and the recipes of all methods.

The names below ``PlainBackbone`` are imported when they are first used: they need the tasks.
"""

import lazy_loader

# Not lazy, since short class names in YAML and on the command line resolve to what is imported.
from zoo_lightning.methods.l2_sp import L2SP  # noqa: F401
from zoo_lightning.models.knowledge_flow import KnowledgeFlow
from zoo_lightning.models.plain import PlainBackbone

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["KnowledgeFlow", "PlainBackbone"]
