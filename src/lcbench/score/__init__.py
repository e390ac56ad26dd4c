"""A cell's score: mteb's task classes score, in processes of their own; lcbench encodes."""
