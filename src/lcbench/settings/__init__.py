"""Settings as typed values, as read from composed configs, and as JSON in a manifest."""
