"""Transfer methods that Zoo-Tuning is compared with."""

from zoo_lightning.methods.plain import PlainBackbone

__all__ = ["PlainBackbone"]
