"""Readers of landmark annotation formats, each of which returns a ``LandmarkTable``.

They are strict: a deviation from the format is one ``DataError`` that names the place.
"""
