"""Repairs of length collapse, and their names."""
