"""Sources: what a pretrained model is, where its weights come from, and how they are made to fit.

Import from the submodules. ``spec`` and ``shipped`` need no torch, so that configurations can be
checked and the shipped zoo listed without loading it.
"""
