"""Temperatures by role: the paper's Table 2, and grids for its Figures 9 and 15."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lcbench.reporting.score_table import (
    AVERAGE,
    BASELINE,
    Block,
    ScoreTable,
    relative_improvement,
    temperature,
)
from lcbench.reporting.statistics import TableStatistics
from lcbench.reporting.table import Entry, Section, Table, described, improvement, name, number
from lcbench.reporting.text import group_heading
from lcbench.tasks.suites import averaged_columns
from lcbench.tempscale.policy import ByRole, Constant

# Policies with `_bias=kept` are never mixed with the others.
_BY_ROLE = re.compile(r"query=([^,]+),document=([^,_]+)(_bias=kept)?")
_CONSTANT = re.compile(r"([^,_=]+)(_bias=kept)?")

WITHOUT_ROLES = frozenset({"Class", "PairClass", "Clust", "Summ", "STS", "BitextMining"})
"""Columns whose tasks have no queries: all their texts count as documents."""

_SETTINGS = ("TempScale", "w/o query", "w/o doc", "Raw")

_NOTE = (
    "Scores × 100. TempScale: τ for queries and documents; w/o query: for documents alone; w/o "
    "doc: for queries alone; Raw: τ = 1."
)
_NOTE_OF_LOOKS = (
    "Bold: significantly different from Raw, as the 95 % interval of the improvement over it "
    "excludes zero (in colour: blue above, orange below); pale: not. What is neither is Raw itself "
    "or has no interval."
)


@dataclass(frozen=True)
class RoleGrid:
    """The gain of one model by the temperatures of queries and documents.

    Attributes:
        label: label of the model's block.
        what: name of a task or column, or `Avg`.
        query_temperatures: temperatures of queries, from large to small.
        document_temperatures: temperatures of documents, from large to small.
        values: relative improvement in % by the temperature of queries, then of documents; None is
            a missing value. It is 0 at (1, 1).
        policies: canonical policies, in the same order.
    """

    label: str
    what: str
    query_temperatures: tuple[float, ...]
    document_temperatures: tuple[float, ...]
    values: tuple[tuple[float | None, ...], ...]
    policies: tuple[tuple[str, ...], ...]


def role_grids(table: ScoreTable) -> tuple[RoleGrid, ...]:
    """Return a grid for each model and each task, column and `Avg` with policies by role.

    Tasks without queries have no grid, nor have a column of one task and an `Avg` of one column.
    The diagonal has constant temperatures. Both axes have all temperatures of either role, and 1.

    Args:
        table: one of `table1.build_tables`.
    """
    return tuple(grid for block in table.blocks for grid in _grids(table, block))


def role_table(table: ScoreTable, statistics: TableStatistics) -> Table | None:
    """Return a table like the paper's Table 2: the four settings by task, columns by model.

    If each model has one τ, as in the paper, the header shows it; if a model has several, each task
    has a section per τ. Tasks without queries are left out, and so is everything without all four
    settings; None if nothing remains.

    Args:
        table: one of `table1.build_tables`.
        statistics: statistics of the table, for the style and the tooltip of each setting's
            improvement over Raw.
    """
    complete = [(block, taus) for block in table.blocks if (taus := _complete(block))]
    if all(len(taus) == 1 for _, taus in complete):
        columns = [f"{block.label}, {_tau(*taus[0])}" for block, taus in complete]
        parts = [("", dict(enumerate(taus[0] for _, taus in complete)))]
    else:
        columns = [block.label for block, _ in complete]
        parts = [
            (
                f", {_tau(*one)}",
                {place: one for place, (_, taus) in enumerate(complete) if one in taus},
            )
            for one in _ordered({one for _, taus in complete for one in taus})
        ]
    sections = []
    for what in _parts(table):
        for suffix, chosen in parts:
            sets = [
                _entries(block, what, *chosen[place], statistics) if place in chosen else None
                for place, (block, _) in enumerate(complete)
            ]
            if any(entries is not None for entries in sets):
                sections.append(Section(f"{what}{suffix}", _rows(sets)))
    if not sections:
        return None
    return Table(
        name="table2",
        title=f"Temperature by role ({group_heading(table.group)})",
        header=("Setting", *columns),
        labels=1,
        sections=tuple(sections),
        notes=(_NOTE, _NOTE_OF_LOOKS) if statistics.cells or statistics.means else (_NOTE,),
    )


def _tau(tau: float, suffix: str) -> str:
    return f"τ = {Constant(tau).canonical}{', bias kept' if suffix else ''}"


def _rows(sets: Sequence[list[Entry] | None]) -> tuple[tuple[Entry, ...], ...]:
    """Return a row per setting with the models' entries; None for a model without."""
    return tuple(
        (
            name(setting),
            *(number(None) if entries is None else entries[place] for entries in sets),
        )
        for place, setting in enumerate(_SETTINGS)
    )


def _settings(tau: float, suffix: str) -> tuple[str, str, str, str]:
    """Return the policies of the four settings, in the paper's order."""
    return (
        Constant(tau).canonical + suffix,
        ByRole(1.0, tau).canonical + suffix,
        ByRole(tau, 1.0).canonical + suffix,
        BASELINE,
    )


def _temperatures(policy: str) -> tuple[float, float, str] | None:
    """Return a policy's temperatures of query and document, and its treatment of a bias."""
    found = _BY_ROLE.fullmatch(policy)
    if found is not None:
        query, document, suffix = temperature(found[1]), temperature(found[2]), found[3] or ""
        return None if query is None or document is None else (query, document, suffix)
    found = _CONSTANT.fullmatch(policy)
    tau = None if found is None else temperature(found[1])
    return None if found is None or tau is None else (tau, tau, found[2] or "")


def _by_role(block: Block) -> Iterator[tuple[float, float, str]]:
    for policy in block.policies:
        found = _temperatures(policy)
        if found is not None and found[0] != found[1]:
            yield found


def _complete(block: Block) -> list[tuple[float, str]]:
    """Return the temperatures at which all four settings were tried, from large to small."""
    taus = {
        (document if query == 1 else query, suffix)
        for query, document, suffix in _by_role(block)
        if 1 in (query, document)
    }
    return _ordered(
        (tau, suffix) for tau, suffix in taus if set(_settings(tau, suffix)) <= set(block.policies)
    )


def _ordered(taus: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    return sorted(taus, key=lambda one: (one[1], -one[0]))


def _parts(table: ScoreTable) -> list[str]:
    """Return tasks, columns with several tasks, and `Avg`, if their scores depend on roles.

    `Avg` is that of Table 1, and is left out if some of its columns have no queries.
    """
    columns = [column for column in table.columns if column.name not in WITHOUT_ROLES]
    averaged = averaged_columns([column.name for column in table.columns])
    return [
        *(task for column in columns for task in column.tasks),
        *(column.name for column in columns if len(column.tasks) > 1),
        *([AVERAGE] if len(averaged) > 1 and not WITHOUT_ROLES & set(averaged) else []),
    ]


def _scores(block: Block, what: str) -> Mapping[str, float | None]:
    """Return the scores × 100 of a task, column or `Avg` by policy."""
    for task in block.tasks:
        if task.task == what:
            return task.scores
    return {policy: row[what] for policy, row in block.scores.items()}


def _entries(
    block: Block, what: str, tau: float, suffix: str, statistics: TableStatistics
) -> list[Entry] | None:
    """Return a model's four settings of a task, column or `Avg`; None if one is missing."""
    scores = _scores(block, what)
    values = [scores.get(policy) for policy in _settings(tau, suffix)]
    if any(value is None for value in values):
        return None
    raw = values[-1]
    entries = []
    for policy, value in zip(_settings(tau, suffix), values, strict=True):
        if policy == BASELINE:
            entries.append(number(value))
            continue
        key = (block.label, policy, what)
        found = statistics.cells.get(key) or statistics.means.get(key)
        compared = improvement(relative_improvement(value, raw), found)
        tooltip = "" if compared.value is None else f"{compared.text} % of Raw"
        tooltip += f"; {described(found)}" if tooltip and found is not None else ""
        entries.append(number(value, compared.style, tooltip))
    return entries


def _grids(table: ScoreTable, block: Block) -> Iterator[RoleGrid]:
    readings = dict.fromkeys(suffix for _, _, suffix in _by_role(block))
    for suffix in readings:
        of_role = [one for one in _by_role(block) if one[2] == suffix]
        taus = sorted({1.0, *(tau for one in of_role for tau in one[:2])}, reverse=True)
        policies = tuple(
            tuple(_policy(query, document, suffix) for document in taus) for query in taus
        )
        label = f"{block.label}, bias kept" if suffix else block.label
        for what in _parts(table):
            scores = _scores(block, what)
            raw = scores.get(BASELINE)
            values = tuple(
                tuple(relative_improvement(scores.get(policy), raw) for policy in row)
                for row in policies
            )
            # Off the diagonal there must be something to show.
            if any(
                value is not None
                for i, row in enumerate(values)
                for j, value in enumerate(row)
                if i != j
            ):
                yield RoleGrid(label, what, tuple(taus), tuple(taus), values, policies)


def _policy(query: float, document: float, suffix: str) -> str:
    if query != document:
        return ByRole(query, document).canonical + suffix
    return BASELINE if query == 1 else Constant(query).canonical + suffix
