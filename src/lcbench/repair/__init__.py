"""What is tried against length collapse, as one value."""
