"""Encodes texts: tokens, batches by length, the forward pass, and the store of embeddings."""
