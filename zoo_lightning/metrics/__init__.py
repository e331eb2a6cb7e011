"""Landmark metrics: pure functions, and the same accumulated by torchmetrics."""
