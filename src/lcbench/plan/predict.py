"""What a run takes: predicted from rates measured on this machine, and these rates, kept.

A run's records (`Recorder`) become rates in a file of the cache folder; `predict` makes of them how
long the cells that are left will take. Where nothing was measured yet, the machine's matrix product
and the sizes of the tasks stand in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lcbench.hub.models import Dimensions
from lcbench.plan.assumed import Assumed
from lcbench.plan.machine import Machine, matmul_rate
from lcbench.plan.rates import Rates, read_rates
from lcbench.results.cell import Cell
from lcbench.system.words import clock, duration
from lcbench.tasks.sizes import SPECIAL_TOKENS
from lcbench.tasks.source import Part, Texts

# Of English, with MiniLM's tokenizer (the vocabulary of bge, gist and e5 too): 4.0 in QMSum's
# meetings, 4.2 in Banking77, 4.4 in STSBenchmark, 4.7 in MassiveIntent, 4.8 in Emotion. Docstrings,
# which are half code, have 3.2; other languages fewer too: German 2.6, Turkish 2.2, Russian 1.3
# (the messages of a program).
CHARACTERS_PER_TOKEN = 4.3

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
        parts: what is scored of each task.
        left: models in the order in which they are run.
        machine: that the run is on.
        processes: that score beside encoding; 0: none.
        rates: what was measured; None: what the cache folder has.
    """
    rates = read_rates() if rates is None else rates
    seconds = _ScoringSeconds(rates)
    kinds = {name: part.source.kind(name) for name, part in parts.items()}
    costs: dict[Cell, CellCost] = {}
    for model in left:
        known = model.known
        # The lengths of some texts go by the window.
        sized = {
            name: parts[name] if known is None else parts[name].at(known.window)
            for name in {cell.task for cell in model.cells}
        }
        sizes = {name: part.source.texts(part) for name, part in sized.items()}
        rate = None if known is None or not model.cells else _rate(machine, known, rates)
        encoded: dict[tuple[str, ...], float] = {}
        for cell in model.cells:
            shares = cell.protocol.prompts == "none"
            size = sizes[cell.task]
            load, score, before = seconds.of(cell, known, kinds[cell.task], size)
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
    overlap = rates.overlaps.get(overlap_key(machine, processes))
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


def encoding_key(machine: Machine, known: Dimensions) -> str:
    return f"{machine.key}|{known.hidden}"


def overlap_key(machine: Machine, processes: int) -> str:
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
        temperature = cell.repair.policy.for_role(one.role).canonical
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
    average = texts.characters / texts.count / CHARACTERS_PER_TOKEN + SPECIAL_TOKENS
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
        self, cell: Cell, known: Dimensions | None, kind: str, sizes: Sequence[Texts] | None
    ) -> tuple[float, float, bool]:
        """Return seconds of loading, of scoring, and whether they were measured."""
        width = 0 if known is None else known.hidden
        by_width = self._measured.get(scored(cell))
        if by_width:
            # Wider embeddings take little longer: a logistic regression of 77 labels 0.47 s at 384
            # dimensions and 0.40 s at 768.
            cells, load, score, items = by_width[min(by_width, key=lambda one: abs(one - width))]
            return load / cells, (score + items) / cells, True
        load = _PER_LOADED_CHARACTER * sum(one.characters for one in sizes or ())
        return load, _estimated_scoring(kind, sizes or ()), False


def scored(cell: Cell) -> str:
    """Return what the seconds of scoring belong to, but for the width of embeddings."""
    protocol = cell.protocol
    subsets = "all" if protocol.subsets is None else ",".join(protocol.subsets)
    return f"{cell.task}|{protocol.splits}|{subsets}|{protocol.texts or ''}"


def _estimated_scoring(kind: str, sizes: Sequence[Texts]) -> float:
    """Return seconds of scoring a task that was never scored here, by what mteb does for its type.

    Classification fits a classifier for each sample of the train split; a clustering is cut up by
    k-means; of retrieval, queries are compared with all documents of their subset; for all else a
    similarity of each pair is about all there is.
    """
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
