"""Tasks of mteb and of the docs suite: their sources, sizes and suites."""
