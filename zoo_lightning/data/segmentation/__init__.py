"""Images with masks: label PNGs or polygons, a class for every pixel."""
