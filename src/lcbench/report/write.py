"""Write the report of a run or of a folder: tables to the screen and to files, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lcbench.errors import RequestError
from lcbench.files import write_atomically
from lcbench.report.imported import join_revisions
from lcbench.report.table1 import Table, build_tables
from lcbench.results import group_name
from lcbench.settings import shipped_suites
from lcbench.tasks.registry import TaskChoice, registry
from lcbench.tasks.suites import Suite, column_of, resolve

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from lcbench.results import Results
    from lcbench.settings import ReportSettings, Settings
    from lcbench.sweep import Outcome


def report_run(
    settings: Settings,
    results: Results,
    outcome: Outcome,
    console: Console,
    warn: Callable[[str], None],
) -> None:
    """Report the cells of one run, and no others, into `<results_dir>/report`."""
    scores = results.read(partial(column_of, suites=settings.suites), warn, outcome.cells)
    policies: dict[str, list[str]] = {}
    for cell in outcome.cells:
        asked = policies.setdefault(cell.model, [])
        if cell.policy.canonical not in asked:
            asked.append(cell.policy.canonical)
    if scores.empty:
        return
    # What a run asks for is one table, also where a benchmark takes some languages of some tasks.
    scores["group"] = group_name(asdict(settings.protocol))
    names = [task.name for task in settings.tasks]
    expected = _expected(names, scores, settings.suites)
    tables = build_tables(scores, expected, policies)
    _write(tables, scores, settings.results_dir / "report", console)


def report_folder(
    settings: ReportSettings, results: Results, console: Console, warn: Callable[[str], None]
) -> None:
    """Report all results of a folder.

    Raises:
        RequestError: there are none.
    """
    suites = shipped_suites()
    scores = results.read(partial(column_of, suites=suites), warn)
    names = None if settings.tasks is None else [task.name for task in settings.tasks]
    if names is not None:
        scores = scores[scores["task"].isin(names)]
        scores = _as_asked(scores, settings.tasks or ())
    scores, notes = join_revisions(scores, settings.tasks or ())
    if scores.empty:
        raise RequestError(
            f"results_dir={settings.results_dir} has no results"
            f"{' of these tasks' if names else ''}; `python -m lcbench` makes some."
        )
    expected = None if names is None else _expected(names, scores, suites)
    tables = [
        replace(table, notes=(*notes.get(table.group, ()), *table.notes))
        for table in build_tables(scores, expected)
    ]
    _write(tables, scores, settings.report_dir, console)


def _as_asked(scores: pd.DataFrame, choices: Sequence[TaskChoice]) -> pd.DataFrame:
    """Put what a benchmark takes of its tasks into one table, as a run of that benchmark does.

    A benchmark takes some languages of some tasks; by their protocols alone those are of another
    table than the rest.
    """
    if all(choice.subsets is None and choice.splits is None for choice in choices):
        return scores
    of_name = {choice.name: choice for choice in choices}
    records = scores.to_dict("records")
    ours = [row for row in records if not row["imported"] and not row["protocol"].get("docs")]
    others = [row for row in records if row["imported"] or row["protocol"].get("docs")]
    requests: dict[tuple[str, str, str, tuple[str, ...] | None], None] = {}
    for row in ours:
        base = _base(row["protocol"])
        requests[(*base, None)] = None
        requests[(*base, _subsets(row["protocol"]))] = None
    groups: dict[Any, list[int]] = {}
    for request in requests:
        groups[request] = [
            place
            for place, row in enumerate(ours)
            if _base(row["protocol"]) == request[:3]
            and _is_part(row["protocol"], of_name[row["task"]], request[3])
        ]
    kept: list[tuple[Any, set[int]]] = []
    for request, places in sorted(groups.items(), key=lambda item: -len(item[1])):
        if places and not any(set(places) <= larger for _, larger in kept):
            kept.append((request, set(places)))
    rows = [
        {
            **ours[place],
            "group": group_name(
                dict(zip(("name", "prompts", "dtype", "subsets"), request, strict=True))
            ),
        }
        for request, places in kept
        for place in sorted(places)
    ]
    return type(scores)([*rows, *others], columns=list(scores.columns))


def _base(protocol: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(protocol.get("name")), str(protocol.get("prompts")), str(protocol.get("dtype"))


def _subsets(protocol: Mapping[str, Any]) -> tuple[str, ...] | None:
    subsets = protocol.get("subsets")
    return None if subsets is None else tuple(subsets)


def _is_part(
    protocol: Mapping[str, Any], choice: TaskChoice, subsets: tuple[str, ...] | None
) -> bool:
    """Whether a result is what a request of these subsets takes of a task."""
    try:
        part = resolve(choice, "test", subsets)
    except RequestError:
        return False
    asked = part.asked_subsets, part.asked_splits
    return asked == (_subsets(protocol), protocol.get("splits"))


def _expected(
    tasks: Sequence[str], scores: pd.DataFrame, suites: Sequence[Suite]
) -> Mapping[str, Sequence[str]]:
    """Return the tasks that a table should have, by column, also those without any result."""
    columns = dict(zip(scores["task"], scores["column"], strict=True))
    expected: dict[str, list[str]] = {}
    for task in tasks:
        column = columns.get(task) or column_of(task, _kind(task, suites), suites)
        expected.setdefault(column, []).append(task)
    return expected


def _kind(task: str, suites: Sequence[Suite]) -> str | None:
    """Return the type of a task in mteb, for one that no suite names and that has no result."""
    if any(task in suite.tasks for suite in suites):
        return None
    return registry().tasks[task].kind


def _write(tables: Sequence[Table], scores: pd.DataFrame, folder: Path, console: Console) -> None:
    # Imported late: a report that finds nothing to say does not need them.
    from lcbench.report import lengths, paper, render

    by_length = lengths.build_length_tables(scores, tables)
    compared = paper.compare(scores)
    for table in tables:
        console.print(render.terminal(table))
    if by_length:
        console.print(render.terminal_lengths(by_length))
    texts = {
        "table1.md": render.markdown(tables) + render.markdown_lengths(by_length),
        "table1.csv": render.csv(tables),
        "table1.tex": render.latex(tables),
        "tasks.csv": render.csv_tasks(tables),
    }
    if compared:
        console.print(render.terminal_paper(compared))
        texts["table1.md"] += "\n" + render.markdown_paper(compared)
        texts["paper.csv"] = render.csv_paper(compared)
    else:
        (folder / "paper.csv").unlink(missing_ok=True)
    if by_length:
        texts["lengths.csv"] = render.csv_lengths(by_length)
    else:
        (folder / "lengths.csv").unlink(missing_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, _writer(text))
    names = [*texts, *_draw(tables, folder)]
    console.print(Text(f"Written to {folder}: {', '.join(names)}", style="dim"))


def _draw(tables: Sequence[Table], folder: Path) -> list[str]:
    """Write the figures, each whole or not at all, and return their names; remove older ones."""
    from lcbench.report import figures

    with TemporaryDirectory(prefix="lcbench-") as temporary:
        drawn = figures.plot_improvement(tables, Path(temporary) / "improvement")
        for path in drawn:
            write_atomically(folder / path.name, _copier(path))
    for suffix in (".png", ".svg") if not drawn else ():
        (folder / f"improvement{suffix}").unlink(missing_ok=True)
    return [path.name for path in drawn]


def _copier(source: Path) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(source.read_bytes())


def _writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")
