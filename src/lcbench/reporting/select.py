"""Selects the cells to report for a run, a sweep or a folder, and arranges them in tables.

`findings` computes the results, and `publish` writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcbench.errors import NoResultsError, RequestError, did_you_mean
from lcbench.repair.repair import label_of
from lcbench.reporting.intervals import compare_pair
from lcbench.reporting.revisions import join_revisions
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import RESAMPLES, SEED
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.paper import in_papers_order
from lcbench.results.cell import texts_of
from lcbench.results.folder import Results
from lcbench.results.rows import group_name
from lcbench.system.files import check_writable
from lcbench.tasks.limit import quick_look
from lcbench.tasks.mteb_tasks import MtebSource
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.source import Source, source_of
from lcbench.tasks.suites import Suite, column_of, resolve, shipped_suites
from lcbench.tasks.texts import kind_of_own

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.reporting.publish import Report, Step
    from lcbench.tuning.options import Across


# Fields of a protocol that do not differ between the tasks of a request.
_OF_ALL_TASKS = (
    *("name", "prompts", "dtype", "pooling", "own_code", "limit"),
    *("dimensions", "special_tokens"),
)


@dataclass(frozen=True)
class Extent:
    """What a report covers.

    Attributes:
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of all draws.
        models: names or labels of the models to report; two or more are also compared. None: all.
        against: second folder of results to compare with, or None.
        repairs: whether repairs are compared even if all are of one kind, such as temperatures.
        across: what recommendations of a repair are cross-validated over, or `auto`; None: there
            are none.
    """

    resamples: int = RESAMPLES
    seed: int = SEED
    models: tuple[str, ...] | None = None
    against: Path | None = None
    repairs: bool = False
    across: Across | Literal["auto"] | None = None


WHOLE = Extent()
"""All models, the default number of samples, no second folder."""

_SOURCES = (MtebSource(),)
# Tasks with results that a message names.
_MOST_NAMED = 10


@dataclass(frozen=True)
class AskedCell:
    """A requested cell.

    Attributes:
        model: name of the model.
        policy: policy in canonical form.
        path: path of its result, whether or not it exists.
    """

    model: str
    policy: str
    path: Path


@dataclass(frozen=True)
class Request:
    """The request of a run or a sweep, as its report shows it.

    Attributes:
        label: name of the run or sweep.
        cells: requested cells.
        tasks: names of the tasks, in the order of the request.
        suites: suites that give tasks their columns.
        sources: sources of the tasks.
        splits: the protocol's rule for splits.
        subsets: subsets that the protocol is restricted to; None: all.
    """

    label: str
    cells: Sequence[AskedCell]
    tasks: Sequence[str]
    suites: Sequence[Suite]
    sources: Sequence[Source]
    splits: str
    subsets: tuple[str, ...] | None


@dataclass(frozen=True)
class Selected:
    """The selected cells of a report, in tables.

    Attributes:
        tables: tables in the layout of Table 1.
        scores: frame of scores that they were built from.
        results: folder of results.
        folder: folder of the report.
    """

    tables: Sequence[ScoreTable]
    scores: pd.DataFrame
    results: Results
    folder: Path


def report_run(
    request: Request,
    results: Results,
    report_dir: Path | None,
    warn: Callable[[str], None],
    extent: Extent = WHOLE,
    step: Step | None = None,
) -> Report | None:
    """Compute the report of the cells of one request only.

    Args:
        request: the cells, and how they are shown.
        results: folder of results.
        report_dir: folder of the report; None: `report` in the folder of results, or a folder in it
            named after the request if `report` also shows other results.
        warn: receives a line about each file that is left out.
        extent: what the report covers.
        step: receives progress.

    Returns:
        The report, not yet written (`publish`); None if no cell has a result.

    Raises:
        RequestError: a model or the second folder has no results, or the report's folder cannot be
            written.
    """
    selected = select_run(request, results, report_dir, warn, extent.models)
    return None if selected is None else find(selected, warn, extent, step)


def select_run(
    request: Request,
    results: Results,
    report_dir: Path | None,
    warn: Callable[[str], None],
    models: Sequence[str] | None = None,
) -> Selected | None:
    """Select the cells of one request, in tables with an entry for each; see `report_run`."""
    paths = [cell.path for cell in request.cells]
    scores = results.read(partial(column_of, suites=request.suites), warn, paths)
    policies: dict[str, list[str]] = {}
    for cell in request.cells:
        of_model = policies.setdefault(cell.model, [])
        if cell.policy not in of_model:
            of_model.append(cell.policy)
    if scores.empty:
        return None
    # A run has one table, also if a benchmark takes only some languages of some tasks. Models with
    # different prompts are in separate tables.
    same = {"splits": request.splits, "subsets": request.subsets}
    scores["group"] = [group_name({**one, **same}) for one in scores["protocol"]]
    expected = _expected(request.tasks, scores, request.suites, request.sources)
    scores = of_models(scores, models)
    if models is not None:
        policies = {model: own for model, own in policies.items() if model in models}
    tables = _marked(build_tables(scores, expected, policies), scores)
    folder = report_dir or _own_folder(request.label, results, request.cells)
    return Selected(tables, scores, results, folder)


def _own_folder(label: str, results: Results, asked: Sequence[AskedCell]) -> Path:
    """Return the folder of a request's report; a partial one does not overwrite a complete one."""
    from lcbench.reporting.publish import cells_of

    folder = results.folder / "report"
    names = sorted({_name_of(cell.path, results) for cell in asked})
    if cells_of(folder) <= set(names):
        return folder
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return folder / f"{label.replace('/', '-')}-{digest}"


def _name_of(path: Path, results: Results) -> str:
    """Return a result's path below the folder of results; of another folder, the whole path."""
    below = path.is_relative_to(results.folder)
    return str(path.relative_to(results.folder) if below else path)


def report_folder(
    results: Results,
    tasks: Sequence[TaskChoice] | None,
    report_dir: Path | None,
    warn: Callable[[str], None],
    extent: Extent = WHOLE,
    step: Step | None = None,
    sources: Sequence[Source] = _SOURCES,
) -> Report:
    """Compute the report of all results of a folder.

    Args:
        results: the folder.
        tasks: tasks to report; None: all.
        report_dir: folder of the report; None: `report` in the folder of results.
        warn: receives a line about each file that is left out.
        extent: what the report covers.
        step: receives progress.
        sources: sources of tasks that are in no suite.

    Returns:
        The report, not yet written (`publish`).

    Raises:
        RequestError: the folder, a model or the second folder has no results, or the report's
            folder cannot be written.
    """
    selected = select_folder(results, tasks, report_dir, warn, extent.models, sources)
    return find(selected, warn, extent, step)


def select_folder(
    results: Results,
    tasks: Sequence[TaskChoice] | None,
    report_dir: Path | None,
    warn: Callable[[str], None],
    models: Sequence[str] | None = None,
    sources: Sequence[Source] = _SOURCES,
) -> Selected:
    """Select the cells of a folder, in tables; see `report_folder`."""
    suites = shipped_suites()
    scores = in_papers_order(results.read(partial(column_of, suites=suites), warn))
    names = None if tasks is None else [task.name for task in tasks]
    there = list(dict.fromkeys(map(str, scores["task"])))
    if names is not None:
        scores = scores[scores["task"].isin(names)]
        scores = _as_asked(scores, tasks or (), sources)
    scores, notes = join_revisions(scores, tasks or ())
    if scores.empty:
        what = ""
        if names is not None:
            others = ", ".join(there[:_MOST_NAMED]) + (" …" if len(there) > _MOST_NAMED else "")
            what = f" of these tasks{f', only of {others}' if others else ''}"
        raise NoResultsError(
            f"results_dir={results.folder} has no results{what}; `python -m lcbench` makes some."
        )
    scores = of_models(scores, models)
    expected = None if names is None else _expected(names, scores, suites, sources)
    tables = [
        replace(table, notes=(*notes.get(table.group, ()), *table.notes))
        for table in _marked(build_tables(scores, expected), scores)
    ]
    return Selected(tables, scores, results, report_dir or results.folder / "report")


def _marked(tables: Sequence[ScoreTable], scores: pd.DataFrame) -> list[ScoreTable]:
    """Mark tables as a quick look, in their first note."""
    limits = {
        group: protocol["limit"]
        for group, protocol in zip(scores["group"], scores["protocol"], strict=True)
        if protocol.get("limit") is not None
    }
    parts: dict[str, dict[str, None]] = {}
    for group, task, left_out in zip(
        scores["group"], scores["task"], scores["left_out"], strict=True
    ):
        if left_out:
            listed = ", ".join(f"{reason} ({count:,})" for reason, count in left_out.items())
            parts.setdefault(group, {})[f"{task}: left out of the texts: {listed}"] = None
    return [
        replace(
            table,
            notes=(
                *((quick_look(limits[table.group]),) if table.group in limits else ()),
                *parts.get(table.group, ()),
                *table.notes,
            ),
        )
        for table in tables
    ]


def of_models(scores: pd.DataFrame, models: Sequence[str] | None) -> pd.DataFrame:
    """Return the scores of some models, given by names (see `_names`).

    Raises:
        RequestError: one of them has no results.
    """
    if models is None:
        return scores
    names = [
        _names(str(model), label)
        for model, label in zip(scores["model"], scores["label"], strict=True)
    ]
    for asked in models:
        if not any(asked.lower() in of_row for of_row in names):
            present = dict.fromkeys(map(str, scores["model"]))
            labels = [one for one in dict.fromkeys(scores["label"]) if isinstance(one, str)]
            near = did_you_mean(asked, [*present, *map(_last, present), *labels])
            labelled = f" (labels: {', '.join(labels)})" if labels else ""
            raise RequestError(
                f"models={asked}: there are no results of it here, only of "
                f"{', '.join(present)}{labelled}.{near}"
            )
    kept = {asked.lower() for asked in models}
    return scores[[not kept.isdisjoint(of_row) for of_row in names]]


def _names(model: str, label: Any) -> set[str]:
    """Return what a model can be called: its name on the hub, the last part of it, its label."""
    names = {model.lower(), _last(model).lower()}
    return names | {label.lower()} if isinstance(label, str) else names


def _in_order(table: ScoreTable, models: Sequence[str]) -> list[str]:
    """Return the labels of a table's models, in the order of the names that are asked for."""
    places = {asked.lower(): place for place, asked in reversed(list(enumerate(models)))}
    return [
        block.label
        for block in sorted(
            table.blocks,
            key=lambda one: min(
                (places[name] for name in _names(one.model, one.label) if name in places),
                default=len(places),
            ),
        )
    ]


def policies_named(asked: Sequence[str], scores: pd.DataFrame) -> list[str]:
    """Return the repairs of some results that names stand for, by their canonical names.

    Args:
        asked: canonical names, or names as tables have them ("τ = 0.9", "centre").
        scores: the results.

    Raises:
        RequestError: there are no results under one of them.
    """
    present = dict.fromkeys(map(str, scores["policy"]))
    named: list[str] = []
    for one in asked:
        found = [policy for policy in present if one in (policy, label_of(policy))]
        if not found:
            raise RequestError(
                f"repairs={one}: there are no results of it here, only of {', '.join(present)}."
            )
        named += [policy for policy in found if policy not in named]
    return named


def _last(model: str) -> str:
    return model.rpartition("/")[2]


def _as_asked(
    scores: pd.DataFrame, choices: Sequence[TaskChoice], sources: Sequence[Source]
) -> pd.DataFrame:
    """Join a benchmark's parts of tasks in one table, as a run of that benchmark does.

    A benchmark takes only some languages of some tasks. Their protocol differs from that of the
    other tasks, which would put them in a separate table.
    """
    if all(choice.subsets is None and choice.splits is None for choice in choices):
        return scores
    of_name = {choice.name: choice for choice in choices}
    records = scores.to_dict("records")
    # None is NaN in a frame that has imported results as well.
    apart = [isinstance(row["imported"], str) or bool(texts_of(row["protocol"])) for row in records]
    ours = [row for row, is_apart in zip(records, apart, strict=True) if not is_apart]
    others = [row for row, is_apart in zip(records, apart, strict=True) if is_apart]
    requests: dict[tuple[Any, ...], None] = {}
    for row in ours:
        base = _base(row["protocol"])
        requests[(*base, None)] = None
        requests[(*base, _subsets(row["protocol"]))] = None
    groups: dict[Any, list[int]] = {}
    for request in requests:
        groups[request] = [
            place
            for place, row in enumerate(ours)
            if _base(row["protocol"]) == request[:-1]
            and _is_part(row["protocol"], of_name[row["task"]], request[-1], sources)
        ]
    kept: list[tuple[Any, set[int]]] = []
    for request, places in sorted(groups.items(), key=lambda item: -len(item[1])):
        if places and not any(set(places) <= larger for _, larger in kept):
            kept.append((request, set(places)))
    rows = [
        {
            **ours[place],
            "group": group_name(dict(zip((*_OF_ALL_TASKS, "subsets"), request, strict=True))),
        }
        for request, places in kept
        for place in sorted(places)
    ]
    return type(scores)([*rows, *others], columns=list(scores.columns))


def _base(protocol: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(protocol.get(name) for name in _OF_ALL_TASKS)


def _subsets(protocol: Mapping[str, Any]) -> tuple[str, ...] | None:
    subsets = protocol.get("subsets")
    return None if subsets is None else tuple(subsets)


def _is_part(
    protocol: Mapping[str, Any],
    choice: TaskChoice,
    subsets: tuple[str, ...] | None,
    sources: Sequence[Source],
) -> bool:
    """Return whether a result is the part of a task that a request of these subsets includes."""
    try:
        part = resolve(choice, "test", subsets, sources)
    except RequestError:
        return False
    asked = part.asked_subsets, part.asked_splits
    return asked == (_subsets(protocol), protocol.get("splits"))


def _expected(
    tasks: Sequence[str],
    scores: pd.DataFrame,
    suites: Sequence[Suite],
    sources: Sequence[Source],
) -> Mapping[str, Sequence[str]]:
    """Return the expected tasks of a table by column, including those without results."""
    columns = dict(zip(scores["task"], scores["column"], strict=True))
    expected: dict[str, list[str]] = {}
    for task in tasks:
        column = columns.get(task) or column_of(task, _kind(task, suites, sources), suites)
        expected.setdefault(column, []).append(task)
    return expected


def _kind(task: str, suites: Sequence[Suite], sources: Sequence[Source]) -> str | None:
    """Return the type in mteb of a task that is in no suite and has no result."""
    if any(task in suite.tasks for suite in suites):
        return None
    return kind_of_own(task) or source_of(task, sources).kind(task)


def find(
    selected: Selected,
    warn: Callable[[str], None],
    extent: Extent = WHOLE,
    step: Step | None = None,
) -> Report:
    """Compute the report of selected cells, and make its folder.

    Raises:
        RequestError: the second folder has no results, or the report's folder cannot be written.
    """
    tables, scores, results = selected.tables, selected.scores, selected.results
    folder = selected.folder
    there = None
    if extent.against is not None:
        there = Results(extent.against).read(partial(column_of, suites=shipped_suites()), warn)
        if there.empty:
            raise RequestError(f"against={extent.against} has no results.")
    # Imported late: they are not needed if there is nothing to report.
    from threadpoolctl import threadpool_limits

    from lcbench.reporting import document
    from lcbench.reporting.findings import gather
    from lcbench.reporting.publish import Report, file_of_another
    from lcbench.reporting.table import distinct
    from lcbench.reporting.tables import comparison
    from lcbench.reporting.tables.models import difference_table

    if (name := file_of_another(folder)) is not None:
        raise RequestError(
            f"{folder / name} is of another program, and a report would write over it. Move it "
            "away, or name another folder: python -m lcbench report report_dir=PATH."
        )
    _check_writable(folder)
    # Tasks are processed in parallel: BLAS's own threads would only wait for one another.
    with threadpool_limits(limits=1, user_api="blas"):
        found = gather(
            *(tables, scores, extent.resamples, extent.seed, step, extent.repairs, extent.across)
        )
    shown = list(found.tables)
    after_main = len(found.score_tables)
    if extent.models is not None:
        for one in reversed(found.score_tables):
            labels = _in_order(one.table, extent.models)
            if len(labels) > 1:
                made = comparison.compare_models(one.table, one.statistics, labels)
                shown.insert(after_main, made)
        for pairs in reversed(found.models):
            labels = _in_order(pairs.of.models, extent.models)
            shown.insert(after_main, difference_table(pairs, labels))
        if len(extent.models) > 1 and not found.models:
            groups = "; ".join(table.group for table in tables)
            warn(
                f"models={','.join(extent.models)}: not compared, since their scores are of "
                f"different conditions: {groups}."
            )
    if there is not None:
        names = str(extent.against), str(results.folder)
        compare = partial(compare_pair, resamples=extent.resamples, seed=extent.seed)
        asked = compare if extent.resamples else None
        progress = None if step is None else partial(step, "comparing with the second folder")
        made = comparison.compare_folders(there, scores, names, asked, progress)
        shown.insert(after_main, made)
    found = replace(found, tables=distinct(shown))
    cells = frozenset(_name_of(files.result, results) for files in set(scores["files"]))
    return Report(found, document.build(found, document.title(found)), folder, cells)


def _check_writable(folder: Path) -> None:
    """Make the folder, and check that it can be written.

    Raises:
        RequestError: it cannot be written; the message names the key.
    """
    try:
        check_writable(folder)
    except OSError as error:
        raise RequestError(
            f"report_dir={folder} cannot be written: {error.strerror or error}. "
            "Name another folder: report_dir=PATH."
        ) from error
