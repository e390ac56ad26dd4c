"""A user's own texts as tasks: folders and files, datasets of the hub, task classes."""
