"""Layouts of ``keras.applications``: MobileNetV2 and EfficientNet."""

from __future__ import annotations

from zoo_lightning.sources.layouts.layout import Layout

LAYOUTS: tuple[Layout, ...] = ()
