"""The sections of `scripts/gpu_check.py`, a module each; each runs in a process of its own."""
