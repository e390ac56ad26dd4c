"""Compares two folders of results, and the models of one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lcbench.errors import RequestError, did_you_mean
from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import (
    BASELINE,
    Block,
    ScoreTable,
    ordered_policies,
    relative_improvement,
)
from lcbench.reporting.statistics import TableStatistics, Uncertainty
from lcbench.reporting.table import Entry, Section, Table, improvement, name, number
from lcbench.reporting.table1 import cell_of
from lcbench.reporting.text import group_heading
from lcbench.results.items import ITEMS
from lcbench.results.rows import ASSUMED_POOLING

if TYPE_CHECKING:
    from lcbench.results.files import CellFiles

Compare = Callable[["CellFiles", "CellFiles"], Uncertainty | None]

# Other hardware and library versions do not change scores in the fourth decimal.
_EQUAL = 1e-4

# Maximum number of cells that a note lists, and maximum length of a value in it.
_NAMED = 4
_LONGEST = 60

_Key = tuple[str, str, str]  # model, policy, task


@dataclass(frozen=True)
class _Cell:
    """A cell of one folder.

    Attributes:
        score: score as a fraction; None if a split or subset has no score.
        parts: splits and subsets of the cell.
        conditions: everything else that a score depends on, by name.
        files: files of the result.
    """

    score: float | None
    parts: frozenset[tuple[str, str]]
    conditions: Mapping[str, str]
    files: CellFiles


def compare_folders(
    first: pd.DataFrame,
    second: pd.DataFrame,
    names: tuple[str, str],
    compare: Compare | None,
    progress: Callable[[int, int], None] | None,
) -> Table:
    """Return the cells that both folders have: two scores, their difference and its interval.

    Cells are matched by model name, policy and task. Other differences (revision, window, protocol,
    versions, data) are listed in notes; among several cells of one name, those with the fewest
    differences are paired.

    Args:
        first: frame of `Results.read`; relative improvements are in % of its scores.
        second: frame of the other folder.
        names: names of the two folders.
        compare: returns the uncertainty of the second cell's improvement over the first; None: no
            intervals.
        progress: receives the number of compared cells and of all pairs.
    """
    ours, theirs = _cells(first), _cells(second)
    pairs: list[tuple[_Key, _Cell, _Cell]] = []
    alone: tuple[list[_Key], list[_Key]] = ([], [])
    for key in dict.fromkeys([*ours, *theirs]):
        matched, left, right = _match(ours.get(key, []), theirs.get(key, []))
        pairs += [(key, *pair) for pair in matched]
        alone[0].extend([key] * left)
        alone[1].extend([key] * right)
    pairs.sort(key=_places([key for key, _, _ in pairs]))
    rows: dict[str, list[tuple[Entry, ...]]] = {}
    differences: list[tuple[float, _Key]] = []
    significant, unknown = 0, 0
    for done, (key, here, there) in enumerate(pairs):
        difference, gain, uncertainty = None, None, None
        if here.score is not None and there.score is not None and here.parts == there.parts:
            difference = 100 * (there.score - here.score)
            gain = relative_improvement(there.score, here.score)
            differences.append((difference, key))
            if compare is not None and gain is not None:
                uncertainty = compare(here.files, there.files)
            significant += uncertainty is not None and uncertainty.excludes_zero
            unknown += uncertainty is None
        rows.setdefault(key[0], []).append(
            (
                name(key[1]),
                name(key[2]),
                *(number(None if one.score is None else 100 * one.score) for one in (here, there)),
                _signed(difference),
                improvement(gain, uncertainty),
                number(None if uncertainty is None else uncertainty.low),
                number(None if uncertainty is None else uncertainty.high),
            )
        )
        if progress is not None:
            progress(done + 1, len(pairs))
    notes = [
        f"Scores × 100. Difference: {names[1]} minus {names[0]}; relative: in % of {names[0]}, "
        "from and to are its 95 % interval, paired over the items of the task.",
        _summary(len(pairs), differences),
    ]
    if differences:
        notes.append(
            f"Differences that are significant (95 % interval): {significant}; not significant: "
            f"{len(differences) - significant - unknown}; unknown: {unknown}."
        )
    return Table(
        name="comparison",
        title=f"{names[0]} and {names[1]} side by side",
        header=("τ", "Task", *names, "Difference", "Relative, %", "from", "to"),
        labels=2,
        sections=tuple(Section(model, tuple(lines)) for model, lines in rows.items()),
        notes=(
            *notes,
            *_what_differs(pairs, names),
            *(
                f"Only in {where}: {_listed(keys)}."
                for where, keys in zip(names, alone, strict=True)
                if keys
            ),
        ),
    )


def compare_models(table: ScoreTable, statistics: TableStatistics, labels: Sequence[str]) -> Table:
    """Return models of a table side by side: baseline, score at the model's best τ, and gain.

    For two models, the difference of their scores at their best τ is included.

    Args:
        table: one of `table1.build_tables`.
        statistics: statistics of the table, for the marks.
        labels: two or more labels of blocks, or names of models.

    Raises:
        RequestError: fewer than two models, or a model that the table does not have.
    """
    blocks = [_block(table, label) for label in dict.fromkeys(labels)]
    blocks = [block for place, block in enumerate(blocks) if block not in blocks[:place]]
    if len(blocks) < 2:
        known = ", ".join(block.label for block in table.blocks)
        raise RequestError(
            f"Models side by side are two or more of {known}; asked for: {', '.join(labels)}."
        )
    word, _ = table.words
    pair = len(blocks) == 2 and all(block.best is not None for block in blocks)
    header = ["Column", "Task"]
    for block in blocks:
        header.append(f"{block.label}, baseline")
        if block.best is not None:
            header += [f"{block.label}, {label_of(block.best)}", f"{block.label}, Relative Improv."]
    if pair:
        header.append(f"Difference at best {word}")
    means = [
        ([name(column), name("")], [_values(block, column) for block in blocks], column)
        for column in table.column_names
    ]
    tasks = [
        ([name(column.name), name(task)], [_task_values(block, task) for block in blocks], task)
        for column in table.columns
        for task in column.tasks
    ]
    named = ", ".join(block.label for block in blocks)
    return Table(
        name="models",
        title=f"{named} side by side ({group_heading(table.group)})",
        header=tuple(header),
        labels=2,
        sections=tuple(
            Section(
                heading,
                tuple(
                    (*titles, *_model_entries(blocks, values, what, known, pair))
                    for titles, values, what in rows
                ),
            )
            for heading, rows, known in (
                ("Columns", means, statistics.means),
                ("Tasks", tasks, statistics.cells),
            )
        ),
        notes=(
            f"Scores × 100. The {word} is the best of each model over the whole table, chosen on "
            "the test data; relative improvements are in % of the model's own baseline.",
            "In bold: the highest of the models, of the baselines and of those at the best "
            f"{word}.",
            *(
                [f"Difference: {blocks[1].label} minus {blocks[0].label}; not tested."]
                if pair
                else []
            ),
        ),
    )


def _cells(scores: pd.DataFrame) -> dict[_Key, list[_Cell]]:
    """Return a folder's cells by key, with the score as in Table 1."""
    rows: dict[tuple[_Key, CellFiles], list[Any]] = {}
    for row in scores.itertuples(index=False):
        key = (str(row.model), str(row.policy), str(row.task))
        rows.setdefault((key, row.files), []).append(row)
    cells: dict[_Key, list[_Cell]] = {}
    for (key, files), parts in rows.items():
        scored = cell_of(_named(key), parts)
        score = None if math.isnan(scored.score) else scored.score
        cell = _Cell(score, scored.parts, _conditions(parts[0]), files)
        cells.setdefault(key, []).append(cell)
    return cells


def _conditions(row: Any) -> dict[str, str]:
    """Return all that a cell's score depends on besides model, policy and task."""
    protocol = {
        f"protocol.{key}": "all" if value is None and key == "subsets" else str(value)
        for key, value in row.protocol.items()
        # The window that was used is compared below.
        if key != "window"
    }
    return {
        "revision": str(row.revision),
        "window": "unknown" if pd.isna(row.window) else str(int(row.window)),
        "imported": str(row.imported or "no"),
        **protocol,
        **{str(key): str(value) for key, value in row.conditions.items()},
    }


def _differing(here: _Cell, there: _Cell) -> dict[str, tuple[str, str]]:
    """Return what differs between two cells, by name: the two values."""
    keys = dict.fromkeys([*here.conditions, *there.conditions])
    values = {
        key: (here.conditions.get(key, "absent"), there.conditions.get(key, "absent"))
        for key in keys
    }
    return {
        key: both
        for key, both in values.items()
        # Unknown for results of older versions, or without items.
        if both[0] != both[1] and not (key in (ITEMS, ASSUMED_POOLING) and "absent" in both)
    }


def _match(
    ours: Sequence[_Cell], theirs: Sequence[_Cell]
) -> tuple[list[tuple[_Cell, _Cell]], int, int]:
    """Return pairs of cells with the fewest differences, and how many cells remain on each side."""
    every = [
        (len(_differing(a, b)), i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs)
    ]
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for _, i, j in sorted(every):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((ours[i], theirs[j]))
    return pairs, len(ours) - len(pairs), len(theirs) - len(pairs)


def _places(keys: Sequence[_Key]) -> Callable[[tuple[_Key, _Cell, _Cell]], tuple[int, int, str]]:
    """Return a sort key of pairs: models in order of occurrence, τ from large to small, tasks."""
    models = {model: place for place, model in enumerate(dict.fromkeys(key[0] for key in keys))}
    policies = {policy: place for place, policy in enumerate(ordered_policies(k[1] for k in keys))}
    return lambda pair: (models[pair[0][0]], policies[pair[0][1]], pair[0][2])


def _signed(value: float | None) -> Entry:
    if value is None:
        return number(None)
    return Entry(f"{round(value, 2) + 0.0:+.2f}" if round(value, 2) else "0.00", value)


def _summary(pairs: int, differences: Sequence[tuple[float, _Key]]) -> str:
    if not pairs:
        return "No cell is in both."
    said = f"Cells in both: {pairs}; with scores that can be compared: {len(differences)}"
    if not differences:
        return f"{said}."
    # Allow for rounding at the limit.
    equal = sum(abs(value) <= 100 * _EQUAL + 1e-9 for value, _ in differences)
    largest, key = max(differences, key=lambda one: abs(one[0]))
    return (
        f"{said}; equal to {_EQUAL} ({100 * _EQUAL} as shown here): {equal}. The largest "
        f"difference is {_signed(largest).text} ({_named(key)})."
    )


def _what_differs(pairs: Sequence[tuple[_Key, _Cell, _Cell]], names: tuple[str, str]) -> list[str]:
    """Return a note for each thing that differs, with the cells that it concerns."""
    concerned: dict[str, list[_Key]] = {}
    for key, here, there in pairs:
        texts = [
            f"{what}: {_short(one)} in {names[0]}, {_short(other)} in {names[1]}"
            for what, (one, other) in _differing(here, there).items()
        ]
        for parts, where in (
            (here.parts - there.parts, names[0]),
            (there.parts - here.parts, names[1]),
        ):
            if parts:
                listed = _short(", ".join(f"{split}/{subset}" for split, subset in sorted(parts)))
                texts.append(f"split/subset only in {where}, so not compared: {listed}")
        for text in texts:
            concerned.setdefault(text, []).append(key)
    return [
        f"Differs: {text} ({'all cells' if len(keys) == len(pairs) else _listed(keys)})."
        for text, keys in concerned.items()
    ]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _named(key: _Key) -> str:
    return f"{key[0]}, {label_of(key[1])}, {key[2]}"


def _listed(keys: Sequence[_Key]) -> str:
    """Return the first cells as text, and how many more there are."""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return "; ".join(map(_named, keys[:_NAMED])) + more


def _block(table: ScoreTable, label: str) -> Block:
    for block in table.blocks:
        if label == block.label:
            return block
    for block in table.blocks:
        if label == block.model:
            return block
    known = [block.label for block in table.blocks]
    raise RequestError(
        f"{label} is no model of the table {table.group}.{did_you_mean(label, known)} It has: "
        f"{', '.join(known)}."
    )


_Pair = tuple[float | None, float | None]  # raw, and at the best τ


def _values(block: Block, column: str) -> _Pair:
    ours = None if block.best is None else block.scores[block.best][column]
    return block.scores[BASELINE][column], ours


def _task_values(block: Block, task: str) -> _Pair:
    scores = block.scores_of(task)
    return scores[BASELINE], None if block.best is None else scores[block.best]


def _model_entries(
    blocks: Sequence[Block],
    values: Sequence[_Pair],
    what: str,
    known: Mapping[tuple[str, str, str], Uncertainty],
    pair: bool,
) -> list[Entry]:
    """Return the entries of a column or task: baseline, best τ and gain of each model."""
    highest = [
        max((score for both in values if (score := both[place]) is not None), default=None)
        for place in (0, 1)
    ]
    entries = []
    for block, both in zip(blocks, values, strict=True):
        raw, ours = (
            number(value, "best" if value is not None and value == best else "neutral")
            for value, best in zip(both, highest, strict=True)
        )
        entries.append(raw)
        if block.best is not None:
            gain = relative_improvement(both[1], both[0])
            entries += [ours, improvement(gain, known.get((block.label, block.best, what)))]
    if pair:
        (_, one), (_, other) = values
        entries.append(_signed(None if one is None or other is None else other - one))
    return entries
