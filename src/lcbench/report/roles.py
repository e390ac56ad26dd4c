"""Temperatures by role: the shape of the paper's Table 2, and grids for its Figures 9 and 15."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lcbench.report.sheets import Entry, Look, Section, Sheet, described, name, number
from lcbench.report.statistics import TableStatistics
from lcbench.report.table1 import (
    AVERAGE,
    BASELINE,
    Block,
    Table,
    averaged_columns,
    relative_improvement,
    temperature,
)
from lcbench.report.text import change
from lcbench.tempscale.policy import ByRole, Constant

# `_bias=kept` is a reading of its own, and never mixed with the other.
_BY_ROLE = re.compile(r"query=([^,]+),document=([^,_]+)(_bias=kept)?")
_CONSTANT = re.compile(r"([^,_=]+)(_bias=kept)?")

WITHOUT_ROLES = frozenset({"Class", "PairClass", "Clust", "Summ", "STS", "BitextMining"})
"""Columns whose tasks have no queries: all their texts count as documents."""

_SETTINGS = ("TempScale", "w/o query", "w/o doc", "Raw")

_NOTES = (
    "Scores × 100. TempScale: τ for queries and documents; w/o query: for documents alone; w/o "
    "doc: for queries alone; Raw: τ = 1.",
    "The best of the four settings is in bold; that of itself says nothing of how sure it is.",
)


@dataclass(frozen=True)
class RoleGrid:
    """The gain of one model by the temperatures of queries and documents.

    Attributes:
        label: of the model's block.
        what: a task, a column or `Avg`.
        query_temperatures: of queries, from large to small.
        document_temperatures: of documents, the same.
        values: relative improvement in %, by query, then by document; None is a hole. It is 0 at
            (1, 1).
        policies: the canonical policies, in the same order.
    """

    label: str
    what: str
    query_temperatures: tuple[float, ...]
    document_temperatures: tuple[float, ...]
    values: tuple[tuple[float | None, ...], ...]
    policies: tuple[tuple[str, ...], ...]


def role_grids(table: Table) -> tuple[RoleGrid, ...]:
    """Return a grid for each model and each task, column and `Avg` with policies by role.

    Tasks without queries have none. The diagonal comes from constant temperatures. Both axes have
    all temperatures of either role, and 1. A column of one task, and an `Avg` of one column, have
    no grid of their own.

    Args:
        table: of `table1.build_tables`.
    """
    return tuple(grid for block in table.blocks for grid in _grids(table, block))


def role_sheet(table: Table, statistics: TableStatistics | None = None) -> Sheet | None:
    """Return the shape of the paper's Table 2: by task the four settings, a column a model and τ.

    What lacks one of the settings is left out, and so are tasks without queries; None if nothing
    remains.

    Args:
        table: of `table1.build_tables`.
        statistics: of the same table, which are told beside each setting.
    """
    shown = [(block, tau, suffix) for block in table.blocks for tau, suffix in _complete(block)]
    sections = []
    for what in _parts(table):
        sets = [_entries(block, what, tau, suffix, statistics) for block, tau, suffix in shown]
        if any(entries is not None for entries in sets):
            rows = tuple(
                (
                    name(setting),
                    *(number(None) if entries is None else entries[place] for entries in sets),
                )
                for place, setting in enumerate(_SETTINGS)
            )
            sections.append(Section(what, rows))
    if not sections:
        return None
    header = [
        f"{block.label}, τ = {Constant(tau).canonical}{', bias kept' if suffix else ''}"
        for block, tau, suffix in shown
    ]
    return Sheet(
        name="table2",
        title=f"Temperature by role ({table.group})",
        header=("Setting", *header),
        labels=1,
        sections=tuple(sections),
        notes=_NOTES,
    )


def _settings(tau: float, suffix: str) -> tuple[str, str, str, str]:
    """Return the policies of the four settings, as the paper orders them."""
    return (
        Constant(tau).canonical + suffix,
        ByRole(1.0, tau).canonical + suffix,
        ByRole(tau, 1.0).canonical + suffix,
        BASELINE,
    )


def _temperatures(policy: str) -> tuple[float, float, str] | None:
    """Return a policy's temperatures of query and document, and how it reads a bias; else None."""
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
    """Return the temperatures of which all four settings were tried, from large to small."""
    taus = {
        (document if query == 1 else query, suffix)
        for query, document, suffix in _by_role(block)
        if 1 in (query, document)
    }
    return sorted(
        (
            (tau, suffix)
            for tau, suffix in taus
            if set(_settings(tau, suffix)) <= set(block.policies)
        ),
        key=lambda one: (one[1], -one[0]),
    )


def _parts(table: Table) -> list[str]:
    """Return tasks, then columns of several, then `Avg` of several columns, as far as by role.

    `Avg` is that of Table 1, and so is left out beside columns that have no queries.
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
    block: Block, what: str, tau: float, suffix: str, statistics: TableStatistics | None
) -> list[Entry] | None:
    """Return a model's four settings of a task, column or `Avg`; None if one is a hole."""
    scores = _scores(block, what)
    values = [scores.get(policy) for policy in _settings(tau, suffix)]
    known = [value for value in values if value is not None]
    if len(known) < len(_SETTINGS):
        return None
    raw = values[-1]
    entries = []
    for policy, value in zip(_settings(tau, suffix), values, strict=True):
        look: Look = "strong" if value == max(known) else "plain"
        more = ""
        if policy != BASELINE:
            more = f"{change(relative_improvement(value, raw))} % of Raw"
            if statistics is not None:
                key = (block.label, policy, what)
                found = statistics.cells.get(key) or statistics.means.get(key)
                more += f"; {described(found)}" if found is not None else ""
        entries.append(number(value, look, more))
    return entries


def _grids(table: Table, block: Block) -> Iterator[RoleGrid]:
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
