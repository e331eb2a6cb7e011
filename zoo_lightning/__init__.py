"""Zoo-Tuning: one good model from several pretrained models of one architecture."""

__version__ = "0.1.0"
