"""Predictions for any images, from a run, a checkpoint or an export."""
