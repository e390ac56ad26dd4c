"""Joins revisions of an imported model that have results of different tasks.

A public model's scores are in several folders: a commit that mteb ran, `external` for scores
reported by its authors, `no_revision_available` for runs before commits were recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.tasks.registry import TaskChoice

# Columns that identify an imported result.
_RESULT = ["group", "model", "task", "revision"]


def join_revisions(
    scores: pd.DataFrame, choices: Sequence[TaskChoice]
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Give each imported model one revision, whose name lists the joined ones.

    All subsets of a task are taken from one revision: preferably one that has all of them, then in
    the order of mteb's `BenchmarkResults.join_revisions`: the revision in mteb's registry, a run
    with a known version of mteb, a named revision, the newest version of mteb. Cells of lcbench are
    not changed.

    Args:
        scores: result of `Results.read`.
        choices: tasks of the table. If a benchmark takes only some subsets of a task, only those
            are needed.

    Returns:
        The scores, and by group notes on joined revisions and on tasks that lack subsets.
    """
    import pandas as pd

    theirs = scores["imported"].notna()
    if not theirs.any():
        return scores, {}
    imported = scores[theirs]
    for choice in choices:
        if choice.subsets is not None:
            needless = (imported["task"] == choice.name) & ~imported["subset"].isin(choice.subsets)
            imported = imported[~needless]
    best = _best_revisions(imported)
    joined = []
    notes: dict[str, list[str]] = {}
    for (group, model), rows in best.groupby(["group", "model"], sort=False):
        tasks = rows["revision"].value_counts(sort=False)
        revisions = sorted(tasks.index, key=lambda revision: (-tasks[revision], revision))
        said = notes.setdefault(group, [])
        if len(revisions) > 1:
            parts = (f"{revision} ({_tasks(tasks[revision])})" for revision in revisions)
            said.append(f"{model}: joined from the revisions {', '.join(parts)}")
        lacking = [
            f"{row.task} ({row.missing} of {row.subsets})"
            for row in rows.itertuples()
            if row.missing
        ]
        if lacking:
            said.append(f"{model}: no score where subsets are missing: {', '.join(lacking)}")
        joined.append(rows[_RESULT].assign(joined=" + ".join(revisions)))
    kept = imported.merge(pd.concat(joined), on=_RESULT)
    kept["revision"] = kept.pop("joined")
    return pd.concat([scores[~theirs], kept], ignore_index=True), notes


def _best_revisions(imported: pd.DataFrame) -> pd.DataFrame:
    """Return the result to take per group, model and task, and how many subsets it lacks."""
    results = (
        imported.assign(missing=imported["score"].isna())
        .groupby(_RESULT, as_index=False)
        .agg(
            missing=("missing", "sum"),
            subsets=("missing", "size"),
            imported=("imported", "first"),
            conditions=("conditions", "first"),
        )
    )
    results["merit"] = [
        _merit(not row.missing, row.imported, row.conditions.get("mteb"))
        for row in results.itertuples()
    ]
    ordered = results.sort_values("merit", ascending=False, kind="stable")
    return ordered.drop_duplicates(["group", "model", "task"]).sort_index()


def _merit(complete: bool, imported: str, mteb: str | None) -> tuple[Any, ...]:
    """Return a sort key for results of different revisions; the best one is the largest."""
    version = _version(mteb)
    return (
        complete,
        imported == "pinned",
        version is not None,
        imported in ("pinned", "revision"),
        version or Version("0"),
    )


def _version(text: str | None) -> Version | None:
    """Return a version of mteb, or the lower end of a range, or None if unknown."""
    try:
        return Version(str(text).partition("-")[0])
    except InvalidVersion:
        return None


def _tasks(number: int) -> str:
    return f"{number} task{'' if number == 1 else 's'}"
