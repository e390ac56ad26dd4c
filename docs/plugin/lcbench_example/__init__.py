"""An example of a package that adds a task, a measure and a correction to lcbench."""
