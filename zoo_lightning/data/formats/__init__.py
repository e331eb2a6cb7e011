"""Readers of the annotation formats of facial landmarks: a path in, a ``LandmarkTable`` out.

Each is strict: whatever is not exactly its format is one ``DataError`` that says where.
"""
