"""Finds models and datasets on this machine, and fetches them from the hub."""
