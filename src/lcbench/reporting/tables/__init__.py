"""The tables of a report besides Table 1, one module each."""
