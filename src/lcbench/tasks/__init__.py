"""Tasks: named sets of them (suites), ours from docstrings (docs), and where data lies (mirror)."""
