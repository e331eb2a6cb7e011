"""Backbones: networks without a head, built from an architecture and sources.

:class:`ZooBackbone` aggregates several sources, :class:`PlainBackbone` is an ordinary network, and
:class:`KnowledgeFlow` learns from frozen teachers. Pure PyTorch and timm, without Lightning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
