"""Images with several labels each: readers of annotations, validation split, data module."""
