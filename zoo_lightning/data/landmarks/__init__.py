"""Facial landmarks: data modules, annotation formats, schemes of points and checks."""
