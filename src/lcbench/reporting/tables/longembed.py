"""Shows LongEmbed's published scores next to those of the same models.

They are the numbers of the paper (arXiv:2404.12096) and, where they differ or say more, of its
repository (`results/longembed`). They are no targets: all runs but nomic's scale attention by
length, and the authors' code takes positions from the longest text of a batch.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import Block, ScoreTable
from lcbench.reporting.table import Entry, Section, Table, formatted, name
from lcbench.system.resources import shipped

COLUMNS: Mapping[str, str] = {
    "LEMBPasskeyRetrieval": "Passkey",
    "LEMBNeedleRetrieval": "Needle",
    "LEMBNarrativeQARetrieval": "NarrativeQA",
    "LEMBQMSumRetrieval": "QMSum",
    "LEMBSummScreenFDRetrieval": "SummScreenFD",
    "LEMBWikimQARetrieval": "2WikimQA",
}
"""The names of columns in LongEmbed's tables, by task in mteb."""
AVERAGE = "Avg"

_NOTES = (
    "Passkey and Needle: nDCG@1, the mean over eight lengths from 256 to 32,768 tokens; the others "
    "nDCG@10; × 100. Avg is the mean over all six here, as LongEmbed has it; it is empty if one is "
    "missing.",
    "LongEmbed's numbers (arXiv:2404.12096) are with its attention scaling by length, "
    "tau={length: {logn: 512}} for a window of 512 (the runs of nomic have none), and with the "
    "models' prompts (of E5-base: protocol=leaderboard).",
)
_OF_REPOSITORY = (
    "(repository): from the result files in LongEmbed's repository, which differ or say more."
)


@dataclass(frozen=True)
class Published:
    """Published scores of a model.

    Attributes:
        model: name on the hub.
        window: tokens that were read of a text.
        method: method that extends the model's window; empty: none.
        source: `paper` or `repository`.
        scores: × 100, by task and `Avg`; None: not printed.
    """

    model: str
    window: int
    method: str
    source: str
    scores: Mapping[str, float | None]

    @property
    def label(self) -> str:
        """Name of the row."""
        where = "" if self.source == "paper" else f" ({self.source})"
        how = f", {self.method}" if self.method else ""
        return f"LongEmbed{where}{how}, window {self.window:,}"


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Return all published scores, in the order of the file."""
    path = shipped("longembed", "results/longembed") / "scores.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                row["model"],
                int(row["window"]),
                row["method"],
                row["source"],
                {one: float(row[one]) if row[one] else None for one in (*COLUMNS, AVERAGE)},
            )
            for row in csv.DictReader(file)
        )


def longembed_table(tables: Sequence[ScoreTable]) -> Table | None:
    """Return published scores of LongEmbed's models with those of a report.

    Args:
        tables: tables of scores.

    Returns:
        None if no table has one of these models on one of LongEmbed's tasks.
    """
    shown: list[Published] = []
    sections = []
    for table in tables:
        for block in table.blocks:
            found = [one for one in published() if one.model == block.model]
            is_measured = any(
                score is not None
                for one in block.tasks
                if one.task in COLUMNS
                for score in one.scores.values()
            )
            if not found or not is_measured:
                continue
            shown += found
            rows = [(name(one.label), *_entries(one.scores)) for one in found]
            rows += [
                (name(f"lcbench, {label_of(policy)}"), *_entries(_scores(block, policy)))
                for policy in block.policies
            ]
            window = "" if block.window is None else f", window {block.window:,}"
            sections.append(Section(f"{block.label}{window}", tuple(rows), table.group))
    if not sections:
        return None
    newer = any(one.source == "repository" for one in shown)
    return Table(
        name="longembed",
        title="LongEmbed's published scores",
        header=("Model and row", *COLUMNS.values(), AVERAGE),
        labels=1,
        sections=tuple(sections),
        notes=(*_NOTES, _OF_REPOSITORY) if newer else _NOTES,
    )


def _scores(block: Block, policy: str) -> dict[str, float | None]:
    """Return the scores × 100 of a policy by task, and their mean."""
    scores: dict[str, float | None] = {
        one.task: one.scores.get(policy) for one in block.tasks if one.task in COLUMNS
    }
    values = [score for score in scores.values() if score is not None]
    scores[AVERAGE] = fmean(values) if len(values) == len(COLUMNS) else None
    return scores


def _entries(scores: Mapping[str, float | None]) -> list[Entry]:
    return [formatted(scores.get(one), ".1f") for one in (*COLUMNS, AVERAGE)]
