"""Transfer methods that Zoo-Tuning is compared with."""

from zoo_lightning.methods.knowledge_flow import KnowledgeFlow
from zoo_lightning.methods.l2_sp import L2SP
from zoo_lightning.methods.plain import PlainBackbone

__all__ = ["L2SP", "KnowledgeFlow", "PlainBackbone"]
