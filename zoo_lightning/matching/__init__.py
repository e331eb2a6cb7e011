"""Channels of sources put in the order of a reference's, without changing what a source computes.

Pure torch. ``channels`` says which channels of a network may change places, ``weights`` and
``activations`` find a permutation, ``sources`` applies it to a zoo.
"""
