"""Compares results with the numbers of the paper's Tables 1 to 3, with their noise.

The paper's numbers are those printed in arXiv:2410.24200v1 (`results/paper`); lcbench's come from
the frame of scores and the items of its cells. `paper_comparison` makes tables of them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lcbench.hub.models import shipped_models
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block
from lcbench.reporting.table1 import build_tables
from lcbench.results.cell import texts_of
from lcbench.system.resources import shipped
from lcbench.tasks.suites import shipped_suites
from lcbench.tempscale.policy import ByRole, Constant
from lcbench.uncertainty.covariance import HALF_WIDTH, Noise, noise_of, standard_error
from lcbench.uncertainty.items import TaskSamples

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.results.files import CellFiles

TABLE_1, TABLE_2, TABLE_3 = "Table 1", "Table 2", "Table 3"
"""The tables whose numbers `results/paper` has, in files of these names."""

ALL_MODELS = "ALL"
"""The model of the paper's row `Avg Improv.`, the mean over all models."""

_SUITE = "paper"

# Half of the last printed digit.
_ROUNDING = {TABLE_1: 0.005, TABLE_2: 0.005, TABLE_3: 0.05}

# The protocol that provenance must have: no prompts, fp32, the test split, all languages.
_PROTOCOL = {"name": "paper", "prompts": "none", "dtype": "float32", "splits": "test"}

_EXCHANGED = (
    "the paper's columns GIST and BGE look exchanged: BGE's Raw is the public result of GIST-small"
)
_TWICE = "the paper prints 38.35 for both GIST and BGE at their τ"
_IN_DOUBT = ("GIST", "BGE")


@dataclass(frozen=True)
class Comparison:
    """A number of the paper, and lcbench's if there is one.

    Scores are × 100, relative improvements in %, ranks count from 1.

    Attributes:
        table: table of the paper.
        model: the paper's name of the model; `ALL_MODELS` for the mean over models.
        name: the model's name in results; empty for the mean over models.
        revision: revision of the model.
        window: maximum number of tokens read of a text.
        policy: canonical policy; empty for the mean over models, each of which has its own.
        row: raw, ours, relative, avg_improv (Table 1), the setting (Table 2), rank (Table 3).
        column: column of Table 1, or the task.
        paper: the printed number.
        ours: lcbench's number; None if part of the mean is missing.
        present: available share of an incomplete mean: "3 of 8 tasks"; empty if it is complete.
        noise: half a 95 % interval of lcbench's number over other items like the tasks' own
            (`covariance.noise_of`), plus the rounding of the printed number; None if unknown. The
            paper scored the same items, so a difference should be much smaller: one within the
            noise is weak evidence of agreement, one outside is strong evidence against it.
        doubt: reason why the printed number is not a target; empty if it is one.
        note: further remark on the number.
    """

    table: str
    model: str
    name: str
    revision: str
    window: int | None
    policy: str
    row: str
    column: str
    paper: float
    ours: float | None
    present: str = ""
    noise: float | None = None
    doubt: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """lcbench's number minus the paper's."""
        return None if self.ours is None else self.ours - self.paper

    @property
    def within(self) -> Literal["yes", "no", "unknown"]:
        """Whether the difference is within the noise; None if unknown or the number is doubtful."""
        if self.difference is None or self.noise is None or self.doubt:
            return "unknown"
        # Differences of decimals are off by the last bits.
        return "yes" if abs(self.difference) <= self.noise + 1e-9 else "no"


def is_papers(protocol: Mapping[str, Any]) -> bool:
    """Return whether a cell's protocol, from its provenance, is the paper's apart from the window.

    A protocol without subsets scores all of them.
    """
    said = all(protocol.get(key) == value for key, value in _PROTOCOL.items())
    whole = all(protocol.get(name) is None for name in ("subsets", "limit", "dimensions"))
    return said and whole and texts_of(protocol) is None


@dataclass(frozen=True)
class Asked:
    """The cells that are compared with the paper, including those whose items are needed.

    Attributes:
        models: the paper's models that were measured.
        sampled: cells of Table 1 by task: the baseline and the paper's τ of each model; None for a
            cell that is in no compared number.
        alone: cells of Table 2, each compared by itself.
        ranked: cells of Table 3.
    """

    models: Sequence[_Model]
    sampled: Mapping[str, Sequence[CellFiles | None]]
    alone: frozenset[CellFiles]
    ranked: frozenset[CellFiles]

    @property
    def with_samples(self) -> frozenset[CellFiles]:
        """The cells whose samples are needed."""
        return self.alone.union(
            files for cells in self.sampled.values() for files in cells if files is not None
        )


@dataclass(frozen=True)
class Estimates:
    """Estimates from the items of one task for the compared numbers.

    Attributes:
        noise: variation of the cells of Table 1.
        errors: standard errors of the cells of Table 2 as fractions; None: unknown.
        ranks: results of `ranks.rank_of_longest` for the cells of Table 3.
    """

    noise: Noise
    errors: Mapping[CellFiles, float | None]
    ranks: Mapping[CellFiles, tuple[float, float | None] | None]


def asked_cells(scores: pd.DataFrame) -> Asked:
    """Return the cells that are compared with the paper.

    Only cells of the paper's models count, with the paper's protocol and window.

    Args:
        scores: frame of `Results.read`.
    """
    models = _models(scores)
    alone = (model.files[policy, task] for model, policy, task, _ in _cells_of_table2(models))
    ranked = (files for _, _, files, _ in _cells_of_table3(models))
    return Asked(models, _sampled(models), frozenset(alone), frozenset(ranked))


def estimates(
    task: str,
    asked: Asked,
    read: TaskSamples,
    ranks: Mapping[CellFiles, tuple[float, float | None] | None],
) -> Estimates:
    """Return estimates from the items of a task for the compared numbers.

    Args:
        task: name of the task.
        asked: result of `asked_cells`.
        read: samples of the task's cells, including those of `asked`.
        ranks: results of `ranks.rank_of_longest` for the cells of Table 3.
    """
    alone = [files for files in asked.alone if files.task == task]
    errors = {files: standard_error(files, read) for files in alone}
    return Estimates(noise_of(asked.sampled.get(task, ()), read), errors, ranks)


def compare(asked: Asked, known: Mapping[str, Estimates]) -> tuple[Comparison, ...]:
    """Return the paper's numbers with lcbench's, in the paper's order; empty if there are none.

    Table 1 is built by `table1.build_tables` over the suite `paper`, with the paper's τ of each
    model instead of the best τ; a column with missing tasks has no number.

    Table 2 has separate temperatures for queries and documents on two tasks. The paper does not
    state its τ; that of the model's row in Table 1 is assumed. Table 3 is computed by
    `ranks.rank_of_longest`.

    Args:
        asked: result of `asked_cells`.
        known: results of `estimates` for all tasks whose items are needed.
    """
    errors = {cell: error for one in known.values() for cell, error in one.errors.items()}
    ranks = {cell: rank for one in known.values() for cell, rank in one.ranks.items()}
    compared = (
        *_table1(asked.models, {task: one.noise for task, one in known.items()}),
        *_table2(asked.models, errors),
        *_table3(asked.models, ranks),
    )
    return compared if any(one.ours is not None for one in compared) else ()


def in_papers_order(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores with the paper's models first, in its order, and the others as they were."""
    names = shipped_models()
    printed = dict.fromkeys(row["model"] for row in _rows(TABLE_1) if row["model"] != ALL_MODELS)
    order = {names[model.lower()]: place for place, model in enumerate(printed)}
    places = scores["model"].map(lambda model: order.get(model, len(order)))
    return scores.iloc[np.argsort(places.to_numpy(), kind="stable")].reset_index(drop=True)


@lru_cache(maxsize=1)
def data_folder() -> Path:
    """Return the folder of the paper's tables."""
    return shipped("paper", "results/paper")


@dataclass(frozen=True)
class _Model:
    """One of the paper's models with its cells under the paper's protocol.

    Attributes:
        paper: the paper's name of the model.
        tau: policy of its row `ours` in the paper's Table 1.
        block: its scores over the suite `paper`.
        files: files of its cells by policy and task.
    """

    paper: str
    tau: str
    block: Block
    files: Mapping[tuple[str, str], CellFiles]

    def mean(self, policy: str, column: str) -> float | None:
        """Return the score × 100 of a column or `Avg`; None if a part of it is missing."""
        return self.block.scores.get(policy, {}).get(column)

    def score(self, policy: str, task: str) -> float | None:
        """Return a task's score × 100; None if it has none, or none that can be compared."""
        return self.block.scores_of(task).get(policy)

    def present(self, policy: str, column: str) -> tuple[int, str]:
        """Return the measured share of a column or `Avg`, and the same in words."""
        if column == AVERAGE:
            parts, found = "columns", [self.mean(policy, one) for one in _columns()]
        else:
            parts, found = "tasks", [self.score(policy, one) for one in _columns()[column]]
        count = sum(score is not None for score in found)
        return count, f"{count} of {len(found)} {parts}"

    def comparison(
        self, table: str, policy: str, row: str, column: str, paper: float, **more: Any
    ) -> Comparison:
        """Return one of the paper's numbers for this model, with lcbench's."""
        return Comparison(
            table=table,
            model=self.paper,
            name=self.block.model,
            revision=self.block.revision,
            window=self.block.window,
            policy=policy,
            row=row,
            column=column,
            paper=paper,
            doubt=_doubt(table, self.paper, row, column),
            **more,
        )


def _columns() -> Mapping[str, Sequence[str]]:
    """Return the tasks of each column of the paper's Table 1."""
    (suite,) = (suite for suite in shipped_suites() if suite.name == _SUITE)
    return suite.columns


def _rows(table: str) -> list[dict[str, str]]:
    path = data_folder() / f"{table.lower().replace(' ', '')}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _models(scores: pd.DataFrame) -> list[_Model]:
    """Return the paper's models that were measured under its protocol, in the paper's order."""
    names = shipped_models()
    ours = {row["model"]: row for row in _rows(TABLE_1) if row["row_kind"] == "ours"}
    of_paper = scores[scores["model"].isin({names[model.lower()] for model in ours})]
    of_paper = of_paper[of_paper["protocol"].map(is_papers).astype(bool)]
    tasks = {task for tasks in _columns().values() for task in tasks}
    # Cells with an unknown window cannot be compared with the paper.
    of_paper = of_paper[of_paper["task"].isin(tasks) & of_paper["window"].notna()]
    if of_paper.empty:
        return []
    (table,) = build_tables(of_paper.assign(group=_SUITE), _columns())
    cells: dict[tuple[str, str, int], dict[tuple[str, str], CellFiles]] = {}
    for cell in of_paper.itertuples(index=False):
        identity = str(cell.model), str(cell.revision), int(cell.window)
        cells.setdefault(identity, {})[str(cell.policy), str(cell.task)] = cell.files
    return [
        _Model(
            paper=model,
            tau=Constant(float(row["tau"])).canonical,
            block=block,
            files=cells[block.model, block.revision, block.window],
        )
        for model, row in ours.items()
        for block in table.blocks
        if block.model == names[model.lower()] and block.window == _tokens(row["window"])
    ]


def _tokens(window: str) -> int:
    """Return a window from the paper's notation: 512, 4k."""
    return 1024 * int(window[:-1]) if window.endswith("k") else int(window)


def _doubt(table: str, model: str, row: str, column: str) -> str:
    """Return why a number of the paper is not a target, or an empty text; see its README."""
    if table == TABLE_2 and model in _IN_DOUBT:
        return _EXCHANGED
    from_ours = row in ("ours", "relative") and model in _IN_DOUBT
    if table == TABLE_1 and column == "LongEmbRetr" and (from_ours or row == "avg_improv"):
        return _TWICE
    return ""


def _table1(models: Sequence[_Model], noises: Mapping[str, Noise]) -> Iterator[Comparison]:
    noise_of_columns = _noise_of_columns(noises)
    for row in _rows(TABLE_1):
        kind = row["row_kind"]
        for column in (*_columns(), AVERAGE):
            paper, found = float(row[column]), noise_of_columns[column]
            if row["model"] == ALL_MODELS:
                yield from _mean_improvement(models, column, paper, found)
            for place, model in enumerate(models):
                if model.paper != row["model"]:
                    continue
                policy = BASELINE if kind == "raw" else model.tau
                count, present = model.present(policy, column)
                ours = model.mean(policy, column)
                weights = {2 * place + (kind != "raw"): 100.0}
                if kind == "relative":
                    ours = model.block.improvements.get(policy, {}).get(column)
                    weights = _relative_weights(place, model, column)
                if ours is not None:
                    noise = _noise(TABLE_1, found, weights)
                    yield model.comparison(
                        TABLE_1, policy, kind, column, paper, ours=ours, noise=noise
                    )
                elif count:
                    yield model.comparison(
                        TABLE_1, policy, kind, column, paper, ours=None, present=present
                    )


def _mean_improvement(
    models: Sequence[_Model], column: str, paper: float, shares: _Shares
) -> Iterator[Comparison]:
    """Yield the paper's `Avg Improv.` of a column with ours, if each model was measured once."""
    asked = {row["model"] for row in _rows(TABLE_1)} - {ALL_MODELS}
    if {model.paper for model in models} != asked or len(models) != len(asked):
        return
    improvements = [model.block.improvements.get(model.tau, {}).get(column) for model in models]
    values = [value for value in improvements if value is not None]
    if not values:
        return
    comparison = Comparison(
        table=TABLE_1,
        model=ALL_MODELS,
        name="",
        revision="",
        window=0,
        policy="",
        row="avg_improv",
        column=column,
        paper=paper,
        ours=None,
        doubt=_doubt(TABLE_1, ALL_MODELS, "avg_improv", column),
    )
    if len(values) < len(models):
        yield replace(comparison, present=f"{len(values)} of {len(models)} models")
        return
    weights: dict[int, float] = {}
    for place, model in enumerate(models):
        for cell, weight in _relative_weights(place, model, column).items():
            weights[cell] = weight / len(models)
    noise = _noise(TABLE_1, shares, weights)
    yield replace(comparison, ours=fmean(values), noise=noise)


def _cells_of_table2(
    models: Sequence[_Model],
) -> Iterator[tuple[_Model, str, str, dict[str, str]]]:
    """Yield the model, policy and task of each measured cell of Table 2, with the paper's row."""
    for model in models:
        tau = float(model.tau)
        policies = {
            "TempScale": model.tau,
            "w/o query": ByRole(query=1.0, document=tau).canonical,
            "w/o doc": ByRole(query=tau, document=1.0).canonical,
            "Raw": BASELINE,
        }
        for row in _rows(TABLE_2):
            task, policy = row["dataset"], policies[row["setting"]]
            if model.score(policy, task) is not None:
                yield model, policy, task, row


def _table2(
    models: Sequence[_Model], errors: Mapping[CellFiles, float | None]
) -> Iterator[Comparison]:
    for model, policy, task, row in _cells_of_table2(models):
        error, setting = errors[model.files[policy, task]], row["setting"]
        yield model.comparison(
            TABLE_2,
            policy,
            setting,
            task,
            float(row[model.paper]),
            ours=model.score(policy, task),
            noise=None if error is None else _half_width(TABLE_2, 100 * error),
            note="" if setting == "Raw" else "the paper does not state the τ of Table 2",
        )


def _cells_of_table3(
    models: Sequence[_Model],
) -> Iterator[tuple[_Model, str, CellFiles, dict[str, str]]]:
    """Yield the model, policy and files of each measured cell of Table 3, with the paper's row."""
    for model in models:
        for row in _rows(TABLE_3):
            policy = Constant(float(row["temperature"])).canonical
            files = model.files.get((policy, row["dataset"]))
            if files is not None:
                yield model, policy, files, row


def _table3(
    models: Sequence[_Model], ranks: Mapping[CellFiles, tuple[float, float | None] | None]
) -> Iterator[Comparison]:
    for model, policy, files, row in _cells_of_table3(models):
        if (found := ranks[files]) is None:
            continue
        rank, error = found
        yield model.comparison(
            TABLE_3,
            policy,
            "rank",
            row["dataset"],
            float(row[model.paper]),
            ours=rank,
            noise=None if error is None else _half_width(TABLE_3, error),
        )


_Shares = Sequence[tuple[Noise, float]]
"""The noise of each task and its weight in the mean over tasks."""


def _sampled(models: Sequence[_Model]) -> dict[str, list[CellFiles | None]]:
    """Return the cells of Table 1 by task, in pairs: the baseline and the paper's τ of each model.

    None stands for cells that are in no compared number, whose items need not be read.
    """
    cells = [(model, policy) for model in models for policy in (BASELINE, model.tau)]
    return {
        task: [
            model.files[policy, task] if model.mean(policy, column) is not None else None
            for model, policy in cells
        ]
        for column, tasks in _columns().items()
        for task in tasks
    }


def _noise_of_columns(noises: Mapping[str, Noise]) -> Mapping[str, _Shares]:
    """Return the noise of the tasks that make up each column, `Avg` included.

    Tasks are independent of one another; models and temperatures are not, since they share items.

    Args:
        noises: noise by task.
    """
    found = {
        column: [(noises.get(task, Noise(())), 1 / len(tasks)) for task in tasks]
        for column, tasks in _columns().items()
    }
    found[AVERAGE] = [
        (noise, share / len(found)) for column in found.values() for noise, share in column
    ]
    return found


def _relative_weights(place: int, model: _Model, column: str) -> dict[int, float]:
    """Return the derivatives of 100 · (ours − raw) / raw with respect to both, as fractions."""
    raw, ours = model.mean(BASELINE, column), model.mean(model.tau, column)
    if raw is None or ours is None:
        return {}
    return {2 * place: -100 * ours * 100 / raw**2, 2 * place + 1: 100 * 100 / raw}


def _noise(table: str, shares: _Shares, weights: Mapping[int, float]) -> float | None:
    """Return the noise of a weighted sum of scores (the delta method); None if unknown."""
    variance = sum(share**2 * noise.variance(weights) for noise, share in shares)
    return None if math.isnan(variance) else _half_width(table, math.sqrt(variance))


def _half_width(table: str, error: float) -> float:
    return HALF_WIDTH * error + _ROUNDING[table]
