"""Plans a run: its grid of cells, their estimated cost, and their division into array elements."""
