"""TempScale: attention at a temperature. What a text gets (policy), how (inject), proof (prove)."""
