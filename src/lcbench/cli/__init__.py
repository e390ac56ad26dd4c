"""The command line: one file per command; the only package that uses Hydra and the screen."""
