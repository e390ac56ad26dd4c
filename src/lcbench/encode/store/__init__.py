"""Where embeddings are kept, by content, so that no text is encoded twice."""
