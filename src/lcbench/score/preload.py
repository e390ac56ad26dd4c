"""Imports the libraries of scoring processes once, in the process that they are forked from."""

from lcbench.system.imports import import_libraries

import_libraries("lcbench.score.worker", "lcbench.score.evaluate", "sentence_transformers")
