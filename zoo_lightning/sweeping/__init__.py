"""Sweeps over options: W&B's sweep files, on W&B's server or here by Optuna."""
