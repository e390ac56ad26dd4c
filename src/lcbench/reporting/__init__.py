"""Makes tables, text and figures from scores on disk; loads no model."""
