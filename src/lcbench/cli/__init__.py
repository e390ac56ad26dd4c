"""The command line: one file a command; the only place that knows Hydra and the screen."""
