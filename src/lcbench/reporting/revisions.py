"""One row of an imported model, out of the revisions that hold different tasks of it.

A public model's scores lie in several folders: a commit that mteb ran, `external` for what its
authors reported, `no_revision_available` for runs from before commits were recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.tasks.registry import TaskChoice

# What tells one imported result from another.
_RESULT = ["group", "model", "task", "revision"]


def join_revisions(
    scores: pd.DataFrame, choices: Sequence[TaskChoice]
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Give each imported model one revision, whose name says what it is made of.

    Each task is taken whole from one revision, by one rule for all: one that has all its subsets
    goes first, then the order of mteb's `BenchmarkResults.join_revisions`: the revision that mteb's
    registry names, a run whose version of mteb is known, a revision that is named, the newest
    version of mteb. Cells of ours are left as they are.

    Args:
        scores: as `Results.read` returns them.
        choices: the tasks of the table; a benchmark's that takes only some subsets of a task needs
            only those.

    Returns:
        the scores, and by group the notes that say which revisions were joined and which tasks
        lack subsets.
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
        holes = [
            f"{row.task} ({row.missing} of {row.subsets})"
            for row in rows.itertuples()
            if row.missing
        ]
        if holes:
            said.append(f"{model}: no score where subsets are missing: {', '.join(holes)}")
        joined.append(rows[_RESULT].assign(joined=" + ".join(revisions)))
    kept = imported.merge(pd.concat(joined), on=_RESULT)
    kept["revision"] = kept.pop("joined")
    return pd.concat([scores[~theirs], kept], ignore_index=True), notes


def _best_revisions(imported: pd.DataFrame) -> pd.DataFrame:
    """Return one row a group, model and task: the result to take, and how many subsets it lacks."""
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
    """Return what a result is compared with those of other revisions by, the best being highest."""
    version = _version(mteb)
    return (
        complete,
        imported == "pinned",
        version is not None,
        imported in ("pinned", "revision"),
        version or Version("0"),
    )


def _version(text: str | None) -> Version | None:
    """Return a version of mteb, the lower end of a range of them, or None if it is not known."""
    try:
        return Version(str(text).partition("-")[0])
    except InvalidVersion:
        return None


def _tasks(number: int) -> str:
    return f"{number} task{'' if number == 1 else 's'}"
