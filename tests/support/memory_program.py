"""Send a million short texts through encoder and store; print the peak of RssAnon above the start.

Run by test_memory.py in a process of its own: `python memory_program.py FOLDER TEXTS`.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcbench.encode.encoder import Encoder
from lcbench.encode.engine import Engine, Identity
from lcbench.encode.forward import Batch
from lcbench.encode.store.shelf import Store
from lcbench.encode.tokens import Tokens
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.tempscale.policy import Role

DIMENSIONS = 768


class StubTokenizer:
    """Words are tokens."""

    def tokenize(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        return [Tokens(np.arange(len(text.split()), dtype=np.int32), {}, {}) for text in texts]


class StubForward:
    """Embeddings from a random number generator."""

    def __init__(self) -> None:
        self.depends_on_role = False
        self.dimensions = DIMENSIONS
        self.generator = np.random.default_rng(0)

    def use(self, repair: Repair) -> None:
        pass

    def tokenizer_for(self, role: Role | None, *_: Any) -> StubTokenizer:
        return StubTokenizer()

    def run(
        self, tokens: Sequence[Tokens], role: Role | None, queued: Callable[[], None], *_: Any
    ) -> Iterator[Batch]:
        queued()
        for start in range(0, len(tokens), 256):
            texts = list(range(start, min(start + 256, len(tokens))))
            found = self.generator.random((len(texts), DIMENSIONS), dtype=np.float32)
            yield Batch(texts, found, sum(tokens[i].length for i in texts))

    def stop(self) -> None:
        pass

    def close(self, *, wait: bool = True) -> None:
        pass


def anonymous() -> int:
    """Return the process's anonymous resident memory, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise SystemExit("no RssAnon in /proc/self/status")


def main(folder: str, count: int) -> None:
    forward: Any = StubForward()
    store = Store(Path(folder), 2**40, warn=print)
    engine = Engine(forward, store, Identity("a/stub", "1", 512, "float32"))
    meta: Any = None
    encoder = Encoder(engine.at(NO_REPAIR), meta)
    # Once with little, so that what libraries keep is not counted.
    encoder.embed([f"warm {i}" for i in range(2000)])
    start = anonymous()
    peak = [start]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak.append(anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    texts = [f"short text number {i}" for i in range(count)]
    found = encoder.embed(texts)
    engine.close()
    again = Encoder(
        Engine(forward, store, Identity("a/stub", "1", 512, "float32")).at(NO_REPAIR), meta
    )
    same = again.embed(texts)
    rows = np.arange(0, count, max(1, count // 1000))
    done.set()
    watcher.join()
    print(
        (max(peak) - start) // 1024,
        encoder.counters.encoded_texts - 2000,
        again.counters.encoded_texts,
        bool((found[rows] == same[rows]).all()),
    )


main(sys.argv[1], int(sys.argv[2]))
