"""Trained models for those who do not have this package: timm folders, ONNX, ``torch.export``."""
