"""Converts a report to one dictionary of plain values, for `report.json` and the page.

It computes nothing: it arranges the results of `findings`, in full precision, and links each score
to its provenance.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lcbench
from lcbench.reporting import summary
from lcbench.reporting.score_table import BASELINE, Block, ScoreTable, word_of
from lcbench.reporting.table import as_json
from lcbench.reporting.tables.main_results import footnotes
from lcbench.reporting.tables.paper_comparison import note
from lcbench.reporting.tables.paper_comparison import summary as paper_summary
from lcbench.reporting.text import group_heading
from lcbench.tasks.suites import averaged_columns

if TYPE_CHECKING:
    from lcbench.reporting.findings import Findings, TableFindings
    from lcbench.reporting.statistics import TableStatistics, Uncertainty
    from lcbench.reporting.tables.choice import Choice
    from lcbench.reporting.tables.paper import Comparison


# Maximum number of models that a title names; more are counted.
_MOST_NAMED = 3
# Long parts of provenance that many cells share; each distinct value is stored once.
_POOLED = ("versions", "hardware", "arithmetic", "proof", "protocol", "data")
# Attributes of `Uncertainty` that a cell's improvement has, and a mean's has not.
_OF_CELLS = ("p", "adjusted", "units", "count", "up", "down")


def build(findings: Findings, title: str) -> dict[str, Any]:
    """Return the report as a dictionary that JSON can hold.

    Args:
        findings: results of `findings.gather`.
        title: title of the report.

    Returns:
        title, made (local time with its offset), version, resamples, seed; score_tables (the data
        of Table 1: scores × 100, improvements in % with their intervals, cells, choice of τ);
        headlines (what to do, a sentence per model); tables (all tables as they are shown); figures
        (charts for plotly, `figures.interactive`); paper (its numbers compared with lcbench's);
        provenance (by digest; values that many cells share are replaced by {"shared": digest});
        shared (these values, by digest).
    """
    # Imported late, since it imports the drawing of figures.
    from lcbench.reporting.figures.interactive import charts_of

    provenance = _Provenance()
    score_tables = [_table(table, provenance) for table in findings.score_tables]
    return {
        "title": title,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "version": lcbench.__version__,
        "resamples": findings.resamples,
        "seed": findings.seed,
        "score_tables": score_tables,
        "headlines": [
            {"group": table["group"], **headline}
            for table in score_tables
            for headline in summary.headlines(table)
        ],
        "tables": list(map(as_json, findings.tables)),
        "figures": charts_of(findings),
        "paper": _paper(findings.paper),
        "provenance": provenance.kept,
        "shared": provenance.shared,
    }


def title(findings: Findings) -> str:
    """Return the title of a report: its models, and numbers of temperatures and tasks."""
    blocks = [block for found in findings.score_tables for block in found.table.blocks]
    models = list(dict.fromkeys(block.label for block in blocks))
    policies = dict.fromkeys(policy for block in blocks for policy in block.policies)
    tasks = dict.fromkeys(task.task for block in blocks for task in block.tasks)
    named = ", ".join(models) if len(models) <= _MOST_NAMED else f"{len(models)} models"
    word = "temperature" if word_of(policies)[0] == "τ" else "repair"
    return (
        f"{named}: {len(policies)} {word}{'s' if len(policies) > 1 else ''}, "
        f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}"
    )


def dumps(document: Mapping[str, Any]) -> str:
    """Return the document as JSON text, with one value per line and without NaN."""
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


class _Provenance:
    """The provenance of cells; values that many of them share are stored once."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.shared: dict[str, Any] = {}

    def add(self, record: Mapping[str, Any]) -> str:
        """Add a cell's provenance, and return its key."""
        short = {
            name: {"shared": self._share(value)} if name in _POOLED and value else value
            for name, value in _as_json(record).items()
        }
        key = _digest(record)
        self.kept[key] = short
        return key

    def _share(self, value: Any) -> str:
        key = _digest(value)
        self.shared[key] = value
        return key


def _as_json(value: Any) -> Any:
    """Return a value without numbers that JSON lacks: a window of infinity becomes null."""
    if isinstance(value, Mapping):
        return {name: _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _table(found: TableFindings, provenance: _Provenance) -> dict[str, Any]:
    table = found.table
    return {
        "group": table.group,
        "heading": group_heading(table.group),
        "columns": [{"name": column.name, "tasks": list(column.tasks)} for column in table.columns],
        "averaged": list(averaged_columns([column.name for column in table.columns])),
        "models": [_model(block, found, provenance) for block in table.blocks],
        "average_improvement": _average(table, found.statistics),
        "choice": None if found.choice is None else _choice(found.choice),
        "notes": [*table.notes, *found.statistics.notes],
        "footnotes": list(footnotes(table, found.statistics)),
    }


def _model(block: Block, found: TableFindings, provenance: _Provenance) -> dict[str, Any]:
    means = found.statistics.means
    return {
        "label": block.label,
        "model": block.model,
        "revision": block.revision,
        "window": block.window,
        "policies": list(block.policies),
        "best": block.best,
        "scores": {policy: _values(row) for policy, row in block.scores.items()},
        "partial": {
            policy: {name: list(share) for name, share in block.partial(policy).items()}
            for policy in block.policies
        },
        "improvements": {
            policy: {
                column: _improvement(value, means.get((block.label, policy, column)))
                for column, value in row.items()
            }
            for policy, row in block.improvements.items()
        },
        "cells": list(_cells(block, found, provenance)),
    }


def _cells(block: Block, found: TableFindings, provenance: _Provenance) -> Iterable[dict[str, Any]]:
    for task in block.tasks:
        for policy in block.policies:
            score = task.scores[policy]
            cell = found.cells.get((block.label, policy, task.task))
            if score is None and cell is None:
                continue
            yield {
                "task": task.task,
                "column": task.column,
                "policy": policy,
                "score": _number(score),
                "improvement": None
                if policy == BASELINE
                else _improvement(
                    task.improvement(policy),
                    found.statistics.cells.get((block.label, policy, task.task)),
                    is_cell=True,
                ),
                "subsets": {} if cell is None else _values(cell.subsets),
                "provenance": None if cell is None else provenance.add(cell.provenance),
            }


def _average(table: ScoreTable, statistics: TableStatistics) -> dict[str, Any] | None:
    if table.average_improvement is None:
        return None
    return {
        column: _improvement(value, statistics.average.get(column))
        for column, value in table.average_improvement.items()
    }


def _improvement(
    value: float | None, uncertainty: Uncertainty | None, is_cell: bool = False
) -> dict[str, Any] | None:
    """Return an improvement with its interval and, for a cell, its test."""
    if value is None:
        return None
    found: dict[str, Any] = {"value": _number(value), "low": None, "high": None, "note": ""}
    if uncertainty is not None:
        found |= {
            "low": _number(uncertainty.low),
            "high": _number(uncertainty.high),
            "note": uncertainty.note,
            "significant": uncertainty.excludes_zero,
            "too_few": uncertainty.is_too_few,
            "tried": uncertainty.tried,
            "alone": None if uncertainty.alone is None else list(map(_number, uncertainty.alone)),
            "error": _number(uncertainty.error),
            "bound": _number(uncertainty.bound),
        }
    if is_cell:
        found |= {name: getattr(uncertainty, name, None) for name in _OF_CELLS}
    return found


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "models": [
            {
                "label": model.label,
                "candidates": list(model.candidates),
                "tau": model.tau,
                "gain": _number(model.gain),
                "held_out": dict(model.held_out),
                "held_out_gain": _number(model.held_out_gain),
                "optimism": _number(model.optimism),
                "gains": _values(model.gains),
                "default_regret": _number(model.default_regret),
            }
            for model in choice.models
        ],
        "common_tau": choice.common_tau,
        "common_gain": _number(choice.common_gain),
        "notes": list(choice.notes),
    }


def _paper(comparisons: Sequence[Comparison]) -> dict[str, Any] | None:
    if not comparisons:
        return None
    return {
        "summary": paper_summary(comparisons),
        "rows": [
            {
                "table": pair.table,
                "model": pair.model,
                "name": pair.name,
                "revision": pair.revision,
                "window": pair.window,
                "policy": pair.policy,
                "row": pair.row,
                "column": pair.column,
                "paper": pair.paper,
                "ours": _number(pair.ours),
                "difference": _number(pair.difference),
                "noise": _number(pair.noise),
                "within": pair.within,
                "note": note(pair),
            }
            for pair in comparisons
        ],
    }


def _values(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in row.items()}


def _number(value: float | None) -> float | None:
    """Return a number for JSON; one that is not finite becomes a missing value."""
    return None if value is None or not math.isfinite(value) else float(value)
