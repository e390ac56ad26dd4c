"""A folder of results: one file a cell, whole or not there; everything else reads these."""
