"""Section 4: tokens a second of lcbench and of what its users would write, in alternating rounds.

As a program, `python speed.py MODEL TOKENS` prints how fast this process turns texts into tokens.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_sections.check import NEEDS_CUDA, Check, Command, environment
from gpu_sections.models import (
    BASE,
    MINILM,
    SMALL,
    TINY,
    Shape,
    embed,
    engine_of,
    load,
    load_unpadded,
    make_model,
    minilm_folder,
    texts_of,
)
from gpu_sections.timing import cudnn_attention, fp32_precision, product_rate, seconds_of

_ROUNDS, _QUICK_ROUNDS = 3, 2
# Texts of one batch of `SentenceTransformer.encode`: its default, and a larger one. Of 128 and 512
# texts, it was as fast with 128 (bge-base in float32 on an H100).
_BATCH, _LARGER_BATCH = 32, 128
# Of eager attention, whose logits are [batch, heads, tokens, tokens].
_EAGER_BATCH = {512: 32, 4096: 2}
# Texts of this length or shorter are also encoded in the larger batch.
_SHORT_WINDOW = 512
# Parts of the card's own matrix product that bge-base's forward pass at 512 tokens is to reach.
_GOALS = {"bfloat16": 0.6, "float32": 0.8}
# A row that may take longer than that is not begun. On an H100 with slow cores, making a model of
# bge-base's size, loading it twice and one round of seven systems took half a minute.
_ROW_SECONDS = 15.0
_COMPILED_SECONDS, _QUICK_COMPILED_SECONDS = 90.0, 20.0
_TOKENISING_SECONDS = 12.0
_TOKENISED = 400_000
_QUICK_TOKENISED = 20_000
# Largest difference of an embedding in bfloat16 between batches of other sizes, relative to its
# largest component; 8e-3 is a difference in the last place.
_ROUNDED = 4e-2


Encode = Callable[[list[str]], object]


@dataclass(frozen=True)
class Workload:
    """What is encoded.

    Attributes:
        name: in the table.
        model: name of the weights, which workloads may share.
        shape: of the model.
        window: the most tokens of a text.
        mixed: whether lengths are spread from a quarter of it to the whole.
        dtype: of the weights.
        tokens: of one round, about.
    """

    name: str
    model: str
    shape: Shape
    window: int
    mixed: bool
    dtype: str
    tokens: int

    @property
    def is_goal(self) -> bool:
        """Whether it is the one whose utilisation has a goal: whole texts of bge-base."""
        return self.model == "base" and self.window == 512 and not self.mixed


# In order of what is to be known first, should time be short. A pass of a third of a second each,
# by estimate, on an H100.
WORKLOADS = (
    Workload("bge-base 512", "base", BASE, 512, False, "bfloat16", 2**19),
    Workload("bge-base 512", "base", BASE, 512, False, "float32", 2**16),
    Workload("bge-base 128–512", "base", BASE, 512, True, "bfloat16", 2**19),
    Workload("bge-base 128–512", "base", BASE, 512, True, "float32", 2**16),
    Workload("MiniLM 64–256", "minilm", MINILM, 256, True, "bfloat16", 2**19),
    Workload("MiniLM 64–256", "minilm", MINILM, 256, True, "float32", 2**19),
    Workload("bge-small 128–512", "small", SMALL, 512, True, "bfloat16", 2**19),
    Workload("e5-base-4k 4096", "base", BASE, 4096, False, "bfloat16", 2**18),
    Workload("e5-base-4k 4096", "base", BASE, 4096, False, "float32", 2**16),
    Workload("bge-small 128–512", "small", SMALL, 512, True, "float32", 2**18),
)
QUICK_WORKLOADS = (
    Workload("tiny 16–64", "tiny", TINY, 64, True, "float32", 2**11),
    Workload("tiny 64", "tiny", TINY, 64, False, "bfloat16", 2**10),
)


@dataclass(frozen=True)
class System:
    """A way to encode.

    Attributes:
        name: in the table.
        encode: encodes the texts of a round.
    """

    name: str
    encode: Encode


@dataclass(frozen=True)
class Change:
    """Names other settings of lcbench's forward pass.

    Attributes:
        name: in the report.
        dtype: of the workload that it is measured with.
        padded: whether texts are padded, or `engine.attention=varlen` is set.
        joint: `engine.fuse_qkv`
        compiled: `engine.compile`
        split: `engine.fp32=fp16x3`
        graphs: `engine.graphs`, at a temperature, against the same without.
        model: of the workload that it is measured with.
    """

    name: str
    dtype: str
    padded: bool = False
    joint: bool = False
    compiled: bool = False
    split: bool = False
    graphs: bool = False
    model: str = "base"

    def seconds(self, *, quick: bool) -> float:
        """Return how long it may take at most; if less time is left it is not begun."""
        if not self.compiled:
            return _ROW_SECONDS
        return _QUICK_COMPILED_SECONDS if quick else _COMPILED_SECONDS


CHANGES = (
    Change("varlen, fp16x3", "float32", split=True),
    Change("varlen, fuse_qkv, fp16x3", "float32", joint=True, split=True),
    Change("varlen, fuse_qkv", "bfloat16", joint=True),
    Change("varlen, graphs", "bfloat16", graphs=True, model="minilm"),
    Change("varlen, graphs", "bfloat16", graphs=True, model="small"),
    Change("compiled", "bfloat16", padded=True, compiled=True),
    Change("varlen, compiled", "bfloat16", compiled=True),
)


def run(check: Check) -> None:
    """Measure each workload as long as there is time, then what single changes do."""
    if check.has_time("tokenising", _TOKENISING_SECONDS):
        with check.part("tokenising"):
            _measure_tokenising(check)
    folders: dict[str, Path] = {}
    workloads = QUICK_WORKLOADS if check.quick else WORKLOADS
    for number, workload in enumerate(workloads):
        name = f"{workload.name}, {workload.dtype}"
        if check.has_time(name, _ROW_SECONDS):
            with check.part(name):
                if workload.model not in folders:
                    place = check.folder / workload.model
                    folders[workload.model] = make_model(place, workload.shape)
                # What is left after the single changes, in equal parts.
                left = check.seconds_left - len(CHANGES) * _ROW_SECONDS
                _measure(check, workload, folders[workload.model], left / len(workloads[number:]))
    for change in CHANGES:
        workload = _changed_by(change, check)
        name = f"{workload.name}, {workload.dtype}, {change.name}"
        if workload.model in folders and check.has_time(name, change.seconds(quick=check.quick)):
            with check.part(name):
                _measure_changed(check, workload, folders[workload.model], change)


def _changed_by(change: Change, check: Check) -> Workload:
    """Return the workload that is measured with a change."""
    if check.quick:
        return QUICK_WORKLOADS[0]
    return next(
        one
        for one in WORKLOADS
        if one.model == change.model
        and one.dtype == change.dtype
        and (one.is_goal or change.model != "base")
    )


class Prepared:
    """A workload's model, texts and systems."""

    def __init__(self, check: Check, workload: Workload, folder: Path) -> None:
        """Load the model and see how long its texts are."""
        from lcbench.encode.forward import Forward

        self.check, self.workload = check, workload
        self.model = load(folder, check.device, workload.dtype, workload.window)
        self.forward = Forward(self.model)
        unpadded = load_unpadded(folder, check.device, workload.dtype, workload.window)
        self.unpadded = Forward(unpadded)
        self._own_cudnn = _cudnn_is_on()
        self.tokens = self.forward.tokenizer_for(None).tokenize(self.texts(0))
        lengths = [one.length for one in self.tokens]
        self.read, self.squares = sum(lengths), sum(length**2 for length in lengths)

    def texts(self, number: int) -> list[str]:
        """Return the texts of a round: as long as those of every other, and different."""
        one = self.workload
        # More than a round has.
        first = number * one.tokens // 8
        return texts_of(one.window, one.tokens, mixed=one.mixed, first=first)

    @property
    def operations(self) -> float:
        """Floating-point operations of a round that its tokens need, without padding."""
        from lcbench.hub.models import Dimensions
        from lcbench.plan.fresh import operations

        shape = self.workload.shape
        dimensions = Dimensions(shape.layers, shape.hidden, self.workload.window)
        return operations(self.read**2 / self.squares, self.read, dimensions)

    def plain(self, batch: int, *, cudnn: bool = True) -> Encode:
        """Return sentence-transformers' own encoding; torch allows cuDNN's attention by itself."""

        def encode(texts: list[str]) -> object:
            with cudnn_attention(cudnn):
                return self.model.encode(texts, batch_size=batch, show_progress_bar=False)

        return encode

    def eager(self, batch: int) -> Encode:
        """Return sentence-transformers' own encoding with eager attention, as its authors have."""
        plain = self.plain(batch)

        def encode(texts: list[str]) -> object:
            with _attention(self.model, "eager"):
                return plain(texts)

        return encode

    def from_tokens(self, *, cudnn: bool | None = None, padded: bool = True) -> Encode:
        """Return lcbench's forward pass alone."""
        enabled = self._own_cudnn if cudnn is None else cudnn
        forward = self.forward if padded else self.unpadded

        def encode(_: list[str]) -> object:
            with cudnn_attention(enabled):
                return list(forward.run(self.tokens))

        return encode


def _cudnn_is_on() -> bool:
    import torch

    return bool(torch.backends.cuda.cudnn_sdp_enabled())


@contextmanager
def _attention(model: Any, implementation: str) -> Iterator[None]:
    transformer = model[0].auto_model
    before = transformer.config._attn_implementation
    transformer.set_attn_implementation(implementation)
    try:
        yield
    finally:
        transformer.set_attn_implementation(before)


def _measure(check: Check, workload: Workload, folder: Path, allowed: float) -> None:
    """Measure a workload in about so many seconds, one round at least, and add its rows."""
    end = time.monotonic() + allowed
    prepared = Prepared(check, workload, folder)
    with engine_of(prepared.forward) as engine, engine_of(prepared.unpadded) as unpadded:
        ours = System("lcbench", lambda texts: embed(engine, texts))
        tokens_only = System("lcbench from tokens", prepared.from_tokens())
        # A round's texts differ from all before it, so that the store has none of them; their
        # lengths are the same, so that only the first pass meets new shapes.
        passes = [_seconds(check, ours, prepared.texts(number)) for number in (0, 1)]
        systems = [ours, tokens_only, System("ST, batch 32", prepared.plain(_BATCH))]
        systems += [
            System("lcbench, varlen", lambda texts: embed(unpadded, texts)),
            System("lcbench from tokens, varlen", prepared.from_tokens(padded=False)),
        ]
        if workload.window <= _SHORT_WINDOW:
            systems.append(System(f"ST, batch {_LARGER_BATCH}", prepared.plain(_LARGER_BATCH)))
        if workload.model in ("base", "tiny") and workload.dtype == "float32":
            batch = _EAGER_BATCH.get(workload.window, _BATCH)
            systems.append(System("ST, eager", prepared.eager(batch)))
        if workload.is_goal or check.quick:
            systems += _variants(prepared)
        rate, seconds = _rounds(check, prepared, systems, end)
    _add_row(check, prepared, rate, passes, seconds)


def _variants(prepared: Prepared) -> list[System]:
    """Return what other settings of torch do to the forward pass."""
    if prepared.workload.dtype == "float32":

        def in_tf32(texts: list[str]) -> object:
            with fp32_precision("high"):
                return prepared.from_tokens()(texts)

        return [System("lcbench from tokens, TF32", in_tf32)]
    return [
        System("lcbench from tokens, cuDNN's attention", prepared.from_tokens(cudnn=True)),
        System("lcbench from tokens, not cuDNN's", prepared.from_tokens(cudnn=False)),
        System("ST, batch 32, not cuDNN's attention", prepared.plain(_BATCH, cudnn=False)),
    ]


def _seconds(check: Check, system: System, texts: list[str]) -> float:
    return seconds_of(lambda: system.encode(texts), check.device)


def _rounds(
    check: Check, prepared: Prepared, systems: Sequence[System], end: float
) -> tuple[float, dict[str, list[float]]]:
    """Return the rate of the matrix product, and the seconds of each system in each round.

    There is one round at least, and then as many as there is time for until `end`.
    """
    seconds: dict[str, list[float]] = {one.name: [] for one in systems}
    rates, workload = [], prepared.workload
    sizes = (1024 if check.quick else 65536, workload.shape.hidden, 4 * workload.shape.hidden)
    for number in range(_QUICK_ROUNDS if check.quick else _ROUNDS):
        began, texts = time.monotonic(), prepared.texts(2 + number)
        rates.append(product_rate(check.device, workload.dtype, sizes, quick=check.quick))
        for one in systems:
            seconds[one.name].append(_seconds(check, one, texts))
        took = time.monotonic() - began
        if time.monotonic() + took > end or check.seconds_left < 2 * took:
            break
    return statistics.median(rates), seconds


def _add_row(
    check: Check,
    prepared: Prepared,
    rate: float,
    passes: Sequence[float],
    seconds: Mapping[str, Sequence[float]],
) -> None:
    workload, read = prepared.workload, prepared.read
    name = f"{workload.name}, {workload.dtype}"
    median = {system: read / statistics.median(every) for system, every in seconds.items()}
    for system, every in seconds.items():
        spread = [read / one for one in (max(every), min(every))]
        used = prepared.operations * median[system] / read / rate
        row = [name, system, *(f"{one:,.0f}" for one in (median[system], *spread)), f"{used:.1%}"]
        check.add_row(
            "tokens a second",
            ["workload", "system", "median", "least", "most", "of the matrix product"],
            row,
        )
    check.measure(f"{name}, matrix product, TFLOP/s", rate / 1e12)
    check.measure(f"{name}, first pass, tokens/s", read / passes[0])
    check.measure(f"{name}, second pass, tokens/s", read / passes[1])
    if not check.cuda:
        # Of tiny models in moments.
        check.measure(f"{name}, requirements", NEEDS_CUDA)
        return
    best = max(median[system] for system in median if system.startswith("ST, "))
    check.require(
        median["lcbench"] > best,
        f"{name}: lcbench {median['lcbench']:,.0f} tokens/s, sentence-transformers {best:,.0f}",
    )
    if workload.is_goal:
        ours = [one for system, one in median.items() if system.startswith("lcbench from tokens")]
        used = prepared.operations * max(ours) / read / rate
        goal = _GOALS[workload.dtype]
        check.require(used >= goal, f"{name}: {used:.0%} of the matrix product, goal {goal:.0%}")


def _measure_changed(check: Check, workload: Workload, folder: Path, change: Change) -> None:
    """Measure the forward pass with other settings."""
    from lcbench.encode.forward import Forward
    from lcbench.repair.repair import Repair
    from lcbench.tempscale.policy import parse

    load_model = load if change.padded else load_unpadded
    model = load_model(folder, check.device, workload.dtype, workload.window)
    texts = texts_of(workload.window, workload.tokens, mixed=workload.mixed)
    name = f"{workload.name}, {workload.dtype}, {change.name}"

    def measure(
        name: str, tau: float = 1.0, passes: int = 3, graphs: bool = False
    ) -> tuple[dict[int, Any], int]:
        """Measure passes; for graphs, return each text's embedding and how many were repeated."""
        forward = Forward(
            model,
            compiled=change.compiled,
            joint=change.joint,
            split=change.split,
            graphs=graphs,
        )
        forward.use(Repair(parse(tau)))
        tokens = forward.tokenizer_for(None).tokenize(texts)
        read = sum(one.length for one in tokens)
        seconds = [
            seconds_of(lambda: list(forward.run(tokens)), check.device) for _ in range(passes)
        ]
        check.measure(f"{name}, seconds of the first pass", seconds[0])
        check.measure(f"{name}, tokens/s", read / min(seconds[1:]))
        found = {
            text: embedding
            for batch in (forward.run(tokens) if change.graphs else ())
            for text, embedding in zip(batch.texts, batch.embeddings, strict=True)
        }
        repetitions = forward.repetitions
        forward.close()
        return found, repetitions

    if not change.graphs:
        measure(name)
        return
    expected, _ = measure(f"{name.removesuffix(', graphs')}, τ 0.8", tau=0.8, passes=8)
    # Each of two lanes runs a size as it is, records it and proves it before it repeats it.
    got, repetitions = measure(f"{name}, τ 0.8", tau=0.8, passes=8, graphs=True)
    check.measure(f"{name}, forward passes repeated", repetitions)
    check.require(repetitions > 0, f"{name}: no forward pass was repeated")
    # Products of other numbers of rows are rounded otherwise. That a repetition is right to the
    # last place is seen when it is proven.
    difference = max(
        float(abs(got[text] - one).max() / abs(one).max()) for text, one in expected.items()
    )
    check.measure(f"{name}, largest difference of an embedding", difference)
    check.require(difference <= _ROUNDED, f"{name}: embeddings differ by {difference:.1e}")


def _measure_tokenising(check: Check) -> None:
    """Measure how fast texts become tokens, with one thread, half of the cores, and all."""
    cores = len(os.sched_getaffinity(0))
    count = _QUICK_TOKENISED if check.quick else _TOKENISED
    heading = ["threads", "sentence-transformers", "lcbench"]
    for threads in sorted({1, max(1, cores // 2), cores}):
        log = check.folder / f"tokenising-{threads}.log"
        arguments = [str(Path(__file__)), str(minilm_folder()), str(count)]
        changes = {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
        command = Command(arguments, log, environment(**changes))
        if command.wait(check.seconds_left) != 0:
            raise RuntimeError(f"tokenising in {threads} threads: {command.last_line}")
        rates = json.loads(command.last_line)
        row = [str(threads), *(f"{rates[name]:,.0f}" for name in heading[1:])]
        check.add_row("tokenising, tokens a second", heading, row)


def tokenising_rates(folder: Path, count: int) -> dict[str, float]:
    """Return how many tokens a second sentence-transformers makes of texts, and lcbench.

    Args:
        folder: of a model.
        count: tokens that are made, about.
    """
    from lcbench.encode.tokens import Tokenizer

    model = load(folder, "cpu", "float32", 512)
    tokenizer = Tokenizer(model)
    texts = texts_of(512, count, mixed=True)
    read = sum(one.length for one in tokenizer.tokenize(texts[:64])) / 64 * len(texts)

    def plainly() -> None:
        for start in range(0, len(texts), _BATCH):
            model.preprocess(texts[start : start + _BATCH])

    ways: dict[str, Callable[[], object]] = {
        "sentence-transformers": plainly,
        "lcbench": lambda: tokenizer.tokenize(texts),
    }
    rates: dict[str, float] = {}
    for name, work in ways.items():
        started = time.perf_counter()
        work()
        rates[name] = read / (time.perf_counter() - started)
    return rates


if __name__ == "__main__":
    print(json.dumps(tokenising_rates(Path(sys.argv[1]), int(sys.argv[2]))))
