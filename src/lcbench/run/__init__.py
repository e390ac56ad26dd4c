"""Carrying out a sweep, alone or beside others, and going on after whatever ended it."""
