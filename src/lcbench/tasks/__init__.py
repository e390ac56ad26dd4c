"""Tasks: where they come from (mteb, the docstrings), what is stated of each, and suites."""
