"""Carries out what the command line and notebooks ask for; holds the public functions."""
