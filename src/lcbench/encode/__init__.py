"""From texts to embeddings: tokens, batches by length, the forward pass, nothing twice."""
