"""Write the report of a run or of a folder: tables to the screen and to files, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lcbench import manifest
from lcbench.errors import RequestError
from lcbench.files import write_atomically
from lcbench.report.imported import join_revisions
from lcbench.report.table1 import Table, build_tables
from lcbench.results import Results, group_name
from lcbench.settings import shipped_suites, thaw
from lcbench.tasks.registry import TaskChoice, registry
from lcbench.tasks.suites import Suite, column_of, resolve

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from lcbench.settings import ReportSettings, Settings


@dataclass(frozen=True)
class AskedCell:
    """A cell that a request asks for.

    Attributes:
        model: its name.
        policy: in canonical form.
        path: of its result, whether it is there or not.
    """

    model: str
    policy: str
    path: Path


def report_run(
    settings: Settings,
    results: Results,
    asked: Sequence[AskedCell],
    report_dir: Path,
    console: Console,
    warn: Callable[[str], None],
) -> None:
    """Report the cells of one request, and no others."""
    paths = [cell.path for cell in asked]
    scores = results.read(partial(column_of, suites=settings.suites), warn, paths)
    policies: dict[str, list[str]] = {}
    for cell in asked:
        of_model = policies.setdefault(cell.model, [])
        if cell.policy not in of_model:
            of_model.append(cell.policy)
    if scores.empty:
        return
    # What a run asks for is one table, also where a benchmark takes some languages of some tasks.
    scores["group"] = group_name(asdict(settings.protocol))
    names = [task.name for task in settings.tasks]
    expected = _expected(names, scores, settings.suites)
    tables = build_tables(scores, expected, policies)
    _write(tables, scores, report_dir, console)


def report_sweep(
    path: Path, report_dir: Path | None, console: Console, warn: Callable[[str], None]
) -> None:
    """Report the cells of a frozen sweep, and no others.

    Args:
        path: of its manifest.
        report_dir: where to; None: `report` in the folder of its results.
        console: shows the tables.
        warn: told of every file that cannot be read.

    Raises:
        RequestError: there is no such sweep, or no cell of it is finished.
    """
    frozen = manifest.read(path)
    settings = thaw(frozen.settings, frozen.results_dir)
    asked = [
        AskedCell(line.model, line.policy, frozen.results_dir / line.folder / f"{line.task}.json")
        for line in frozen.lines
    ]
    if not any(cell.path.exists() for cell in asked):
        raise RequestError(f"manifest={path}: none of its {len(asked)} cells is finished.")
    results = Results(frozen.results_dir)
    report_run(settings, results, asked, report_dir or frozen.results_dir / "report", console, warn)


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
    _write(tables, scores, settings.report_dir or settings.results_dir / "report", console)


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
