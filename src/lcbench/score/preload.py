"""What a process that scores imports, done once in the process that all are forked from."""

from lcbench.system.imports import import_libraries

import_libraries("lcbench.score.worker", "lcbench.score.evaluate", "sentence_transformers")
