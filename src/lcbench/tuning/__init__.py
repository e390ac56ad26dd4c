"""Temperatures by layer, head and length that are made from a model and texts without labels."""
