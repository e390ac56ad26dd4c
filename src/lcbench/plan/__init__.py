"""Before a run: the grid of its cells, what they will cost, and how they are divided."""
