"""The docs suite: tasks made of the docstrings of installed libraries."""
