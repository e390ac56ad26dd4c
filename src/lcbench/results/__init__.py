"""The files of a results folder, written atomically: reading, writing and importing cells."""
