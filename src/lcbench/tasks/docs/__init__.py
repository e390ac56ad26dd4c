"""The docs suite: tasks built from the docstrings of installed libraries."""
