"""Image classification: data modules of folders, lists and published data sets."""
