"""The operating system, files, processes, hardware and logs; nothing here knows embeddings."""
