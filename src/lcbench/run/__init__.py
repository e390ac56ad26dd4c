"""Runs a sweep, alone or next to other processes, and resumes it after any interruption."""
