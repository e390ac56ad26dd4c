"""Temperatures by layer, head and length that are made from a model and texts without labels."""

METHODS = {"entropy": 100, "search": 300}
"""Methods of `lcbench tune`, each with the number of texts that it takes by default."""
