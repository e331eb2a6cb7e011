"""Faster computation of aggregated layers, with the result of :mod:`zoo_lightning.nn.reference`."""
