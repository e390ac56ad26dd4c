"""Measure lcbench's engine against what its users would write: `make bench`.

Each round measures, one after the other and each in a process of its own:

  (a) the authors' way, from the paper's description: eager attention whose logits are divided by
      τ, a fixed batch of 512 texts or what fits into memory, a process for each τ and task;
  (b) plain mteb: one SentenceTransformer on sdpa in a loop over τ, batches of 32;
  (c) lcbench, with an empty store and an empty folder of results.

All three read the same texts, at the same window, on the CPU; mteb scores all three.

With `--against`, (c) alternates with lcbench as it is in another checkout, instead of (a) and (b).
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import bench_support as support
from bench_support import MirrorCut
from markdown_table import table

from lcbench.tasks.docs.names import DOCS_TYPES

TAUS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.1)
# Main scores of (b) and (c) are to agree to this, in [0, 1].
TOLERANCE = 1e-4
AUTHORS_BATCH = 512
# What eager attention holds at once, as tensors of logits [batch, heads, window, window] in fp32:
# the logits, the same divided, the weights, and room for the allocator.
_LOGITS_ALIVE = 4
# The same of activations as wide as the feed-forward part, [batch, window, 4 · hidden].
_ACTIVATIONS_ALIVE = 4
# The part of the free memory that a batch may take.
_MEMORY_SHARE = 0.7
_SAMPLE_SECONDS = 0.2
SYSTEMS = {
    "a": "(a) the authors' way",
    "b": "(b) plain mteb",
    "before": "(before) lcbench of the other checkout",
    "c": "(c) lcbench",
}


@dataclass(frozen=True)
class Sizes:
    """How much is encoded.

    Attributes:
        docs: overrides of the docs suite of the sweep, the role grid and encoding alone.
        repeats: overrides of the clustering set with repeated texts.
        forward: documents of 512 tokens of the forward pass alone.
        mirror: what is used of the mirror's data; None: all of it.
        taus: of the sweep, and for each role of the grid.
        measured: how many of the sweep's temperatures (a) and (b) run; their sums are estimated
            from them, since neither shares anything between temperatures.
        pairs: how many of the grid's pairs (b) runs; likewise.
        rounds: of which the medians are taken.
    """

    docs: tuple[str, ...]
    repeats: tuple[str, ...]
    forward: int
    mirror: MirrorCut | None
    taus: tuple[float, ...]
    measured: Mapping[str, int]
    pairs: int
    rounds: int


# TwentyNewsgroupsClustering has 59,545 texts, of which 5,242 are different: each 11.36 times. So
# has a clustering task of 16 sets that each draw 0.71 of all documents.
_AS_TWENTY_NEWSGROUPS = ("docs.clustering_sets=16", "docs.clustering_share=0.71")
SIZES = {
    "quick": Sizes(
        docs=(
            "docs.documents=20",
            "docs.documents_per_module=8",
            "docs.long_documents=4",
            "docs.clustering_sets=2",
            "docs.synthetic_documents=2",
        ),
        repeats=("docs.documents=16", "docs.documents_per_module=8", *_AS_TWENTY_NEWSGROUPS),
        forward=4,
        mirror=MirrorCut(labels=3, pairs=20, documents=3),
        taus=(1.0, 0.8),
        measured={"a": 1, "b": 2},
        pairs=2,
        rounds=1,
    ),
    "short": Sizes(
        docs=(
            "docs.documents=30",
            "docs.documents_per_module=8",
            "docs.long_documents=8",
            "docs.clustering_sets=3",
            "docs.synthetic_documents=2",
        ),
        repeats=("docs.documents=24", "docs.documents_per_module=8", *_AS_TWENTY_NEWSGROUPS),
        forward=64,
        mirror=MirrorCut(labels=6, pairs=60, documents=8),
        taus=TAUS,
        measured={"a": 1, "b": 1},
        pairs=2,
        rounds=3,
    ),
    "full": Sizes(
        docs=(),
        repeats=_AS_TWENTY_NEWSGROUPS,
        forward=256,
        mirror=None,
        taus=TAUS,
        measured={"a": 2, "b": 7},
        pairs=7,
        rounds=3,
    ),
}


@dataclass(frozen=True)
class Workload:
    """What is measured together.

    Attributes:
        name: on the command line.
        title: in the page.
        tasks: of mteb, or of the docs suite.
        taus: temperatures, or policies by role.
        overrides: of lcbench's config, which the tasks of all three are made from.
        measured: how many of `taus` each system runs; one that is not in it is left out.
        lcbench: overrides for (c) alone, runtime knobs, where the configs have such keys.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    taus: tuple[Any, ...]
    overrides: tuple[str, ...]
    measured: Mapping[str, int]
    lcbench: tuple[str, ...] = ()

    def some(self, system: str) -> list[Any]:
        """Return the temperatures that a system runs, evenly among all of them."""
        count, last = self.measured[system], len(self.taus) - 1
        if count == 1:
            return [self.taus[last // 2]]
        return [self.taus[round(i * last / (count - 1))] for i in range(count)]


@dataclass
class Measurement:
    """What one system did in one round, as it was measured; all times in seconds.

    Attributes:
        startup: until the model is loaded.
        total: from then on.
        load: of the total, loading data.
        encode: tokens and embeddings.
        score: mteb's.
        items: what lcbench keeps of every item.
        texts: that mteb wanted embeddings of.
        unique_texts: of them, different ones within a task and temperature.
        encoded_texts: that went through the model.
        tokens: that went through the model, without padding.
        padded_tokens: with padding.
        operations: floating-point operations that the tokens need.
        matmul_rate: operations a second of a matrix product, measured right afterwards.
        peak_gib: the most memory of the process and its children.
        batch: the largest number of texts of a batch, where that is fixed.
        scores: the main score by task and policy.
    """

    startup: float = 0.0
    total: float = 0.0
    load: float = 0.0
    encode: float = 0.0
    score: float = 0.0
    items: float = 0.0
    texts: int = 0
    unique_texts: int = 0
    encoded_texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    operations: float = 0.0
    matmul_rate: float = 0.0
    peak_gib: float = 0.0
    batch: int | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def rest(self) -> float:
        """Seconds in none of the stages; below 0 where stages ran side by side."""
        return self.total - self.load - self.encode - self.score - self.items

    @property
    def utilisation(self) -> float:
        """Useful operations of encoding as a part of the matrix product's rate, in [0, 1]."""
        return self.operations / self.encode / self.matmul_rate

    @property
    def padding(self) -> float:
        """The part of the tokens that went through the model which is padding, in [0, 1]."""
        return 1 - self.tokens / self.padded_tokens

    def times(self, factor: float) -> "Measurement":
        """Return what as many more temperatures come to: times, texts and tokens multiplied."""
        counted = ("texts", "unique_texts", "encoded_texts", "tokens", "padded_tokens")
        changed = {name: round(getattr(self, name) * factor) for name in counted}
        seconds = ("startup", "total", "load", "encode", "score", "items", "operations")
        return replace(self, **changed, **{name: getattr(self, name) * factor for name in seconds})

    def add(self, other: "Measurement") -> None:
        """Add what another process did."""
        for name in (
            *("startup", "total", "load", "encode", "score", "items", "operations"),
            *("texts", "unique_texts", "encoded_texts", "tokens", "padded_tokens"),
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for task, scores in other.scores.items():
            self.scores.setdefault(task, {}).update(scores)


@dataclass(frozen=True)
class Order:
    """What a process is told to measure.

    Attributes:
        system: `a`, `b`, `c`, or `data`, which prepares what `datasets` keeps of the tasks.
        taus: temperatures or policies by role.
        overrides: of lcbench's config; the model's and the tasks among them.
        model: the name of the model's config.
        lcbench: overrides for (c) alone.
        folder: empty, for what the process has to keep.
        began: when the process was started, by the clock.
    """

    system: str
    taus: list[Any]
    overrides: list[str]
    model: str
    lcbench: list[str]
    folder: str
    began: float


def fitting_batch(
    heads: int, hidden: int, window: int, free: int, most: int = AUTHORS_BATCH
) -> int:
    """Return the largest of most, most / 2, most / 4 … texts that eager attention has memory for.

    Found by estimation: a process that asks for too much is ended by the system, not told.

    Args:
        heads: of a layer.
        hidden: its width.
        window: tokens of the longest text.
        free: bytes.
        most: texts.
    """
    a_text = 4 * (_LOGITS_ALIVE * heads * window**2 + _ACTIVATIONS_ALIVE * window * 4 * hidden)
    batch = most
    while batch > 1 and batch * a_text > _MEMORY_SHARE * free:
        batch //= 2
    return batch


def free_memory() -> int:
    """Return the bytes of memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo does not say what is available.")


class Meter:
    """Counts what a SentenceTransformer encodes for mteb, and how long that takes."""

    def __init__(self, model: Any, tasks: Sequence[Any]) -> None:
        self.texts = self.encoded = self.unique = self.tokens = self.padded = self.squares = 0
        self.encode = self.load = 0.0
        self._seen: set[str] = set()
        self._within = False
        model.encode = self._counted(model.encode)
        # Not on the transformer within it, whose `forward` is called past its hooks.
        model[0].register_forward_pre_hook(self._read)
        for task in tasks:
            task.load_data = self._timed(task.load_data)

    def _timed(self, load_data: Callable[..., Any]) -> Callable[..., Any]:
        def loading(*args: Any, **options: Any) -> None:
            started = time.perf_counter()
            load_data(*args, **options)
            self.load += time.perf_counter() - started
            # A task begins: texts that it shares with the last one count again.
            self._seen.clear()

        return loading

    def _counted(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def encoding(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            embeddings = encode(*arguments, **options)
            self.encode += time.perf_counter() - started
            # mteb hands texts in by place, sentence-transformers' own encode_query by name.
            texts = list(arguments[0] if arguments else options["inputs"])
            self.texts += len(texts)
            self.unique += len(set(texts) - self._seen)
            self._seen.update(texts)
            return embeddings

        return encoding

    def _read(self, module: Any, arguments: tuple[Any, ...]) -> None:
        mask = arguments[0]["attention_mask"]
        lengths = mask.sum(dim=-1)
        self.encoded += len(mask)
        self.tokens += int(lengths.sum())
        self.squares += int((lengths**2).sum())
        self.padded += mask.numel()


def register_authors_attention() -> None:
    """Register the attention of the paper's authors: softmax((QKᵀ/√d + mask)/τ), eagerly.

    A layer's τ is its attribute `authors_tau`.
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    def attention(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        scaling: float | None = None,
        **_: Any,
    ) -> tuple[Any, Any]:
        logits = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
        if attention_mask is not None:
            logits = logits + attention_mask
        logits = logits / module.authors_tau
        weights = torch.softmax(logits, dim=-1)
        return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights

    AttentionInterface.register("authors", attention)
    AttentionMaskInterface.register("authors", eager_mask)


def authors_model(folder: Path, window: int, tau: float) -> Any:
    """Load a model as the paper's authors run it.

    Args:
        folder: of the model.
        window: the most tokens that it reads of a text.
        tau: the temperature of all layers.
    """
    from sentence_transformers import SentenceTransformer

    register_authors_attention()
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = window
    transformer: Any = model[0].auto_model
    transformer.set_attn_implementation("authors")
    for module in transformer.modules():
        module.authors_tau = tau
    return model


def measure_authors(order: Order) -> Measurement:
    """Measure (a): a process for each τ and task, forked off before anything is computed."""
    preload()
    imported = time.time() - order.began
    settings = support.read(order.overrides, order.model)
    sum_ = Measurement(startup=imported)
    fork = multiprocessing.get_context("fork")
    for tau in order.taus:
        for choice in settings.tasks:
            path = Path(order.folder, f"{choice.name}-{tau}.json")
            process = fork.Process(target=_authors_cell, args=(order, tau, choice.name, path))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise RuntimeError(f"(a) {choice.name} at τ = {tau}: status {process.exitcode}")
            one = Measurement(**json.loads(path.read_text(encoding="utf-8")))
            sum_.add(one)
            sum_.batch = one.batch
    return sum_


def _authors_cell(order: Order, tau: float, task: str, path: Path) -> None:
    path.write_text(json.dumps(asdict(authors_cell(order, tau, task))), encoding="utf-8")


def authors_cell(order: Order, tau: float, name: str) -> Measurement:
    """Measure (a) for one τ and task, in this process."""
    from lcbench.tempscale.policy import parse

    began = time.perf_counter()
    located, tasks = _located_and_tasks(order)
    task = next(one for one in tasks if one.metadata.name == name)
    window = located.shape.window
    model = authors_model(located.folder, window, tau)
    config: Any = model[0].auto_model.config
    batch = fitting_batch(config.num_attention_heads, config.hidden_size, window, free_memory())
    meter = Meter(model, [task])
    started = time.perf_counter()
    result = _evaluate(model, [task], batch)
    total = time.perf_counter() - started
    policy = parse(tau).canonical
    measurement = _metered(meter, order, total, {name: {policy: result[name]}})
    measurement.startup = started - began
    measurement.batch = batch
    return measurement


def measure_plain(order: Order) -> Measurement:
    """Measure (b): one SentenceTransformer, mteb in a loop over τ, in this process."""
    from sentence_transformers import SentenceTransformer

    import lcbench
    from lcbench.tempscale.policy import parse

    # For each τ tasks of its own: some of mteb's cannot be loaded again once they were unloaded.
    made = [_located_and_tasks(order) for _ in order.taus]
    located = made[0][0]
    model = SentenceTransformer(
        str(located.folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"attn_implementation": "sdpa"},
    )
    model.max_seq_length = located.shape.window
    meter = Meter(model, [task for _, tasks in made for task in tasks])
    startup = time.time() - order.began
    scores: dict[str, dict[str, float]] = {}
    started = time.perf_counter()
    for tau, (_, tasks) in zip(order.taus, made, strict=True):
        with lcbench.inject(model, tau) as injection:
            _follow_roles(model, injection)
            for task, score in _evaluate(model, tasks, batch=None).items():
                scores.setdefault(task, {})[parse(tau).canonical] = score
    measurement = _metered(meter, order, time.perf_counter() - started, scores)
    measurement.startup = startup
    return measurement


def _follow_roles(model: Any, injection: Any) -> None:
    """Tell an injection whose texts mteb encodes: it asks the model for queries and documents."""
    encode_query, encode_document = type(model).encode_query, type(model).encode_document

    def queries(*args: Any, **options: Any) -> Any:
        injection.role = "query"
        return encode_query(model, *args, **options)

    def documents(*args: Any, **options: Any) -> Any:
        injection.role = "document"
        return encode_document(model, *args, **options)

    model.encode_query, model.encode_document = queries, documents


def _located_and_tasks(order: Order) -> tuple[Any, list[Any]]:
    """Return the model's place and the tasks, made and pointed at their data as lcbench does it."""
    from lcbench.hub.datasets import point_at
    from lcbench.hub.models import locate
    from lcbench.system.quiet import quiet_libraries
    from lcbench.tasks.suites import resolve_all

    settings = support.read(order.overrides, order.model)
    located = locate(settings.models[0], offline=True, mirror=settings.mirror)
    quiet_libraries()
    parts = resolve_all(
        settings.tasks, settings.protocol.splits, settings.protocol.subsets, settings.sources
    )
    tasks = []
    for part in parts.values():
        task = part.source.at(located.shape.window).make(part)
        if part.source.origin is None:
            point_at(task, settings.mirror)
        tasks.append(task)
    return located, tasks


def _evaluate(model: Any, tasks: list[Any], batch: int | None) -> dict[str, float]:
    """Return the main score of each task, the mean of its subsets; mteb's own batch for None."""
    import mteb
    from mteb.types import EncodeKwargs

    options: EncodeKwargs = {"show_progress_bar": False}
    if batch is not None:
        options["batch_size"] = batch
    outcome = mteb.evaluate(
        model,
        tasks,
        co2_tracker=False,
        cache=None,
        show_progress_bar=False,
        encode_kwargs=options,
    )
    return {
        result.task_name: statistics.mean(
            entry["main_score"] for entries in result.scores.values() for entry in entries
        )
        for result in outcome.task_results
    }


def _metered(
    meter: Meter, order: Order, total: float, scores: dict[str, dict[str, float]]
) -> Measurement:
    from lcbench.plan.fresh import operations

    shape = _shape(support.read(order.overrides, order.model))
    return Measurement(
        total=total,
        load=meter.load,
        encode=meter.encode,
        score=total - meter.load - meter.encode,
        texts=meter.texts,
        unique_texts=meter.unique,
        encoded_texts=meter.encoded,
        tokens=meter.tokens,
        padded_tokens=meter.padded,
        operations=operations(meter.tokens**2 / max(1, meter.squares), meter.tokens, shape),
        scores=scores,
    )


def measure_lcbench(order: Order) -> Measurement:
    """Measure (c) in this process: start-up is all that comes before the first cell begins."""
    preload()
    from lcbench.api.evaluate import carry_out
    from lcbench.cli.console import ConsoleObserver

    overrides = [
        *order.overrides,
        f"results_dir={order.folder}/results",
        *support.known(["store=disk", f"store.folder={order.folder}/store", *order.lcbench]),
    ]
    written = [json.dumps(tau).replace('"', "") for tau in order.taus]
    settings = support.read([*overrides, f"tau=[{','.join(written)}]"], order.model)
    startup = time.time() - order.began
    started = time.perf_counter()
    with _noting_the_first_cell() as begun:
        outcome = carry_out(settings, ConsoleObserver(_silent_console()))
    ended = time.perf_counter()
    if outcome.failed or outcome.refused:
        raise RuntimeError(f"(c): {outcome.failed or outcome.refused}")
    measurement = _from_results(settings, outcome.cells)
    measurement.total = ended - begun[0]
    measurement.startup = startup + begun[0] - started
    return measurement


def _silent_console() -> Any:
    from rich.console import Console

    # A file of its own: what a console is told is written, as it would be for a user.
    return Console(file=Path(os.devnull).open("w", encoding="utf-8"), width=110)


@contextmanager
def _noting_the_first_cell() -> Iterator[list[float]]:
    """Put the time at which the first cell begins into a list."""
    from lcbench.results.cell import Cell
    from lcbench.run.progress import Progress

    original = Progress.start
    begun: list[float] = []

    def start(self: Progress, cell: Cell) -> None:
        if not begun:
            begun.append(time.perf_counter())
        original(self, cell)

    Progress.start = start  # type: ignore[method-assign]
    try:
        yield begun
    finally:
        Progress.start = original  # type: ignore[method-assign]


def _shape(settings: Any) -> Any:
    """Return the dimensions of a request's model."""
    from lcbench.hub.models import dimensions

    shape = dimensions(settings.models[0])
    if shape is None:
        raise RuntimeError(f"{settings.models[0].name}: its layers and their width are not known.")
    return shape


def _from_results(settings: Any, cells: Sequence[Any]) -> Measurement:
    """Return what the provenance of a run's cells says, and their scores."""
    from lcbench.results.content import read_result
    from lcbench.results.folder import Results

    results = Results(settings.results_dir)
    shape = _shape(settings)
    sum_ = Measurement()
    for cell in cells:
        record = results.provenance(cell)
        tokens, texts = record["encoded_tokens"], record["encoded_texts"]
        content = read_result(results.files(cell)) or {"scores": {}}
        scores = [one["main_score"] for entries in content["scores"].values() for one in entries]
        sum_.add(
            Measurement(
                load=record["seconds_load"],
                encode=record["seconds_encode"],
                score=record["seconds_score"],
                items=record["seconds_items"],
                texts=record["texts"],
                unique_texts=record["unique_texts"],
                encoded_texts=texts,
                tokens=tokens,
                padded_tokens=record["padded_tokens"],
                operations=_operations(results.files(cell), record, shape),
                scores={cell.task: {cell.repair.canonical: statistics.mean(scores)}},
            )
        )
    return sum_


def _operations(files: Any, record: Mapping[str, Any], shape: Any) -> float:
    """Return the floating-point operations of what a cell had encoded."""
    from lcbench.plan.fresh import operations

    tokens = record["encoded_tokens"]
    return operations(tokens / _mean_length(files, record), tokens, shape) if tokens else 0.0


def _mean_length(files: Any, record: Mapping[str, Any]) -> float:
    """Return the mean over a cell's encoded tokens (there are some) of their text's length.

    From its items where these are all that was encoded, as in a retrieval; else the mean over its
    texts, which is less: attention costs at least that.
    """
    import pyarrow.parquet as pq

    tokens: int = record["encoded_tokens"]
    if files.items.is_file():
        rows = pq.read_table(files.items, columns=["tokens", "relevant"]).to_pylist()
        lengths: list[int] = [row["tokens"] for row in rows]
        lengths += [document["tokens"] for row in rows for document in row["relevant"] or ()]
        if sum(lengths) == tokens > 0:
            return sum(length**2 for length in lengths) / tokens
    texts: int = record["encoded_texts"]
    return tokens / max(1, texts)


def prepare_data(order: Order) -> Measurement:
    """Load every task once, so that what `datasets` and the docstrings keep is there for all."""
    for task in _located_and_tasks(order)[1]:
        task.load_data()
    return Measurement()


def preload() -> None:
    """Import what an evaluation needs."""
    import mteb
    import sentence_transformers
    import sklearn.cluster
    import sklearn.linear_model
    import torch  # noqa: F401

    import lcbench.run.sweep
    import lcbench.score.evaluate
    import lcbench.tempscale.inject

    _ = (mteb, sentence_transformers, sklearn, lcbench)


MEASURE: Mapping[str, Callable[[Order], Measurement]] = {
    "a": measure_authors,
    "b": measure_plain,
    "c": measure_lcbench,
    "data": prepare_data,
}


def work(order: Order) -> Measurement:
    """Measure what an order says, and this machine's matrix product right afterwards."""
    from lcbench.plan.machine import matmul_rate

    measurement = MEASURE[order.system](order)
    shape = _shape(support.read(order.overrides, order.model))
    measurement.matmul_rate = matmul_rate.__wrapped__("cpu", "float32", shape.hidden)
    return measurement


class Bench:
    """Starts the processes that measure, and watches their memory."""

    def __init__(
        self,
        folder: Path,
        model: str,
        window: int,
        mirror: Path | None,
        lcbench: Sequence[str],
        against: Path | None = None,
    ) -> None:
        self._folder = folder
        self._against = against
        self._model = model
        self._base = [
            *support.model_overrides(model, window),
            "engine.device=cpu",
            "offline=true",
            "subsets=[en]",
            # What is cut is no longer the dataset that it was.
            *([] if mirror is None else [f"mirror={mirror}", "unverified_data=true"]),
        ]
        self._lcbench = list(lcbench)
        self._count = 0
        names = [one for one in self._base if one.startswith("model=")]
        self._config = names[0].partition("=")[2]

    def order(self, system: str, workload: Workload) -> Order:
        """Return what a process is told."""
        self._count += 1
        folder = self._folder / f"{self._count:03}-{workload.name}-{system}"
        folder.mkdir()
        overrides = [*self._base, f"tasks=[{','.join(workload.tasks)}]", *workload.overrides]
        taus = [] if system == "data" else workload.some(system)
        own = [*workload.lcbench, *self._lcbench]
        told = "c" if system == "before" else system
        return Order(told, taus, overrides, self._config, own, str(folder), time.time())

    def measure(self, system: str, workload: Workload) -> Measurement:
        """Measure one system in a process of its own.

        Raises:
            RuntimeError: it failed; the message has the end of what it said.
        """
        order = self.order(system, workload)
        folder = Path(order.folder)
        (folder / "order.json").write_text(json.dumps(asdict(order)), encoding="utf-8")
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "true",
            # `datasets` tells folders of one name and layout apart by neither place nor content.
            "HF_DATASETS_CACHE": str(self._folder / "datasets"),
        }
        script = Path(__file__)
        if system == "before":
            if self._against is None:
                raise ValueError("no other checkout was named")
            script = self._against / "scripts" / script.name
            environment["PYTHONPATH"] = str(self._against / "src")
        with (folder / "log").open("w", encoding="utf-8") as log:
            # This script, or that of the other checkout, with a file of its own making.
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, str(script), "--order", str(folder / "order.json")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            peak = 0
            while process.poll() is None:
                peak = max(peak, memory_of(process.pid))
                time.sleep(_SAMPLE_SECONDS)
        if process.returncode != 0:
            said = (folder / "log").read_text(encoding="utf-8")[-3000:]
            raise RuntimeError(f"{system} of {workload.name}: {process.returncode}\n{said}")
        read = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))
        return replace(Measurement(**read), peak_gib=peak / 2**30)


def memory_of(pid: int) -> int:
    """Return the bytes of memory of a process and its children, what they share counted once.

    0 where Linux's /proc is not there.
    """
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may have blanks: the state and the parent's id.
            parent = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    waiting, found = [pid], 0
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        found += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return found


def workloads(sizes: Sizes, public: tuple[str, ...]) -> list[Workload]:
    """Return what is measured.

    Args:
        sizes: how much.
        public: tasks in addition to the docs suite's.
    """
    retrieval = tuple(
        task for task, kind in DOCS_TYPES.items() if kind in ("Retrieval", "Reranking")
    )
    clusterings = tuple(task for task, kind in DOCS_TYPES.items() if kind == "Clustering")
    grid = tuple({"query": q, "document": d} for q in sizes.taus for d in sizes.taus)
    count = len(sizes.taus)
    return [
        Workload(
            "sweep",
            f"A sweep of {count} τ over the docs suite"
            + (" and the mirror's tasks" if public else ""),
            support.DOCS + public,
            sizes.taus,
            sizes.docs,
            {**sizes.measured, "c": count},
        ),
        Workload(
            "roles",
            f"A role grid of {count} × {count} τ on the docs suite's retrieval tasks",
            retrieval,
            grid,
            sizes.docs,
            {"b": sizes.pairs, "c": len(grid)},
        ),
        Workload(
            "repeats",
            "Clusterings with repeated texts, as TwentyNewsgroupsClustering repeats them",
            clusterings,
            (1.0,),
            sizes.repeats,
            {"b": 1, "c": 1},
        ),
        Workload(
            "encode",
            "Encoding alone: the docs suite at one τ",
            support.DOCS,
            (1.0,),
            sizes.docs,
            {"a": 1, "c": 1},
            # Beside the encoder nothing else is to run.
            ("engine.scoring=0",),
        ),
        Workload(
            "forward",
            "The forward pass alone: documents of more than 512 words, and their queries",
            ("DocstringLongRetrieval",),
            (1.0,),
            (f"docs.long_documents={sizes.forward}",),
            {"c": 1},
            ("engine.scoring=0",),
        ),
    ]


Rounds = dict[str, list[Measurement]]


def run_rounds(
    bench: Bench, chosen: Sequence[Workload], rounds: int, say: Callable[[str], None]
) -> dict[str, Rounds]:
    """Measure all systems of all workloads in turn, as often as there are rounds.

    Returns:
        Measurements by workload and system, estimated for all temperatures where fewer were run.
    """
    for workload in chosen:
        bench.measure("data", workload)
    found: dict[str, Rounds] = {workload.name: {} for workload in chosen}
    for number in range(1, rounds + 1):
        for workload in chosen:
            for system in workload.measured:
                one = bench.measure(system, workload)
                say(
                    f"round {number}, {workload.name}, {SYSTEMS[system]}: {one.total:.1f} s after "
                    f"{one.startup:.1f} s of start-up"
                )
                whole = one.times(len(workload.taus) / workload.measured[system])
                found[workload.name].setdefault(system, []).append(whole)
    return found


def difference(measured: Rounds) -> dict[str, float]:
    """Return the largest difference of the main scores from those of (c), by task, in [0, 1].

    They are those of (b), or of the other checkout.

    Raises:
        ValueError: there is nothing to compare.
    """
    found: dict[str, float] = {}
    for plain, ours in zip(measured[_compared(measured)], measured["c"], strict=True):
        for task, scores in plain.scores.items():
            for policy, score in scores.items():
                far = abs(score - ours.scores[task][policy])
                # Not a number is no agreement.
                found[task] = max(found.get(task, 0.0), math.inf if math.isnan(far) else far)
    if not found:
        raise ValueError(f"({_compared(measured)}) has no scores.")
    return found


def _compared(measured: Rounds) -> str:
    """Return the system whose scores are compared with those of (c)."""
    return "before" if "before" in measured else "b"


def ratio(measured: Rounds, slow: str, what: str) -> float:
    """Return how many times as long a system takes as lcbench: the median over the rounds.

    Args:
        measured: the rounds of a workload.
        slow: the other system.
        what: `total` or `encode`.
    """
    pairs = zip(measured[slow], measured["c"], strict=True)
    ratios: list[float] = [getattr(one, what) / getattr(ours, what) for one, ours in pairs]
    return statistics.median(ratios)


# What a table of a workload shows: a heading, and a measurement in words.
_ROWS: tuple[tuple[str, Callable[[Measurement], float], str], ...] = (
    ("useful tokens/s, encoding", lambda one: one.tokens / one.encode, ",.0f"),
    ("share of the matrix product's rate", lambda one: one.utilisation, ".1%"),
    ("padding waste", lambda one: one.padding, ".1%"),
    ("texts", lambda one: one.texts, ",.0f"),
    ("different texts of each task and τ", lambda one: one.unique_texts, ",.0f"),
    ("encoded texts", lambda one: one.encoded_texts, ",.0f"),
    ("load data, s", lambda one: one.load, ".2f"),
    ("encode, s", lambda one: one.encode, ".2f"),
    ("score, s", lambda one: one.score, ".2f"),
    ("items, s", lambda one: one.items, ".2f"),
    ("rest, s", lambda one: one.rest, ".2f"),
    ("total, s", lambda one: one.total, ".2f"),
    ("start-up, s, in none of these", lambda one: one.startup, ".2f"),
    ("peak memory, GiB", lambda one: one.peak_gib, ".2f"),
)


def page(
    chosen: Sequence[Workload], found: Mapping[str, Rounds], rounds: int, notes: Sequence[str]
) -> list[str]:
    """Return the lines of the page.

    Shares are of one rate, the median of all: a single one depends on what other tenants of the
    machine do in that second, and would make the slower of two systems look better used.
    """
    rates = [
        one.matmul_rate for rounds_ in found.values() for every in rounds_.values() for one in every
    ]
    rate = statistics.median(rates)
    found = {
        name: {
            system: [replace(one, matmul_rate=rate) for one in every]
            for system, every in measured.items()
        }
        for name, measured in found.items()
    }
    lines = ["# The engine against what its users would write", "", support.machine(), *notes, ""]
    lines += [
        f"Medians of {rounds} rounds, in which the systems alternate, each in a process of its",
        f"own. The matrix product [4096, hidden] × [hidden, 4 · hidden] in fp32 ran at "
        f"{rate / 1e9:,.0f} GFLOP/s",
        f"({min(rates) / 1e9:,.0f} to {max(rates) / 1e9:,.0f}), measured after each of them;",
        "shares are of the median. The",
        "operations of (c) are estimated from the mean length of a task's texts where its items do",
        "not say every text's, which makes its share a lower bound; those of (a) and (b) exactly.",
        "Rest is what no stage took; it is negative where stages ran side by side. Ratios",
        "are medians of those of each round.",
    ]
    for workload in chosen:
        lines += ["", *_section(workload, found[workload.name])]
    return lines


def _section(workload: Workload, measured: Rounds) -> list[str]:
    systems = list(measured)
    rows = [
        [heading, *(format(statistics.median(map(value, measured[s])), form) for s in systems)]
        for heading, value, form in _ROWS
    ]
    lines = [f"## {workload.title}", ""]
    lines += [f"Tasks: {', '.join(workload.tasks)}."]
    lines += [f"Sizes: {' '.join(workload.overrides) or 'those that are shipped'}."]
    for system in systems:
        batch = measured[system][0].batch
        if batch is not None and batch != AUTHORS_BATCH:
            lines.append(
                f"{SYSTEMS[system]}: batches of {batch}; {AUTHORS_BATCH} do not fit into memory."
            )
        some, every = workload.measured[system], len(workload.taus)
        if some < every:
            lines.append(
                f"{SYSTEMS[system]} is measured at {some} of {every} temperatures or pairs and "
                "estimated for all; it shares nothing between them."
            )
    lines += ["", *table(["", *(SYSTEMS[s] for s in systems)], rows)]
    ratios = [
        f"({system}) / (c): encoding {ratio(measured, system, 'encode'):.2f} ×, "
        f"total {ratio(measured, system, 'total'):.2f} ×"
        for system in systems
        if system != "c"
    ]
    if ratios:
        lines += ["", *(f"- time of {one}" for one in ratios)]
    compared = _compared(measured)
    if compared in measured:
        differences = [[task, f"{far:.1e}"] for task, far in difference(measured).items()]
        lines += ["", *table(["main score", f"largest ({compared}) − (c)"], differences)]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit status: 1 if (c) scores differently."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", choices=list(SIZES), default="short", help="how much")
    parser.add_argument("--quick", action="store_const", const="quick", dest="sizes")
    parser.add_argument("--rounds", type=int, help="instead of the sizes' own number")
    parser.add_argument("--only", nargs="+", metavar="WORKLOAD", help="sweep roles repeats …")
    parser.add_argument("--model", default="minilm", help="a config of conf/model, or a folder")
    parser.add_argument("--window", type=int, default=512, help="tokens read of a text")
    parser.add_argument("--mirror", type=Path, help="a folder with the public tasks' data")
    parser.add_argument("--lcbench", nargs="+", default=[], metavar="KEY=VALUE", help="for (c)")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout to compare with")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there too")
    parser.add_argument("--order", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.order is not None:
        order = Order(**json.loads(asked.order.read_text(encoding="utf-8")))
        measurement = asdict(work(order))
        Path(order.folder, "measurement.json").write_text(json.dumps(measurement), encoding="utf-8")
        return 0
    sizes = SIZES[asked.sizes]
    public = support.in_mirror(asked.mirror)
    mirror = asked.mirror if public else None
    chosen = workloads(sizes, public)
    if unknown := set(asked.only or ()) - {one.name for one in chosen}:
        parser.error(f"--only {' '.join(unknown)}: there are {', '.join(w.name for w in chosen)}")
    chosen = [one for one in chosen if asked.only is None or one.name in asked.only]
    if asked.against is not None:
        if not (asked.against / "scripts" / Path(__file__).name).is_file():
            parser.error(f"--against {asked.against}: there is no checkout of lcbench.")
        chosen = [
            replace(one, measured={"before": one.measured["c"], "c": one.measured["c"]})
            for one in chosen
        ]
    notes = [f"Model {asked.model}, window {asked.window}, fp32. Sizes: {asked.sizes}."]
    notes.append(_about_mirror(asked.mirror, public, sizes.mirror))
    rounds = asked.rounds or sizes.rounds
    with tempfile.TemporaryDirectory(prefix="lcbench-bench-") as name:
        folder = Path(name)
        data = (
            None if mirror is None else support.cut_mirror(mirror, folder / "mirror", sizes.mirror)
        )
        against = None if asked.against is None else asked.against.resolve()
        bench = Bench(folder, asked.model, asked.window, data, asked.lcbench, against)
        found = run_rounds(bench, chosen, rounds, lambda line: print(line, flush=True))
    lines = page(chosen, found, rounds, notes)
    print()
    print("\n".join(lines))
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    apart = [
        f"{workload}: {task} differs by {far:.1e}"
        for workload, measured in found.items()
        if _compared(measured) in measured
        for task, far in difference(measured).items()
        if far > TOLERANCE
    ]
    for line in apart:
        print(f"scores differ: {line}", file=sys.stderr)
    return 1 if apart else 0


def _about_mirror(asked: Path | None, public: Sequence[str], cut: MirrorCut | None) -> str:
    lacking = [task for task in support.MIRROR if task not in public]
    if lacking:
        why = "no mirror was named" if asked is None else f"{asked} has no plain folder of them"
        left = f"Left out, since {why}: {', '.join(lacking)}."
        if not public:
            return left
    else:
        left = ""
    if cut is None:
        return f"The mirror's tasks are used whole. {left}".rstrip()
    return (
        f"Of the mirror's tasks: {cut.labels} labels of a classification, {cut.pairs} pairs of "
        f"sentences, {cut.documents} documents. {left}"
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
