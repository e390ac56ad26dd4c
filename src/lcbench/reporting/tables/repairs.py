"""Compares a model's repairs by column, length of texts, held-out choice and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lcbench.repair.repair import canonical_of, label_of, parts_of
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block, ScoreTable, temperature
from lcbench.reporting.statistics import TableStatistics, Uncertainty
from lcbench.reporting.table import (
    Entry,
    Section,
    Source,
    Table,
    formatted,
    improvement,
    name,
    of_values,
)
from lcbench.reporting.tables.changes import FEWEST_ITEMS
from lcbench.reporting.tables.thirds import LENGTHS, LengthScores, Thirds, scores_by_third
from lcbench.reporting.text import MISSING_VALUE, group_heading, two_decimals
from lcbench.system.words import several

if TYPE_CHECKING:
    from lcbench.reporting.tables.choice import Choice, ModelChoice

DATA = "repairs.csv"
"""The file with one value per row."""

_HEADER = ("group", "window", "model", "revision", "repair", "column", "quantity", "value")

# The provenance of a cell, by label of the block, policy and task.
Provenance = Mapping[tuple[str, str, str], Mapping[str, Any]]

# Encoding that takes less than this, in seconds, says nothing of a rate.
_LEAST_SECONDS = 1.0
# Tokens of two encodings that are compared differ by no more: another window or chunks read others,
# and short texts that a repair leaves as they are are not encoded again.
_SAME_TOKENS = 0.05

_FROM_STORE = "embeddings from the store"
_OTHER_MACHINE = "cells of another machine"
_OTHER_TOKENS = "other numbers of tokens"
_TOO_SHORT = "encoded in less than a second"


@dataclass(frozen=True)
class Speed:
    """The speed of encoding under a repair.

    Attributes:
        ratio: tokens per second divided by the baseline's; None: not comparable.
        why: reason why it is not comparable, or a remark.
    """

    ratio: float | None
    why: str = ""


@dataclass(frozen=True)
class RepairRow:
    """A repair of a model.

    Attributes:
        policy: repair in canonical form.
        improvements: relative improvements in % by column, `Avg` and third of length; None is a
            missing value.
        known: their uncertainty, in bands over all repairs of the model.
        held_out: number of tasks for which it is the best candidate on the other tasks; None: it
            is not a candidate (`choice.ModelChoice.candidates`).
        speed: speed of encoding.
        vectors: vectors per document.
        exported: whether `lcbench export` can write a model with it, or under which condition.
    """

    policy: str
    improvements: Mapping[str, float | None]
    known: Mapping[str, Uncertainty]
    held_out: int | None
    speed: Speed
    vectors: str
    exported: str


@dataclass(frozen=True)
class RepairComparison:
    """The repairs of a model.

    Attributes:
        group: group of its table.
        block: block of the model.
        columns: names of the suite's columns.
        rows: repairs in the order of the block.
        length_tasks: tasks whose items are averaged by thirds of length.
        choice: choice of a repair; None: there is none.
    """

    group: str
    block: Block
    columns: tuple[str, ...]
    rows: tuple[RepairRow, ...]
    length_tasks: tuple[str, ...] = ()
    choice: ModelChoice | None = field(default=None, repr=False)


def compare_repairs(
    table: ScoreTable,
    statistics: TableStatistics,
    choice: Choice | None,
    provenance: Provenance,
    thirds: Sequence[Thirds],
) -> tuple[RepairComparison, ...]:
    """Return the repairs of each model of a table.

    Args:
        table: one of `table1.build_tables`.
        statistics: statistics of the table, with bands over all repairs.
        choice: choice of a repair, if any.
        provenance: of the cells.
        thirds: items of the table's tasks by thirds of length.
    """
    draws = statistics.draws
    chosen = {} if choice is None else {one.label: one for one in choice.models}
    found = []
    for block in table.blocks:
        own = [one for one in thirds if (one.group, one.label) == (table.group, block.label)]
        lengths = scores_by_third(
            block,
            own,
            {} if draws is None else draws.families,
            statistics.resamples,
            statistics.seed,
        )
        held_out: Mapping[str, int] = {}
        if block.label in chosen:
            choices = chosen[block.label]
            counts = Counter(choices.held_out.values())
            held_out = {policy: counts[policy] for policy in choices.candidates}
        rows = tuple(
            _row(block, policy, table.column_names, statistics.means, lengths, held_out, provenance)
            for policy in block.policies
            if policy != BASELINE
        )
        if rows:
            found.append(
                RepairComparison(
                    table.group,
                    block,
                    tuple(column.name for column in table.columns),
                    rows,
                    () if lengths is None else lengths.tasks,
                    chosen.get(block.label),
                )
            )
    return tuple(found)


def repair_table(group: str, compared: Sequence[RepairComparison]) -> Table | None:
    """Return the repairs of the models of a group, a row each; None without any.

    Args:
        group: group of the table.
        compared: its models.
    """
    if not compared:
        return None
    columns = compared[0].columns
    sections = tuple(
        Section(one.block.label, tuple(_entries(one, row) for row in one.rows)) for one in compared
    )
    return Table(
        name="repairs",
        title=f"Repairs compared: {group_heading(group)}",
        header=(
            "Repair",
            *columns,
            AVERAGE,
            *LENGTHS,
            "Best for",
            "Speed",
            "Vectors",
            "Exported",
        ),
        labels=1,
        sections=sections,
        notes=tuple(_notes(compared)),
        scores=group,
        data=DATA,
    )


def repair_values(compared: Iterable[RepairComparison]) -> Table:
    """Return the values of the repair tables, one per row, for programs.

    `quantity` is improvement, low and high (in %), held_out, speed, vectors or exported.
    """
    rows: list[tuple[float | str | None, ...]] = []
    for one in compared:
        window = "" if one.block.window is None else str(one.block.window)
        for row in one.rows:
            key = (one.group, window, one.block.model, one.block.revision, row.policy)
            for column, value in row.improvements.items():
                known = row.known.get(column)
                rows += [
                    (*key, column, "improvement", value),
                    (*key, column, "low", None if known is None else known.low),
                    (*key, column, "high", None if known is None else known.high),
                ]
            held_out = None if row.held_out is None else float(row.held_out)
            rows += [
                (*key, "", "held_out", held_out),
                (*key, "", "speed", row.speed.ratio),
                (*key, "", "vectors", row.vectors),
                (*key, "", "exported", row.exported),
            ]
    return of_values("repairs", "Values of the repair tables", _HEADER, rows)


def _row(
    block: Block,
    policy: str,
    columns: Sequence[str],
    means: Mapping[tuple[str, str, str], Uncertainty],
    lengths: LengthScores | None,
    held_out: Mapping[str, int],
    provenance: Provenance,
) -> RepairRow:
    improvements = {column: block.improvements[policy][column] for column in columns}
    known = {
        column: means[block.label, policy, column]
        for column in columns
        if (block.label, policy, column) in means and improvements[column] is not None
    }
    for third in LENGTHS:
        improvements[third] = None if lengths is None else lengths.improvements[policy][third]
        if lengths is not None and (policy, third) in lengths.means:
            known[third] = lengths.means[policy, third]
    parts = parts_of(policy)
    return RepairRow(
        policy,
        improvements,
        known,
        held_out.get(policy),
        speed_of(block, policy, provenance),
        vectors_of(parts),
        exported(parts),
    )


def vectors_of(parts: Mapping[str, str]) -> str:
    """Return how many vectors a document has under a repair, in words."""
    return "1 per chunk" if parts.get("chunks", "").startswith("max") else "1"


def exported(parts: Mapping[str, str]) -> str:
    """Return whether `lcbench export` can write a model with a repair, or under which condition.

    Args:
        parts: of the repair in canonical form (`repair.parts_of`).
    """
    answers = {_EXPORTED.get(key, _never)(value) for key, value in parts.items()}
    return next((one for one in ("no", "unless by length", "with on=") if one in answers), "yes")


def _tau_exported(tau: str) -> str:
    if tau.startswith("heads"):
        # The file says; its digest is in the name.
        return "unless by length"
    constant = temperature(tau.removesuffix("_bias=kept")) is not None
    return "yes" if constant or tau.startswith("layers") else "no"


def _extension_exported(extension: str) -> str:
    by_text = extension.startswith(("selfextend", "longrope")) or ",short=" in extension
    return "no" if by_text else "yes"


def _correction_exported(correction: str) -> str:
    if correction.startswith("centre_bins"):
        return "no"
    return "yes" if ",on=" in correction else "with on="


def _always(value: str) -> str:
    return "yes"


def _never(value: str) -> str:
    return "no"


# Of each part of a repair, as `run.export` has it.
_EXPORTED = {
    "extend": _extension_exported,
    "gain": _always,
    "tau": _tau_exported,
    "correct": _correction_exported,
}


def speed_of(block: Block, policy: str, provenance: Provenance) -> Speed:
    """Return the speed of encoding under a repair, relative to the baseline.

    Tokens per second are compared over the tasks of which both encoded about as many tokens on the
    same hardware. A correction does not change the speed.

    Args:
        block: block of the model.
        policy: repair in canonical form.
        provenance: of the cells of the block.
    """
    ours, raw = _encodings(block, policy, provenance), _encodings(block, BASELINE, provenance)
    if _encoding(policy) == BASELINE:
        return Speed(1.0, "its texts are encoded as the baseline's")
    tasks = [task for task in ours if task in raw]
    if not tasks:
        return Speed(None, _FROM_STORE)
    alike = [task for task in tasks if ours[task].hardware == raw[task].hardware]
    if not alike:
        return Speed(None, _OTHER_MACHINE)
    same = [
        task
        for task in alike
        if abs(ours[task].tokens - raw[task].tokens) <= _SAME_TOKENS * raw[task].tokens
    ]
    if not same:
        return Speed(None, _OTHER_TOKENS)
    tokens, seconds = (sum(getattr(ours[task], key) for task in same) for key in _AMOUNTS)
    raw_tokens, raw_seconds = (sum(getattr(raw[task], key) for task in same) for key in _AMOUNTS)
    if min(seconds, raw_seconds) < _LEAST_SECONDS:
        return Speed(None, _TOO_SHORT)
    counted = f"{tokens:,.0f} tokens in {seconds:.1f} s, the baseline in {raw_seconds:.1f} s"
    return Speed((tokens / seconds) / (raw_tokens / raw_seconds), counted)


_AMOUNTS = ("tokens", "seconds")


@dataclass(frozen=True)
class _Encoded:
    """The tokens that a cell encoded, in which time and on which hardware."""

    tokens: float
    seconds: float
    hardware: Any


def _encoding(policy: str) -> str:
    """Return the repair without its correction, in canonical form."""
    return canonical_of({key: value for key, value in parts_of(policy).items() if key != "correct"})


def _encodings(block: Block, policy: str, provenance: Provenance) -> dict[str, _Encoded]:
    """Return what was encoded under a repair by task: by the first cells that needed it."""
    found: dict[str, _Encoded] = {}
    for other in block.policies:
        if _encoding(other) != _encoding(policy):
            continue
        for task in block.tasks:
            record = provenance.get((block.label, other, task.task), {})
            tokens, seconds = record.get("encoded_tokens"), record.get("seconds_encode")
            if not isinstance(tokens, int | float) or not isinstance(seconds, int | float):
                continue
            known = found.get(task.task)
            if tokens > 0 and seconds > 0 and (known is None or tokens > known.tokens):
                found[task.task] = _Encoded(tokens, seconds, record.get("hardware"))
    return found


def _entries(one: RepairComparison, row: RepairRow) -> tuple[Entry, ...]:
    def change(column: str) -> Entry:
        source: Source | None = None
        if column not in LENGTHS:
            source = (one.block.label, row.policy, column)
        return improvement(row.improvements[column], row.known.get(column), source)

    speed = formatted(row.speed.ratio, ".2f")
    return (
        name(label_of(row.policy)),
        *(change(column) for column in (*one.columns, AVERAGE, *LENGTHS)),
        Entry(MISSING_VALUE) if row.held_out is None else Entry(str(row.held_out), row.held_out),
        Entry(speed.text, speed.value, tooltip=row.speed.why),
        name(row.vectors),
        name(row.exported),
    )


def _notes(compared: Sequence[RepairComparison]) -> Iterable[str]:
    tried = max(len(one.rows) for one in compared)
    rows = [row for one in compared for row in one.rows]
    is_unknown = any(
        value is not None and column not in row.known
        for row in rows
        for column, value in row.improvements.items()
    )
    unknown = "; ▲ ▼ not in bold: unknown" if is_unknown else ""
    yield (
        "Relative improvements in %. ▲ ▼ in bold: significant, by bands over all repairs of a "
        f"model ({tried}), so that it holds for the best of them too; △ ▽: not significant"
        f"{unknown}."
    )
    if tasks := list(dict.fromkeys(task for one in compared for task in one.length_tasks)):
        yield (
            "Short, Medium, Long: each task's items in thirds by the length of their text (of a "
            "query that of its longest relevant document) before truncation, averaged over "
            f"{several(len(tasks), 'task')}: {', '.join(tasks)}. Tasks without a score for each "
            f"item, such as clusterings, and of fewer than {3 * FEWEST_ITEMS} items are left out."
        )
    for one in compared:
        if one.choice is not None:
            yield (
                f"{one.block.label}, Best for: the number of tasks, of "
                f"{len(one.choice.held_out)}, for which it is chosen as the best repair of the "
                "other tasks, without those that share items. Such a choice gains "
                f"{two_decimals(one.choice.held_out_gain)} % of Avg."
            )
    yield (
        "Speed: tokens per second of encoding relative to the baseline, as recorded while the "
        "cells were run, over tasks of which both encoded about as many tokens on the same "
        "hardware. Corrections do not take part in encoding."
    )
    reasons: dict[str, list[str]] = {}
    for one in compared:
        for row in one.rows:
            if row.speed.ratio is None:
                reasons.setdefault(row.speed.why, []).append(label_of(row.policy))
    for why, those in reasons.items():
        yield f"Speed not comparable ({why}): {', '.join(dict.fromkeys(those))}."
    yield (
        "Vectors: per document. Exported: whether lcbench export can write a model with it; with "
        "on=: if the correction is fitted on a set of texts (correct={centre: {on: docstrings}})."
    )
