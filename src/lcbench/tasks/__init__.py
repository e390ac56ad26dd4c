"""Tasks: named sets of them (suites), what mteb states of each, and those from docstrings."""
