"""TempScale, attention at a temperature: policies, injection, and proof."""
