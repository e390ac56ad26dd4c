"""Predicts the time of a run from rates measured on this machine.

`Recorder` stores the rates of earlier runs in the cache folder. Without these, `predict` uses the
rate of the machine's matrix product and the sizes of the tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lcbench.hub.models import Dimensions
from lcbench.plan.assumed import Assumed
from lcbench.plan.fresh import FreshTexts, fresh_texts
from lcbench.plan.machine import Machine, matmul_rate
from lcbench.plan.rates import Rates, read_rates
from lcbench.results.cell import Cell
from lcbench.system.words import clock, duration
from lcbench.tasks.source import Part, Texts

# Seconds of scoring for tasks never scored here, by mteb's steps for each type; on one core,
# with embeddings of 384 dimensions.
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
# on two busy cores, half of that on idle ones.
_START_UP = 6.0


@dataclass(frozen=True)
class ModelCells:
    """The unfinished cells of a model.

    Attributes:
        known: dimensions of the model; None: unknown.
        cells: cells in the order in which they are run; may be empty.
    """

    known: Dimensions | None
    cells: Sequence[Cell]


@dataclass(frozen=True)
class CellCost:
    """The predicted cost of a cell, in seconds.

    Attributes:
        encode: encoding of the texts that no earlier cell has encoded.
        load: loading of its data.
        score: scoring and collecting its items.
        fresh: texts that it is the first to encode.
        known: dimensions of its model.
        rated: whether an earlier run measured the rate of encoding.
        scored_before: whether an earlier run measured loading and scoring.
        unknown: whether some of the cost is unknown and counts as zero.
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
        """Number of texts that it is the first to encode."""
        return sum(one.measured_texts for one in self.fresh)

    @property
    def tokens(self) -> float:
        """Number of their tokens."""
        return sum(one.measured_tokens for one in self.fresh)


@dataclass(frozen=True)
class Prediction:
    """The predicted time of unfinished cells, in seconds.

    Attributes:
        cells: cost of each cell.
        machine: machine of the run.
        processes: number of scoring processes; 0: scoring alternates with encoding.
        start: time before the first cell.
        overlap: ratio of actual time to `work_seconds` in earlier runs.
        sharing: number of GPUs with a process each, which share the cells.
    """

    cells: Mapping[Cell, CellCost]
    machine: Machine
    processes: int
    start: float
    overlap: float
    sharing: int = 1

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
        """Time from the prediction to the end of the run."""
        return self.start + self._work(self.cells.values()) if self.cells else 0.0

    @property
    def at_least(self) -> bool:
        """Whether unknown costs make it longer."""
        return any(one.unknown for one in self.cells.values())

    def left(self, done: Collection[Cell], elapsed: float, since: float = 0.0) -> float:
        """Return the seconds left, scaled by the finished part's actual time.

        Args:
            done: cells that have ended, including failed ones.
            elapsed: seconds from the prediction to the end of the last of these.
            since: seconds since then.
        """
        if not done:
            return max(0.0, self.wall_seconds - since)
        before = self._work(cost for cell, cost in self.cells.items() if cell in done)
        left = self._work(self.cells.values()) - before
        scale = elapsed / (self.start + before) if self.start + before else 1.0
        return max(0.0, scale * left - since)

    def _work(self, costs: Iterable[CellCost]) -> float:
        # Scoring processes and cores are divided among those that share.
        seconds = [(one.encode / self.sharing, one.load + one.score) for one in costs]
        return self.overlap * work_seconds(seconds, self.machine, self.processes)


def work_seconds(cells: Collection[tuple[float, float]], machine: Machine, processes: int) -> float:
    """Return the time of cells without start-up, from seconds of encoding and scoring.

    One process encodes, cell after cell. Without scoring processes it also scores, and all seconds
    add up. Otherwise `processes` processes load and score in parallel, each on one core and one
    cell at a time. On a CPU encoding uses all cores, so that they share them: encoding E and
    scoring S take E + S / cores, without waiting. On a GPU they run in parallel: max(E, S /
    min(processes, cores)). Both are at least the time of scoring alone and of the longest cell's
    scoring. `Rates.overlaps` corrects for the rest (a last cell that is scored while nothing is
    left to encode; measured seconds that include waiting for a core).

    Args:
        cells: seconds of encoding, and of loading and scoring, of each cell.
        machine: machine of the run.
        processes: number of scoring processes.
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
    """Return the predicted time of unfinished cells.

    The texts that a correction is fitted on are encoded as well.

    A text is encoded once per model, repair without its correction, and prompt; not under a repair
    that leaves it as it is, such as chunks of a text that fits into one. Texts of the same
    origin are contained in the largest set of that origin (`Texts.origin`), and a policy by role
    gives queries and documents temperatures that other policies may already have used. With
    prompts, which may depend on the task, tasks count as sharing no texts. Nothing counts as
    encoded by earlier runs.

    If nothing was encoded here before, this measures the machine for half a second per width, and
    imports torch for it.

    Args:
        parts: what is scored of each task.
        left: models in the order in which they are run.
        machine: machine of the run.
        processes: number of scoring processes; may be 0.
        rates: measured rates; None: those in the cache folder.
    """
    rates = read_rates() if rates is None else rates
    seconds = _ScoringSeconds(rates)
    kinds = {name: part.source.kind(name) for name, part in parts.items()}
    costs: dict[Cell, CellCost] = {}
    for model in left:
        known = model.known
        # The lengths of some texts depend on the window.
        sized = {
            name: parts[name] if known is None else parts[name].at(known.window)
            for name in {cell.task for cell in model.cells}
        }
        sizes = {name: part.texts() for name, part in sized.items()}
        rate = None if known is None or not model.cells else _rate(machine, known, rates)
        encoded: dict[tuple[str, ...], float] = {}
        for cell in model.cells:
            size = sizes[cell.task]
            load, score, before = seconds.of(cell, known, kinds[cell.task], size)
            if known is None or rate is None:
                costs[cell] = CellCost(0.0, load, score, scored_before=before, unknown=True)
                continue
            fresh = tuple(fresh_texts(cell, size or (), known, encoded, rates, kinds[cell.task]))
            costs[cell] = CellCost(
                encode=_operations(fresh, known, machine) / rate.operations,
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
    """The rate of encoding.

    Attributes:
        operations: floating-point operations per second.
        measured: whether an earlier run measured it.
        at_most: whether the true rate is lower by an unknown factor.
    """

    operations: float
    measured: bool
    at_most: bool = False


def _rate(machine: Machine, known: Dimensions, rates: Rates) -> _Rate:
    """Return the rate of encoding, for the nearest width if this one was never measured."""
    widths = {
        int(width): entry
        for key, entry in rates.encoding.items()
        if (name := key.rpartition("|"))[0] == machine.key and (width := name[2]).isdigit()
    }
    if widths:
        seconds, operations = widths[min(widths, key=lambda width: abs(width - known.hidden))]
        return _Rate(operations / seconds, measured=True)
    best = matmul_rate(machine.device, machine.dtype, known.hidden)
    efficiency = machine.efficiency(known.hidden)
    return _Rate(best * (efficiency or 1.0), measured=False, at_most=efficiency is None)


def measure(models: Iterable[Dimensions | None], machine: Machine) -> None:
    """Measure the machine where it is not known, for predictions of these models later on.

    Args:
        models: their dimensions; None: unknown.
        machine: machine of the run, whose cores nothing else should use meanwhile.
    """
    rates = read_rates()
    for known in models:
        if known is not None:
            _rate(machine, known, rates)


def encoding_key(machine: Machine, known: Dimensions) -> str:
    return f"{machine.key}|{known.hidden}"


def overlap_key(machine: Machine, processes: int) -> str:
    return f"{machine.key}|{processes} processes"


def _operations(fresh: Iterable[FreshTexts], known: Dimensions, machine: Machine) -> float:
    return sum(
        one.operations(one.measured_texts, one.measured_tokens, known, on_gpu=machine.is_gpu)
        for one in fresh
    )


class _ScoringSeconds:
    """Seconds of loading and scoring per cell, measured or estimated from the task's size."""

    def __init__(self, rates: Rates) -> None:
        self._measured: dict[str, dict[int, list[float]]] = {}
        for key, entry in rates.scoring.items():
            task, _, width = key.rpartition("|")
            if width.isdigit():
                self._measured.setdefault(task, {})[int(width)] = entry

    def of(
        self, cell: Cell, known: Dimensions | None, kind: str, sizes: Sequence[Texts] | None
    ) -> tuple[float, float, bool]:
        """Return seconds of loading and of scoring, and whether they were measured."""
        width = 0 if known is None else known.hidden
        by_width = self._measured.get(scored(cell))
        if by_width:
            # Wider embeddings hardly take longer: a logistic regression of 77 labels 0.47 s at 384
            # dimensions and 0.40 s at 768.
            cells, load, score, items = by_width[min(by_width, key=lambda one: abs(one - width))]
            return load / cells, (score + items) / cells, True
        load = _PER_LOADED_CHARACTER * sum(one.characters for one in sizes or ())
        return load, _estimated_scoring(kind, sizes or ()), False


def scored(cell: Cell) -> str:
    """Return the key of seconds of scoring, without the width of embeddings."""
    protocol = cell.protocol
    subsets = "all" if protocol.subsets is None else ",".join(protocol.subsets)
    limit = "" if protocol.limit is None else f"|limit {protocol.limit}"
    return f"{cell.task}|{protocol.splits}|{subsets}|{protocol.texts or ''}{limit}"


def _estimated_scoring(kind: str, sizes: Sequence[Texts]) -> float:
    """Return the estimated seconds of scoring a task that was never scored here.

    mteb fits a classifier per sample of the train split, runs k-means on a clustering, compares
    queries with all documents of their subset, and otherwise mainly computes one similarity per
    pair.
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
    """Return an origin without its column: the task, split and subset."""
    return texts.origin.rpartition("/")[0]


def sustaining(
    device: Assumed,
    cpus: int | None,
    machine: Machine,
    rates: Rates,
    known: Iterable[Dimensions | None],
) -> tuple[Machine, Rates]:
    """Return a machine with a certain device, and rates for it.

    Args:
        device: the assumed device.
        cpus: number of its machine's cores; None: as many as here.
        machine: this machine.
        rates: rates measured here.
        known: dimensions of the models that are run.
    """
    kind = "cuda" if device.is_gpu else "cpu"
    name = f"{device.tflops:g} TFLOP/s"
    sized = replace(machine, name=name, device=kind, cores=cpus or machine.cores)
    operations = device.tflops * 1e12
    widths = {one.hidden for one in known if one is not None}
    encoding = {f"{sized.key}|{width}": [1.0, operations] for width in widths}
    return sized, replace(rates, encoding=encoding)


def prediction_line(prediction: Prediction) -> str:
    """Return the line that announces a predicted time before a run."""
    about = "at least" if prediction.at_least else "about"
    total = duration(prediction.wall_seconds / 3600)
    return f"Estimated time: {about} {total}; {seconds_line(prediction)}"


def seconds_line(prediction: Prediction) -> str:
    """Return the parts of a predicted time, and their source."""
    costs = prediction.cells.values()
    parallel = " in parallel" if prediction.processes else ""
    parts = [
        f"encoding {clock(prediction.encode_seconds / prediction.sharing)}",
        f"scoring {clock(prediction.score_seconds)}{parallel}",
    ]
    if round(prediction.load_seconds):
        parts.append(f"loading data {clock(prediction.load_seconds)}")
    if not all(one.rated for one in costs):
        source = "from a short measurement of this machine"
    elif all(one.scored_before for one in costs):
        source = "from earlier runs on this machine"
    else:
        source = "from earlier runs on this machine, scoring partly from dataset sizes"
    return f"{', '.join(parts)} ({source})"


def outcome_line(prediction: Prediction, seconds: float) -> str:
    """Return the line that compares predicted and actual time after a run."""
    return f"estimated {clock(prediction.wall_seconds)}, took {clock(seconds)}"
