"""An example of a package that adds a task and a measure to lcbench."""
