"""Synthetic data: drawn faces, and scenes composed of photographs."""
