"""Notes below Table 1: missing values and why, versions that differ, how τ was chosen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import (
    AVERAGE,
    BASELINE,
    Block,
    Cells,
    Column,
    TaskScores,
    has_several_kinds,
    is_candidate,
    word_of,
)

# Maximum number of names that a note lists; and number of names listed if there are more.
_MOST_NAMES = 6
_FIRST_NAMES = 5

_KEPT_BIAS = "_bias=kept"
# Collective names of policies, by the beginnings of their names.
_KINDS = {"query=": "by role", "layers_": "by layer", "length_": "by length"}


@dataclass(frozen=True)
class Reason:
    """Why a score does not count, as the text before and after the names of tasks."""

    before: str
    after: str = ""

    def text(self, tasks: Sequence[str]) -> str:
        return f"{self.before}{joined(tasks)}{self.after}"


MISSING = Reason("missing ")
NO_SCORE = Reason("no score (NaN) for ")
NO_BASELINE = Reason("no baseline (τ = 1) for ")
BASELINE_WITHOUT_SCORE = Reason("no score (NaN) in the baseline for ")


def candidate_policies(tasks: Sequence[TaskScores], policies: Sequence[str]) -> list[str]:
    """Return the policies that the line "ours" is chosen among: constants, as in the paper; all
    repairs where several kinds of them are compared.

    The best of dozens of temperatures by role or layer would be even more optimistic, and `choice`
    has no held-out gain to compare it with. Constants that do not scale a position bias come next,
    and others only if no constant has a score.
    """
    others = [policy for policy in policies if policy != BASELINE]
    if has_several_kinds(others):
        return others
    constant = [policy for policy in others if is_candidate(policy)]
    kept = [policy for policy in others if is_candidate(policy.replace(_KEPT_BIAS, ""))]
    for those in (constant, kept):
        if any(task.scores[policy] is not None for task in tasks for policy in those):
            return those
    return others


def missing_notes(
    cells: Cells,
    policies: Sequence[str],
    columns: Sequence[Column],
    reasons: Mapping[tuple[str, str], Reason],
) -> list[str]:
    """Return notes on missing and refused values, each once for all policies concerned."""
    names = {task for column in columns for task in column.tasks}
    empty = tuple(policy for policy in policies if not names & set(cells.get(policy, {})))
    notes = []
    if empty:
        notes.append(f", {_which(empty, policies)}: no results")
    if BASELINE in empty and len(empty) < len(policies):
        notes.append(f": no baseline (τ = {BASELINE}), so nothing can be compared")
    absent = {
        policy: those
        for policy in policies
        if policy not in empty and (those := _absent_columns(policy, columns, reasons))
    }
    alike: dict[tuple[str, ...], list[str]] = {}
    for policy, those in absent.items():
        alike.setdefault(tuple(column.name for column in those), []).append(policy)
    for lacking, concerned in alike.items():
        # A policy without any result also lacks these columns.
        which = _with_empty(concerned, empty, policies)
        rest = [column.name for column in columns if column.name not in lacking]
        what = f"only {listing(rest)}" if len(rest) <= len(lacking) else ""
        notes.append(f", {which}: {what or f'nothing of {listing(lacking)}'}")
    shared: dict[tuple[tuple[str, ...], Reason], list[tuple[str, str]]] = {}
    for column in columns:
        for task in column.tasks:
            affected: dict[Reason, list[str]] = {}
            for policy in policies:
                reason = reasons.get((policy, task))
                said_above = (
                    policy in empty
                    or column in absent.get(policy, ())
                    or (reason == NO_BASELINE and BASELINE in empty)
                )
                if reason is not None and not said_above:
                    affected.setdefault(reason, []).append(policy)
            for reason, concerned in affected.items():
                shared.setdefault((tuple(concerned), reason), []).append((column.name, task))
    for (those_policies, reason), places in shared.items():
        which = _which(those_policies, policies)
        if reason == MISSING:
            which = _with_empty(those_policies, empty, policies)
        where = listing(dict.fromkeys(column for column, _ in places))
        notes.append(f", {which}, {where}: {reason.text([task for _, task in places])}")
    return notes


def _absent_columns(
    policy: str, columns: Sequence[Column], reasons: Mapping[tuple[str, str], Reason]
) -> tuple[Column, ...]:
    """Return columns without any score of a policy, if they have too many tasks to list."""
    absent = tuple(
        column
        for column in columns
        if all(reasons.get((policy, task)) == MISSING for task in column.tasks)
    )
    return absent if sum(len(column.tasks) for column in absent) > _MOST_NAMES else ()


def _with_empty(those: Sequence[str], empty: Sequence[str], policies: Sequence[str]) -> str:
    """Return the policies in words: "every τ" if all others have no results."""
    every = (*those, *empty)
    return _which(every if set(every) == set(policies) else those, policies)


def choice_notes(block: Block) -> list[str]:
    """Return notes on how the policy of TempScale's line was chosen."""
    if block.best is None:
        return []
    candidates = candidate_policies(block.tasks, block.policies)
    constant = "constant " if len(candidates) < len(block.policies) - 1 else ""
    ours, raw = block.scores[block.best][AVERAGE], block.scores[BASELINE][AVERAGE]
    if ours is None or raw is None:
        if all(task.scores[block.best] is None for task in block.tasks):
            return []
        word, _ = word_of(candidates)
        return [f": no {constant}{word} has all tasks; {label_of(block.best)} has the most"]
    if ours > raw:
        return []
    incomplete = any(block.scores[policy][AVERAGE] is None for policy in candidates)
    one, _ = word_of(candidates)
    word = "temperature" if one == "τ" else one
    what = f"no {constant}{word}{' that has all tasks' if incomplete else ''}"
    return [f": {what} beat τ = {BASELINE}"]


def version_notes(
    cells: Cells,
    columns: Sequence[Column],
    reasons: Mapping[tuple[str, str], Reason],
) -> list[str]:
    """Return a note if tasks were scored with different versions of mteb."""
    tasks: dict[str, list[str]] = {}
    for task in (task for column in columns for task in column.tasks):
        cell = cells.get(BASELINE, {}).get(task)
        if cell is not None and (BASELINE, task) not in reasons:
            tasks.setdefault(cell.conditions.get("mteb_version", ""), []).append(task)
    if len(tasks) < 2:
        return []
    listed = "; ".join(f"{version or 'unknown'}: {joined(of)}" for version, of in tasks.items())
    return [f": scored by several versions of mteb ({listed})"]


def share_notes(block: Block) -> list[str]:
    """Return a note on columns with scores but without a relative improvement."""
    if block.best is None:
        return []
    columns = [
        name
        for name, raw in block.scores[BASELINE].items()
        if raw is not None and raw <= 0 and block.scores[block.best][name] is not None
    ]
    if not columns:
        return []
    return [f", {listing(columns)}: no relative improvement over a baseline of 0 or less"]


def _which(policies: Sequence[str], every: Sequence[str]) -> str:
    """Return the policies in words, with a collective name if there is one."""
    chosen = set(policies)
    word, _ = word_of(every)
    if len(every) > 1 and chosen == set(every):
        return f"every {word}"
    if len(every) > 2 and chosen == set(every) - {BASELINE}:
        return f"every {word} but {BASELINE if word == 'τ' else label_of(BASELINE)}"
    of_kind = {
        kind: {policy for policy in every if policy.startswith(start) and is_tau(policy)}
        for start, kind in _KINDS.items()
    }
    kinds = [kind for kind, those in of_kind.items() if those and those <= chosen]
    if len(chosen) > 1 and chosen == {policy for kind in kinds for policy in of_kind[kind]}:
        return f"every τ {listing(kinds)}"
    return taus(policies)


def is_tau(policy: str) -> bool:
    """Return whether a policy is a temperature alone, or the baseline."""
    return word_of([policy])[0] == "τ"


def taus(policies: Iterable[str]) -> str:
    """Return policies as in a sentence: "τ = 0.9 and 0.8", "τ = 0.9 and centre"."""
    policies = list(policies)
    if all(map(is_tau, policies)):
        return f"τ = {listing(policies)}"
    return listing(map(label_of, policies))


def listing(names: Iterable[str]) -> str:
    """Return names as in a sentence: "a", "a and b", "a, b and c", "a, b, c, d, e and 31 more"."""
    names = list(names)
    if len(names) > _MOST_NAMES:
        names = [*names[:_FIRST_NAMES], f"{len(names) - _FIRST_NAMES} more"]
    return listed(names)


def listed(names: Sequence[str]) -> str:
    """Return all names as in a sentence: "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def joined(names: Sequence[str]) -> str:
    """Return names as a list: "a, b, c"; many as in `listing`."""
    return ", ".join(names) if len(names) <= _MOST_NAMES else listing(names)
