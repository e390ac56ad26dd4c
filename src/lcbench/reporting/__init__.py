"""From scores on disk to tables, text and figures; loads no model and computes no embedding."""
