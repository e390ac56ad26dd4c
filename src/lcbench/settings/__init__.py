"""Settings as typed values, read from composed configs or from a manifest."""
