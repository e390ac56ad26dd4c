"""Models and datasets: where they lie on this machine, and how they are fetched."""
