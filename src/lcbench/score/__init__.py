"""Scores cells with mteb's task classes, in separate processes, on embeddings from lcbench."""
