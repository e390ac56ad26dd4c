"""The store of embeddings, keyed by content, so that no text is encoded twice."""
