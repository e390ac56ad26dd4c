"""What a run takes: predicted from rates measured on this machine, and these rates, kept.

A run's records (`Recorder`) become rates in a file of the cache folder; `predict` makes of them how
long the cells that are left will take. Where nothing was measured yet, the machine's matrix product
and the sizes of the tasks stand in.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lcbench.arithmetic import products_in, weights_dtype
from lcbench.cards import Assumed
from lcbench.errors import StorageError
from lcbench.files import cache_folder, write_atomically
from lcbench.grid import Cell
from lcbench.models import Dimensions
from lcbench.provenance import cores, cpu_name
from lcbench.settings import EngineSettings, Settings
from lcbench.tasks.registry import registry
from lcbench.tasks.sizes import Texts, texts_of
from lcbench.tasks.suites import DOCS_TYPES, Part

# Of English, with MiniLM's tokenizer (the vocabulary of bge, gist and e5 too): 4.0 in QMSum's
# meetings, 4.2 in Banking77, 4.4 in STSBenchmark, 4.7 in MassiveIntent, 4.8 in Emotion. Docstrings,
# which are half code, have 3.2; other languages fewer too: German 2.6, Turkish 2.2, Russian 1.3
# (the messages of a program).
CHARACTERS_PER_TOKEN = 4.3
_SPECIAL_TOKENS = 2
# The part of the matrix product's rate that encoding comes to on a CPU: MiniLM reads 5,200 tokens/s
# of 512-token texts at best and 4,650 at large batches, where 167 GFLOP/s would allow 6,400.
# It hardly depends on the length of texts, so that one rate does for all: on two cores, 119 to 137
# GFLOP/s for Massive's 9 tokens, 13 of STS13, 16 of Banking77, 22 of Emotion and QMSum's 104.
_EFFICIENCY = 0.77
# Rows of the matrices that are multiplied, as many as a batch has tokens, and seconds for each.
_ROWS = {"cpu": 4096, "cuda": 65536}
_MEASURED_SECONDS = 0.5

# Seconds of scoring where a task was never scored here, by what mteb does for its type; measured on
# one core with embeddings of 384 dimensions.
# A row of the train split, for each sample: its label is looked up (Emotion: 16,000 rows and 20
# draws, 0.93 s).
_PER_DRAWN_ROW = 3.0e-6
# A label of a logistic regression: 0.046 s for 6 labels, 0.60 for 60, 0.47 for 77.
_PER_FITTED_LABEL = 7.0e-3
# A text of a clustering: 0.65 s for 2,720 in ten sets, 0.5 s for one set of 20,000 and 25 labels.
_PER_CLUSTERED_TEXT = 1.5e-4
# A query: 1.74 s for QMSum's 1,527; and its product with each document, and the best of these.
_PER_QUERY = 1.1e-3
_PER_PAIR = 2.0e-8
# A text of anything else, such as a pair of sentences: 0.09 s for STSBenchmark's 2,758.
_PER_TEXT = 3.3e-5
# A character that is loaded: 0.16 s for QMSum's eleven million.
_PER_LOADED_CHARACTER = 1.5e-8
# From the prediction to the first cell: the rest of the imports, and loading MiniLM; 8.2 and 8.5 s
# on two busy cores.
_START_UP = 8.0

# Raise it when the content of the file changes, so that older files are not read.
_FORMAT = 1
# Entries of each table of the file: some hundred kilobytes at most.
_MOST = 4096
# How much work it takes until an earlier measurement counts for 1/e: seconds of encoding, cells of
# a task, runs.
_MEMORY_SECONDS = 600.0
_MEMORY_CELLS = 8.0
_MEMORY_RUNS = 4.0
# Seconds of work below which a run says nothing of how encoding and scoring go together.
_LEAST_WORK = 10.0
# Device files without which torch finds no GPU: NVIDIA's, those of WSL, and AMD's.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True)
class Machine:
    """The machine that a run is on.

    Attributes:
        name: of its processor or its GPU.
        device: that a run uses.
        cores: that this process may use.
        dtype: of the weights.
    """

    name: str
    device: str
    cores: int
    dtype: str

    @property
    def kind(self) -> str:
        """`cpu`, `cuda` …, whichever of several it is."""
        return self.device.partition(":")[0]

    @property
    def key(self) -> str:
        """What rates belong to."""
        return f"{self.name}|{self.cores} cores|{self.kind}|{self.dtype}"

    @property
    def efficiency(self) -> float | None:
        """The part of the matrix product's rate that encoding comes to; None: never measured."""
        return _EFFICIENCY if self.kind == "cpu" else None

    def __str__(self) -> str:
        """Return it in words."""
        if self.kind == "cpu":
            return f"{self.cores} core{'' if self.cores == 1 else 's'}"
        return self.name


def machine_of(engine: EngineSettings, dtype: str) -> Machine:
    """Return the machine that a run is on; imports torch only where there may be a GPU.

    Raises:
        RequestError: torch does not find the device here.
    """
    device = engine.device
    if device == "auto" and not any(Path(one).exists() for one in _GPU_FILES):
        # Apple's GPU is used only where it is asked for.
        device = "cpu"
    if device != "cpu":
        from lcbench.runtime import device_of

        device = device_of(engine)
    name = cpu_name() or device
    if device.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name(device)
    return Machine(name, device, _cores(), dtype)


def _cores() -> int:
    """Return how many cores this process may use: what torch takes unless it is told otherwise."""
    count = cores()
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(told)) if told.isdigit() and int(told) else count


@dataclass
class Rates:
    """What was measured, as sums in which earlier runs count for less and less.

    Each entry begins with the weight of what follows it.

    Attributes:
        encoding: by machine and width of the model: seconds of encoding, and the floating-point
            operations of what was encoded.
        texts: by model, window and origin of texts: how many tokens were reckoned; how many texts
            were; and how many texts and tokens it came to.
        scoring: by task, protocol and width: cells; their seconds of loading, of scoring, and of
            collecting items. Of whichever machine shares the cache folder: another processor's
            seconds are nearer than what a task's size suggests.
        starts: by machine: runs; their seconds before the first cell.
        overlaps: by machine and number of scoring processes: what `work_seconds` makes of the
            measured seconds of encoding and scoring; how long it took.
    """

    encoding: dict[str, list[float]] = field(default_factory=dict)
    texts: dict[str, list[float]] = field(default_factory=dict)
    scoring: dict[str, list[float]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    overlaps: dict[str, list[float]] = field(default_factory=dict)


# How many numbers an entry of each table has, and how many of the first of them are divided by.
_LENGTHS = {
    "encoding": (2, 2),
    "texts": (4, 2),
    "scoring": (4, 1),
    "starts": (2, 1),
    "overlaps": (2, 1),
}


def rates_file() -> Path:
    """Return where measured rates are kept."""
    return cache_folder() / "rates.json"


def read_rates() -> Rates:
    """Return what was measured on this machine; what is not there, or cannot be read, is unknown.

    Never raises: a prediction is no reason to stop.
    """
    try:
        content = json.loads(rates_file().read_text(encoding="utf-8"))
    # No file, no JSON, JSON that is nested too deep, or no home folder.
    except (OSError, ValueError, RecursionError, RuntimeError):
        return Rates()
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return Rates()
    tables = {}
    for table, (length, divisors) in _LENGTHS.items():
        entries = content.get(table)
        tables[table] = {
            key: [float(number) for number in entry]
            for key, entry in (entries.items() if isinstance(entries, dict) else ())
            if isinstance(entry, list)
            and len(entry) == length
            and all(_is_amount(number) for number in entry)
            and min(entry[:divisors]) > 0
        }
    return Rates(**tables)


def _is_amount(number: Any) -> bool:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and 0 <= number < 1e30


def _add(table: dict[str, list[float]], key: str, measured: Sequence[float], memory: float) -> None:
    """Add a measurement to an entry: e^(-weight/memory) of what was there remains.

    So the mean of an entry is exponentially weighted over runs, and the more work was measured the
    less of the earlier ones remains. The entry becomes the last; the first are dropped beyond
    `_MOST`.
    """
    if measured[0] <= 0 or not all(_is_amount(number) for number in measured):
        return
    before = table.pop(key, [0.0] * len(measured))
    remains = math.exp(-measured[0] / memory) if memory else 0.0
    table[key] = [remains * old + new for old, new in zip(before, measured, strict=True)]
    while len(table) > _MOST:
        del table[next(iter(table))]


@dataclass(frozen=True)
class ModelCells:
    """The cells that are left of one model.

    Attributes:
        known: the model's dimensions; None: not known.
        cells: in the order in which they are run; may be none.
    """

    known: Dimensions | None
    cells: Sequence[Cell]


@dataclass(frozen=True)
class FreshTexts:
    """Texts of one origin that a cell is the first to encode.

    Attributes:
        key: in `Rates.texts`.
        texts: reckoned from mteb's statistics.
        tokens: reckoned from their characters.
        measured_texts: what that came to when it was measured, or else as reckoned.
        measured_tokens: likewise.
    """

    key: str
    texts: float
    tokens: float
    measured_texts: float
    measured_tokens: float


@dataclass(frozen=True)
class CellCost:
    """What one cell is predicted to take, all in seconds of its own.

    Attributes:
        encode: for the texts that no cell before it has encoded.
        load: of its data.
        score: with collecting its items.
        fresh: the texts that it is the first to encode.
        known: its model's dimensions.
        rated: whether the rate of encoding was measured in an earlier run.
        scored_before: whether loading and scoring were measured in an earlier run.
        unknown: whether some of it is not known, and counts as nothing.
    """

    encode: float
    load: float
    score: float
    fresh: tuple[FreshTexts, ...] = ()
    known: Dimensions | None = None
    rated: bool = True
    scored_before: bool = True
    unknown: bool = False

    @property
    def texts(self) -> float:
        """The texts that it is the first to encode."""
        return sum(one.measured_texts for one in self.fresh)

    @property
    def tokens(self) -> float:
        """The tokens of these."""
        return sum(one.measured_tokens for one in self.fresh)


@dataclass(frozen=True)
class Prediction:
    """What the cells that are left will take, in seconds.

    Attributes:
        cells: what each takes.
        machine: that it is for.
        processes: that score beside encoding; 0: scoring takes turns with encoding.
        start: before the first cell.
        overlap: how long such runs took here for what `work_seconds` made of them.
    """

    cells: Mapping[Cell, CellCost]
    machine: Machine
    processes: int
    start: float
    overlap: float

    @property
    def encode_seconds(self) -> float:
        """Seconds of encoding."""
        return sum(one.encode for one in self.cells.values())

    @property
    def score_seconds(self) -> float:
        """Seconds of scoring and of collecting items, all processes together."""
        return sum(one.score for one in self.cells.values())

    @property
    def load_seconds(self) -> float:
        """Seconds of loading data, all processes together."""
        return sum(one.load for one in self.cells.values())

    @property
    def wall_seconds(self) -> float:
        """How long the run takes, from the prediction to its end."""
        return self.start + self._work(self.cells.values()) if self.cells else 0.0

    @property
    def at_least(self) -> bool:
        """Whether it takes longer than that by what is not known."""
        return any(one.unknown for one in self.cells.values())

    def left(self, done: Collection[Cell], elapsed: float, since: float = 0.0) -> float:
        """Return the seconds that are left, scaled by how the finished part turned out.

        Args:
            done: cells that have ended, failed ones among them.
            elapsed: seconds from the prediction until the last of these ended.
            since: seconds from then on.
        """
        if not done:
            return max(0.0, self.wall_seconds - since)
        before = self._work(cost for cell, cost in self.cells.items() if cell in done)
        left = self._work(self.cells.values()) - before
        scale = elapsed / (self.start + before) if self.start + before else 1.0
        return max(0.0, scale * left - since)

    def _work(self, costs: Iterable[CellCost]) -> float:
        seconds = [(one.encode, one.load + one.score) for one in costs]
        return self.overlap * work_seconds(seconds, self.machine, self.processes)


def work_seconds(cells: Collection[tuple[float, float]], machine: Machine, processes: int) -> float:
    """Return how long cells take, start-up apart, by their seconds of encoding and of scoring.

    One process encodes, cell after cell. Without scoring processes it scores as well, and all
    seconds add up. Beside it, `processes` processes load and score, each on one core, one cell at
    a time. On a CPU encoding takes all cores, so that all share them: encoding E and scoring S take
    E + S / cores, if nobody waits. On a GPU the two go side by side: max(E, S / min(processes,
    cores)). Neither is less than scoring alone, or than the longest cell's scoring. What that
    leaves out (a last cell that is scored while nothing is left to encode; seconds measured beside
    other processes, which contain waiting for a core) is in `Rates.overlaps`.

    Args:
        cells: seconds of encoding and seconds of loading and scoring of each.
        machine: that they are on.
        processes: that score beside encoding.
    """
    encode = sum(one for one, _ in cells)
    score = sum(one for _, one in cells)
    if not processes:
        return encode + score
    longest = max((one for _, one in cells), default=0.0)
    chain = max(score / min(processes, machine.cores), longest)
    if machine.kind == "cpu":
        return max(encode + score / machine.cores, chain)
    return max(encode, chain)


def predict(
    settings: Settings,
    parts: Mapping[str, Part],
    left: Sequence[ModelCells],
    *,
    machine: Machine,
    processes: int,
    rates: Rates | None = None,
) -> Prediction:
    """Return what the cells that are left will take.

    A text is encoded once for each model, temperature and prompt: texts of the same origin are all
    among the largest of them (`Texts.origin`), and a policy by role gives queries and documents the
    temperatures that other policies may have given them already. With prompts, which may go by the
    task, no two tasks count as sharing texts. Nothing counts as encoded by earlier runs.

    Measures this machine for half a second a width, and imports torch for it, if nothing was
    encoded here before.

    Args:
        settings: the request.
        parts: what is scored of each task.
        left: models in the order in which they are run.
        machine: that the run is on.
        processes: that score beside encoding; 0: none.
        rates: what was measured; None: what the cache folder has.
    """
    rates = read_rates() if rates is None else rates
    seconds = _ScoringSeconds(rates)
    costs: dict[Cell, CellCost] = {}
    for model in left:
        known = model.known
        # The lengths of the synthetic tasks go by the window.
        docs = settings.docs if known is None else settings.docs.at(known.window)
        sizes = {name: texts_of(parts[name], docs) for name in {c.task for c in model.cells}}
        rate = None if known is None or not model.cells else _rate(machine, known, rates)
        encoded: dict[tuple[str, ...], float] = {}
        for cell in model.cells:
            shares = cell.protocol.prompts == "none"
            size = sizes[cell.task]
            load, score, before = seconds.of(cell, known, size)
            if known is None or rate is None:
                costs[cell] = CellCost(0.0, load, score, scored_before=before, unknown=True)
                continue
            fresh = tuple(_fresh(cell, size or (), known, encoded, rates, shares=shares))
            costs[cell] = CellCost(
                encode=_operations(fresh, known) / rate.operations,
                load=load,
                score=score,
                fresh=fresh,
                known=known,
                rated=rate.measured,
                scored_before=before,
                unknown=size is None or rate.at_most,
            )
    start = rates.starts.get(machine.key)
    overlap = rates.overlaps.get(_overlap_key(machine, processes))
    return Prediction(
        cells=costs,
        machine=machine,
        processes=processes,
        start=_START_UP if start is None else start[1] / start[0],
        overlap=1.0 if overlap is None else overlap[1] / overlap[0],
    )


@dataclass(frozen=True)
class _Rate:
    """Floating-point operations a second of encoding.

    Attributes:
        operations: how many.
        measured: whether in an earlier run.
        at_most: whether they are fewer by a factor that is not known.
    """

    operations: float
    measured: bool
    at_most: bool = False


def _rate(machine: Machine, known: Dimensions, rates: Rates) -> _Rate:
    """Return the rate of encoding, that of the nearest width where this one was never measured."""
    widths = {
        int(width): entry
        for key, entry in rates.encoding.items()
        if (name := key.rpartition("|"))[0] == machine.key and (width := name[2]).isdigit()
    }
    if widths:
        seconds, operations = widths[min(widths, key=lambda width: abs(width - known.hidden))]
        return _Rate(operations / seconds, measured=True)
    best = matmul_rate(machine.device, machine.dtype, known.hidden)
    efficiency = machine.efficiency
    return _Rate(best * (efficiency or 1.0), measured=False, at_most=efficiency is None)


def _encoding_key(machine: Machine, known: Dimensions) -> str:
    return f"{machine.key}|{known.hidden}"


def _overlap_key(machine: Machine, processes: int) -> str:
    return f"{machine.key}|{processes} processes"


def _fresh(
    cell: Cell,
    sizes: Iterable[Texts],
    known: Dimensions,
    encoded: dict[tuple[str, ...], float],
    rates: Rates,
    *,
    shares: bool,
) -> Iterable[FreshTexts]:
    """Yield the texts that a cell is the first to encode, and add them to `encoded`."""
    for one in sizes:
        temperature = cell.policy.for_role(one.role).canonical
        key = (one.origin, temperature, *(() if shares else (cell.task, one.role)))
        texts = one.unique - encoded.get(key, 0)
        if texts <= 0:
            continue
        encoded[key] = one.unique
        tokens = texts * _length(one, known)
        name = f"{cell.model}|{known.window}|{one.origin}"
        then = rates.texts.get(name, (1.0, 1.0, 1.0, 1.0))
        tokens_then, texts_then, measured_texts, measured_tokens = then
        yield FreshTexts(
            key=name,
            texts=texts,
            tokens=tokens,
            measured_texts=texts * measured_texts / texts_then,
            measured_tokens=tokens * measured_tokens / tokens_then,
        )


def _length(texts: Texts, model: Dimensions) -> float:
    """Return the tokens that a model reads of a text of average length."""
    if not texts.count:
        return 0.0
    average = texts.characters / texts.count / CHARACTERS_PER_TOKEN + _SPECIAL_TOKENS
    return average if model.window is None else min(average, model.window)


def _operations(fresh: Iterable[FreshTexts], known: Dimensions) -> float:
    return sum(operations(one.measured_texts, one.measured_tokens, known) for one in fresh)


def operations(texts: float, tokens: float, model: Dimensions) -> float:
    """Return the floating-point operations of a forward pass over texts of like length.

    A layer as wide as BERT's multiplies each token with 12 · hidden² weights (four matrices of
    attention, and a feed-forward part four times as wide), at two operations each; and attention
    takes 4 · length · hidden a token for QKᵀ and its product with V.
    """
    if not texts:
        return 0.0
    length = tokens / texts
    return tokens * model.layers * (24 * model.hidden**2 + 4 * length * model.hidden)


class _ScoringSeconds:
    """Seconds of loading and scoring by cell: as measured, or by the task's type and size."""

    def __init__(self, rates: Rates) -> None:
        self._measured: dict[str, dict[int, list[float]]] = {}
        for key, entry in rates.scoring.items():
            task, _, width = key.rpartition("|")
            if width.isdigit():
                self._measured.setdefault(task, {})[int(width)] = entry

    def of(
        self, cell: Cell, known: Dimensions | None, sizes: Sequence[Texts] | None
    ) -> tuple[float, float, bool]:
        """Return seconds of loading, of scoring, and whether they were measured."""
        width = 0 if known is None else known.hidden
        by_width = self._measured.get(_scored(cell))
        if by_width:
            # Wider embeddings take little longer: a logistic regression of 77 labels 0.47 s at 384
            # dimensions and 0.40 s at 768.
            cells, load, score, items = by_width[min(by_width, key=lambda one: abs(one - width))]
            return load / cells, (score + items) / cells, True
        load = _PER_LOADED_CHARACTER * sum(one.characters for one in sizes or ())
        return load, _reckoned_scoring(cell.task, sizes or ()), False


def _scored(cell: Cell) -> str:
    """Return what the seconds of scoring belong to, but for the width of embeddings."""
    protocol = cell.protocol
    subsets = "all" if protocol.subsets is None else ",".join(protocol.subsets)
    return f"{cell.task}|{protocol.splits}|{subsets}|{protocol.docs or ''}"


def _reckoned_scoring(task: str, sizes: Sequence[Texts]) -> float:
    """Return seconds of scoring a task that was never scored here, by what mteb does for its type.

    Classification fits a classifier for each sample of the train split; a clustering is cut up by
    k-means; of retrieval, queries are compared with all documents of their subset; for all else a
    similarity of each pair is about all there is.
    """
    kind = DOCS_TYPES.get(task) or registry().tasks[task].kind
    texts = sum(one.count for one in sizes)
    if any(one.drawn_rows for one in sizes):
        rows = sum(one.drawn_rows for one in sizes)
        return rows * _PER_DRAWN_ROW + sum(one.fitted_labels for one in sizes) * _PER_FITTED_LABEL
    if "Clustering" in kind:
        return texts * _PER_CLUSTERED_TEXT
    queries = [one for one in sizes if one.role == "query"]
    seconds = _PER_TEXT * texts + _PER_QUERY * sum(one.count for one in queries)
    if "Retrieval" not in kind:
        return seconds
    pairs = sum(
        query.count * one.count
        for query in queries
        for one in sizes
        if one.role == "document" and _subset(one) == _subset(query)
    )
    return seconds + _PER_PAIR * pairs


def _subset(texts: Texts) -> str:
    """Return what an origin names beside the column: the task, split and subset."""
    return texts.origin.rpartition("/")[0]


class Recorder:
    """Turns the records of a run's cells into rates, in the file of the cache folder."""

    def __init__(self, prediction: Prediction) -> None:
        """Begin with what was predicted for the run."""
        self._prediction = prediction
        self._measured = Rates()
        self._cells: list[tuple[float, float]] = []

    def record(self, cell: Cell, provenance: Mapping[str, Any]) -> None:
        """Take down a finished cell; a record that lacks something is left out.

        Args:
            cell: that has a result.
            provenance: its record: encoded_texts, encoded_tokens, seconds_encode, seconds_load,
                seconds_score, seconds_items. Waiting is in none of these seconds.
        """
        seconds = ("seconds_encode", "seconds_load", "seconds_score", "seconds_items")
        names = ("encoded_texts", "encoded_tokens", *seconds)
        cost = self._prediction.cells.get(cell)
        if cost is None or not all(_is_amount(provenance.get(name)) for name in names):
            return
        texts, tokens, encode, load, score, items = (float(provenance[name]) for name in names)
        self._cells.append((encode, load + score + items))
        width = 0 if cost.known is None else cost.known.hidden
        key = f"{_scored(cell)}|{width}"
        _sum_up(self._measured.scoring, key, (1.0, load, score, items))
        if texts and tokens and cost.known is not None:
            key = _encoding_key(self._prediction.machine, cost.known)
            done = self._operations(texts, tokens, cost, cost.known)
            _sum_up(self._measured.encoding, key, (encode, done))

    def _operations(self, texts: float, tokens: float, cost: CellCost, known: Dimensions) -> float:
        """Return the operations of what a cell encoded, and note how it compares with sizes."""
        reckoned_texts = sum(one.texts for one in cost.fresh)
        reckoned_tokens = sum(one.tokens for one in cost.fresh)
        # Most of them were there already, in a store: which ones is not known.
        if not reckoned_tokens or 2 * texts < reckoned_texts:
            return operations(texts, tokens, known)
        done = 0.0
        for one in cost.fresh:
            of_texts = one.texts * texts / reckoned_texts
            of_tokens = one.tokens * tokens / reckoned_tokens
            measured = (one.tokens, one.texts, of_texts, of_tokens)
            _sum_up(self._measured.texts, one.key, measured)
            done += operations(of_texts, of_tokens, known)
        return done

    def save(self, wall_seconds: float | None = None, start_seconds: float | None = None) -> None:
        """Add what was taken down to the file; what cannot be written is lost, and no harm done.

        Args:
            wall_seconds: from the prediction to the end; None: interrupted. It counts only if all
                cells that were predicted have been recorded.
            start_seconds: of these, those before the first cell began.
        """
        rates, now = read_rates(), self._measured
        machine, processes = self._prediction.machine, self._prediction.processes
        for key, entry in now.encoding.items():
            _add(rates.encoding, key, entry, _MEMORY_SECONDS)
        for key, entry in now.texts.items():
            # The same texts have the same tokens: nothing to average.
            _add(rates.texts, key, entry, 0.0)
        for key, entry in now.scoring.items():
            _add(rates.scoring, key, entry, _MEMORY_CELLS)
        if start_seconds is not None:
            _add(rates.starts, machine.key, (1.0, start_seconds), _MEMORY_RUNS)
        work = work_seconds(self._cells, machine, processes)
        whole = len(self._cells) == len(self._prediction.cells) and work >= _LEAST_WORK
        if whole and wall_seconds is not None and start_seconds is not None:
            took = (work, wall_seconds - start_seconds)
            _add(rates.overlaps, _overlap_key(machine, processes), took, _MEMORY_SECONDS)
        text = json.dumps({"format": _FORMAT, **asdict(rates)})
        with suppress(StorageError, RuntimeError):
            write_atomically(rates_file(), lambda path: path.write_text(text, encoding="utf-8"))
        self._measured, self._cells = Rates(), []


def _sum_up(table: dict[str, list[float]], key: str, measured: Sequence[float]) -> None:
    before = table.get(key, [0.0] * len(measured))
    table[key] = [old + new for old, new in zip(before, measured, strict=True)]


def sustaining(
    device: Assumed,
    cpus: int | None,
    machine: Machine,
    rates: Rates,
    known: Iterable[Dimensions | None],
) -> tuple[Machine, Rates]:
    """Return a machine that has a certain device, and rates that say what it sustains.

    Args:
        device: that is not at hand.
        cpus: beside it; None: as many as here.
        machine: that this is estimated on.
        rates: measured here.
        known: the models that are run.
    """
    kind = "cuda" if device.is_gpu else "cpu"
    name = f"{device.tflops:g} TFLOP/s"
    sized = replace(machine, name=name, device=kind, cores=cpus or machine.cores)
    operations = device.tflops * 1e12
    widths = {one.hidden for one in known if one is not None}
    encoding = {f"{sized.key}|{width}": [1.0, operations] for width in widths}
    return sized, replace(rates, encoding=encoding)


def prediction_line(prediction: Prediction) -> str:
    """Return what is said of a prediction before a run."""
    about = "at least" if prediction.at_least else "about"
    total = duration(prediction.wall_seconds / 3600)
    return f"{about} {total} predicted: {seconds_line(prediction)}"


def seconds_line(prediction: Prediction) -> str:
    """Return how a prediction's time divides, and where it comes from."""
    costs = prediction.cells.values()
    beside = " beside it" if prediction.processes else ""
    parts = [
        f"encoding {clock(prediction.encode_seconds)}",
        f"scoring {clock(prediction.score_seconds)}{beside}",
    ]
    if round(prediction.load_seconds):
        parts.append(f"loading data {clock(prediction.load_seconds)}")
    if not all(one.rated for one in costs):
        source = "reckoned from a short measurement of this machine"
    elif all(one.scored_before for one in costs):
        source = "measured on this machine before"
    else:
        source = "encoding measured on this machine before, scoring in part reckoned from sizes"
    return f"{', '.join(parts)} ({source})"


def outcome_line(prediction: Prediction, seconds: float) -> str:
    """Return what is said at the end of a run that took so many seconds."""
    return f"predicted {clock(prediction.wall_seconds)}, took {clock(seconds)}"


def clock(seconds: float) -> str:
    """Return a time as a clock shows it, from a hundred hours on in words: `4:05`, `1:04:05`."""
    if seconds >= 100 * 3600:
        return duration(seconds / 3600)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(hours: float) -> str:
    """Return a time in words, in two digits: `5 minutes`, `3.5 hours`, `7,300 hours`."""
    minutes = hours * 60
    if minutes < 1:
        return "a minute"
    number, unit = (minutes, "minute") if minutes < 90 else (hours, "hour")
    number = float(f"{number:.2g}")
    if number.is_integer():
        number = int(number)
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


@lru_cache(maxsize=8)
def matmul_rate(device: str, dtype: str, hidden: int) -> float:
    """Return the operations a second of a matrix product as in a layer of that width.

    The best of as many as fit in half a second, so that another process's moments do not count.
    """
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    rows = _ROWS.get(device.partition(":")[0], _ROWS["cpu"])
    left = torch.randn(rows, hidden, device=device, dtype=getattr(torch, weights_dtype(dtype)))
    right = torch.randn(hidden, 4 * hidden, device=device, dtype=left.dtype)
    best = float("inf")
    with products_in(dtype):
        # The first is slower: threads start, kernels are chosen.
        left @ right
        wait()
        began = time.perf_counter()
        while time.perf_counter() - began < _MEASURED_SECONDS:
            started = time.perf_counter()
            left @ right
            wait()
            best = min(best, time.perf_counter() - started)
    return 2 * rows * hidden * 4 * hidden / best
