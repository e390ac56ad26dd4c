"""Measure what each repair costs, against the same model without one.

`python scripts/bench_repairs.py --out results/bench/repairs.md`: encoding the same docstrings in
one process, the baseline before and after each repair, so that what else the machine does falls on
both. The repairs are those of `sweep=repairs` that suit a model: MiniLM, and for rotary positions a
model of its size with random weights, since speed does not depend on them.
"""

import argparse
import ctypes
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["HF_HUB_OFFLINE"] = "1"

import bench_support as support
import numpy as np
from markdown_table import table
from omegaconf import OmegaConf
from scipy import stats

from lcbench.encode.encoder import Counters
from lcbench.encode.load import load
from lcbench.errors import RequestError
from lcbench.hub.models import LocatedModel, locate
from lcbench.repair.fit import fit
from lcbench.repair.repair import NO_REPAIR, Repair, parse
from lcbench.run.reader import Reader, reader_of
from lcbench.system.observer import Observer
from lcbench.tasks.docs.selection import select

if TYPE_CHECKING:
    from lcbench.encode.encoder import Encoder

WINDOW = 512
# Words, which are fewer tokens than the window.
BEGINNING = 120
# Documents of the docs suite, and of its long ones, of more than 512 words.
DOCUMENTS, LONG_DOCUMENTS = 10, 2
MINUTES = 4.5
# A repair significantly below it is named under the table.
ENOUGH = 0.95
# Fewer rounds have no interval.
LEAST_ROUNDS = 3
# `max` is not for all tasks of the sweep, longrope for few models.
_BESIDES = ({"chunks": "max"}, {"extend": {"longrope": 1024}})
# The methods that each model of rotary positions is measured with.
_ROTARY = ("linear", "ntk", "yarn", "selfextend")
_MORE_POSITIONS = ("window",)
_LONGROPE = ("longrope",)
_MIB = 2**20


@dataclass(frozen=True)
class Run:
    """One encoding of the texts.

    Attributes:
        seconds: that it took, a correction among them.
        tokens: that the model read, of all chunks.
        vectors: of each document.
    """

    seconds: float
    tokens: int
    vectors: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass
class Cost:
    """What a repair costs.

    Attributes:
        runs: encodings under it.
        rates: tokens per second in each round, relative to the mean of the baseline before and
            after; of texts of which both read as many tokens.
        times: seconds, relative to the mean of the baseline before and after.
        memory: most memory of the process, less that of the baseline before, in bytes; None: not
            known on this system.
    """

    runs: list[Run] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    memory: int | None = None

    @property
    def relative(self) -> float:
        """The geometric mean of the rounds' rates."""
        return statistics.geometric_mean(self.rates)

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval, by Student's t over the rounds; unbounded for fewer than three."""
        count = len(self.rates)
        if count < LEAST_ROUNDS:
            return 0.0, math.inf
        error = statistics.stdev(map(math.log, self.rates)) / math.sqrt(count)
        factor = math.exp(float(stats.t.ppf(0.975, count - 1)) * error)
        return self.relative / factor, self.relative * factor


class Bench:
    """Encodes the same texts under several repairs."""

    def __init__(self, reader: Reader, texts: Sequence[str]) -> None:
        self._reader = reader
        self._texts = list(texts)
        self._beginnings = [" ".join(text.split()[:BEGINNING]) for text in texts]
        self._encoders: dict[Repair, Encoder] = {}
        self._random = np.random.default_rng(0)

    def ready(self, repair: Repair, *, beginnings: bool = False) -> Callable[[], Run]:
        """Apply a repair, with its proof, and return what encodes the texts once.

        Args:
            repair: the repair.
            beginnings: encode the beginnings of the texts, which all repairs read alike.
        """
        encoder, role, prompt = self._encoder(repair), self._reader.role, self._reader.prompt
        encoder.vectors([self._shuffled(self._texts[0])], role, prompt)
        of = self._beginnings if beginnings else self._texts
        texts = [self._shuffled(text) for text in of]

        def encode() -> Run:
            encoder.counters = counted = Counters()
            began = time.perf_counter()
            encoder.vectors(texts, role, prompt)
            seconds = time.perf_counter() - began
            vectors = counted.vectors / counted.vectors_of if counted.vectors_of else 1.0
            return Run(seconds, counted.encoded_tokens, vectors)

        return encode

    def once(self, repair: Repair, *, beginnings: bool = False) -> Run:
        """Return one encoding under a repair."""
        return self.ready(repair, beginnings=beginnings)()

    def _shuffled(self, text: str) -> str:
        """Return a text of the same words, of which nothing is in the store yet."""
        words = text.split()
        return " ".join(words[i] for i in self._random.permutation(len(words)))

    def _encoder(self, repair: Repair) -> "Encoder":
        if repair not in self._encoders:
            encoder = self._reader.encoder_of(repair)
            if repair.correction is not None:
                role, prompt = self._reader.role, self._reader.prompt
                rows = encoder.embed(self._texts, role, prompt)
                lengths = encoder.lengths(self._texts, prompt, role)
                encoder.correction = fit(repair.correction, rows, lengths)
            self._encoders[repair] = encoder
        return self._encoders[repair]


def costs_of(
    bench: Bench, repairs: Sequence[Repair], minutes: float, say: Callable[[str], None] = print
) -> dict[Repair, Cost]:
    """Measure repairs in turn, the baseline before and after each, for as long as there is time.

    The first round measures memory, and warms up; then there is at least one.

    Args:
        bench: that encodes.
        repairs: without the baseline.
        minutes: for all rounds.
        say: receives a line after each round.
    """
    began = time.perf_counter()
    every = (NO_REPAIR, *repairs)
    found = {repair: Cost() for repair in every}
    bench.once(NO_REPAIR)
    for repair in every:
        least, most = peak_of(bench.ready(NO_REPAIR)), peak_of(bench.ready(repair))
        found[repair].memory = None if least is None or most is None else most - least
    say(f"warmed up after {time.perf_counter() - began:.0f} s")
    longest = 0.0
    while not longest or time.perf_counter() - began + longest < 60 * minutes:
        started = time.perf_counter()
        before = bench.once(NO_REPAIR)
        # The baseline in place of a repair shows how far two encodings of it differ.
        for repair in every:
            run, after = bench.once(repair), bench.once(NO_REPAIR)
            cost = found[repair]
            cost.runs.append(run)
            three = [before.rate, run.rate, after.rate]
            if repair.extension is not None:
                # A token costs more the longer its text is.
                turns = (NO_REPAIR, repair, NO_REPAIR)
                three = [bench.once(one, beginnings=True).rate for one in turns]
            cost.rates.append(three[1] / statistics.mean((three[0], three[2])))
            cost.times.append(run.seconds / statistics.mean((before.seconds, after.seconds)))
            before = after
        longest = max(longest, time.perf_counter() - started)
        say(f"round of {longest:.0f} s, {time.perf_counter() - began:.0f} s in all")
    return found


def peak_of(work: Callable[[], Any]) -> int | None:
    """Return the most memory of this process while something is done, in bytes.

    None where Linux's /proc is not there. What was freed before is returned to the system first.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        # Resets the high-water mark.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        work()
        return None
    work()
    return _memory("VmHWM")


def _memory(name: str) -> int:
    """Return an entry of this process's /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def suitable(located: LocatedModel, kept: Callable[[Repair], bool]) -> list[Repair]:
    """Return those of the sweep's repairs that suit a model and change something in it."""
    config = support.compose_config(["sweep=repairs"])
    shipped: Any = OmegaConf.to_container(config.repairs)
    asked = [*shipped, *_BESIDES]
    found: dict[Repair, None] = {}
    for one in asked:
        with suppress(RequestError):
            repair = parse(one).resolve(located.shape)
            if not repair.is_baseline and kept(repair):
                found[repair] = None
    return list(found)


def extends_by(methods: Sequence[str]) -> Callable[[Repair], bool]:
    """Return what tells whether a repair is a context extension by one of some methods."""
    return lambda repair: repair.extension is not None and repair.extension.method in methods


def make_rotary(folder: Path, tokenizer: Path, **parameters: Any) -> Path:
    """Write a decoder with rotary positions that reads 512 tokens, of MiniLM's size.

    Its weights are random.

    Args:
        folder: of it; created.
        tokenizer: folder of the model whose tokenizer it has.
        parameters: other values, by name in the configuration.
    """
    import shutil

    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    usual: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
    usual |= {"intermediate_size": 1024, "vocab_size": 30522, "pad_token_id": 0}
    config = LlamaConfig(**{**usual, "max_position_embeddings": WINDOW, **parameters})
    LlamaModel(config).save_pretrained(folder / "transformer")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer / name, folder / "transformer" / name)
    transformer = Transformer(str(folder / "transformer"), max_seq_length=WINDOW)
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder / "model"))
    return folder / "model"


def longrope() -> dict[str, Any]:
    """Return the parameters of longrope for 1024 positions, as if its factors had been searched."""
    pairs = 16
    return {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * pairs,
        "long_factor": np.linspace(1, 2, pairs).tolist(),
        "original_max_position_embeddings": WINDOW,
    }


def located_at(model: str, window: int) -> LocatedModel:
    """Return the place of a model: the name of a config of `conf/model`, or a folder."""
    overrides = support.model_overrides(model, window)
    name = "custom" if "model=custom" in overrides else model
    return locate(support.read(overrides, name).models[0], offline=True)


def texts_of(documents: int, long_documents: int) -> list[str]:
    """Return documents of the docs suite, long ones among them."""
    sizes = support.read(
        [f"docs.documents={documents}", f"docs.long_documents={long_documents}"], "minilm"
    ).docs
    selection = select(sizes)
    chosen = (*selection.documents, *selection.long_documents)
    return [f"{one.summary}\n\n{one.body}" for one in chosen]


def measure(
    located: LocatedModel, repairs: Sequence[Repair], texts: Sequence[str], minutes: float
) -> dict[Repair, Cost]:
    """Load a model and measure its repairs."""
    loaded = load(located, device="cpu", dtype="float32")
    with reader_of(loaded, located.name, Observer()) as reader:
        return costs_of(Bench(reader, texts), repairs, minutes)


def section(title: str, found: dict[Repair, Cost], documents: int) -> list[str]:
    """Return the lines about a model."""
    rows = []
    slow = []
    for repair, cost in found.items():
        low, high = cost.interval
        run = cost.runs[0]
        rows.append(
            [
                str(repair),
                f"{statistics.median(one.rate for one in cost.runs):,.0f}",
                f"{cost.relative:.2f}",
                "–" if high == math.inf else f"{low:.2f} to {high:.2f}",
                f"{run.tokens / documents:,.0f}",
                f"{statistics.median(cost.times):.2f}",
                f"{run.vectors:.3g}",
                "–" if cost.memory is None else f"{cost.memory / _MIB:+,.0f}",
            ]
        )
        if high < ENOUGH:
            slow.append(str(repair))
    heading = ["repair", "tokens/s", "relative", "95 %", "tokens", "time", "vectors", "MiB"]
    rounds = len(next(iter(found.values())).runs)
    return [
        f"## {title}",
        "",
        f"Rounds: {rounds}.",
        "",
        *table(heading, rows),
        "",
        f"Significantly below {ENOUGH} of the baseline: {', '.join(slow) or 'none'}.",
    ]


def page(found: Sequence[tuple[str, dict[Repair, Cost]]], documents: int) -> list[str]:
    """Return the lines of the page."""
    lines = [
        "# What repairs cost",
        "",
        support.machine(),
        "`python scripts/bench_repairs.py --out results/bench/repairs.md`",
        "",
        f"{documents} docstrings at window {WINDOW}, fp32, encoded in one process: the baseline",
        "before and after each repair, their words in another order each time, so that nothing",
        "comes from the store.",
        "",
        "- tokens/s: those that the model reads, the median of the rounds.",
        "- relative: to the mean of the baseline just before and after, the mean of the rounds and",
        "  its 95 % interval. Extensions are compared on the documents' beginnings, of which the",
        "  baseline reads as much. The first row is the baseline itself.",
        "- tokens: read of a document; time: of all documents, relative to the baseline.",
        "- vectors: of a document.",
        "- MiB: the most memory of the process, less that of the baseline before, measured once.",
        "",
        "Corrections are fitted before; applying a repair and its proof are not in the times.",
    ]
    for title, costs in found:
        lines += ["", *section(title, costs, documents)]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all rounds")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="of the docs suite")
    parser.add_argument("--long", type=int, default=LONG_DOCUMENTS, help="of more than 512 words")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there too")
    asked = parser.parse_args(arguments)
    texts = texts_of(asked.documents, asked.long)
    minilm = located_at("minilm", WINDOW)
    with tempfile.TemporaryDirectory(prefix="lcbench-bench-") as name:
        more = {"max_position_embeddings": 2 * WINDOW}
        models: list[tuple[str, LocatedModel, Callable[[Repair], bool]]] = [
            ("MiniLM", minilm, lambda repair: True)
        ]
        for title, parameters, methods in (
            ("Rotary positions", {}, _ROTARY),
            ("Rotary positions for twice the window", more, _MORE_POSITIONS),
            ("Rotary positions of longrope", {**more, "rope_parameters": longrope()}, _LONGROPE),
        ):
            folder = make_rotary(Path(name) / methods[0], minilm.folder, **parameters)
            models.append((title, located_at(str(folder), WINDOW), extends_by(methods)))
        wanted = [(title, one, suitable(one, kept)) for title, one, kept in models]
        count = sum(len(repairs) for _, _, repairs in wanted)
        found = [
            (title, measure(located, repairs, texts, asked.minutes * len(repairs) / count))
            for title, located, repairs in wanted
        ]
    lines = page(found, len(texts))
    print()
    print("\n".join(lines))
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
