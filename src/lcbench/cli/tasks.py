"""`python -m lcbench tasks`: lists suites and tasks, their sizes, and where their data is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lcbench.cli.console import ConsoleObserver, emit_csv, plain_table, screen, warn
from lcbench.errors import RequestError
from lcbench.hub.datasets import check_mirror, find, plain_folder, point_at
from lcbench.system.words import several
from lcbench.tasks.registry import SPLITS_RULE, Registry, TaskChoice, TaskEntry, registry
from lcbench.tasks.sizes import rounded
from lcbench.tasks.source import Part
from lcbench.tasks.suites import column_of, resolve, why_left_out

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console
    from rich.table import Table

    from lcbench.settings.schema import TasksSettings

_UNKNOWN = "?"
# Width of the column of names, which leaves room for the others; all the suites' names fit.
_TASK_WIDTH = 40
_SPLITS_WIDTH = 10
# States of data that cannot be scored, the worst first.
_NOT_WHOLE = ("unreadable", "other data", "in part")


@dataclass(frozen=True)
class Row:
    """A task of a listing.

    Attributes:
        group: suite, benchmark or task that was requested.
        column: column of Table 1.
        task: name of the task.
        kind: type in mteb.
        splits: splits that are scored, joined by commas.
        subsets: number of subsets that are scored.
        texts: number of texts to encode, including repetitions; None: unknown.
        unique: number of different texts.
        characters: number of characters in all texts.
        data: location of the data (`hub.datasets.find`; `tasks.source.Origin.listed_as`, such as
            `made here`); for a plain folder of a mirror also `other data` (with another number of
            texts) or `unreadable`; None: missing.
    """

    group: str
    column: str
    task: str
    kind: str
    splits: str
    subsets: int
    texts: int | None
    unique: int | None
    characters: int | None
    data: str | None


@dataclass(frozen=True)
class BenchmarkRow:
    """A benchmark of mteb.

    Attributes:
        benchmark: name of the benchmark.
        tasks: number of its tasks.
        run_here: number of tasks that can be run here: public and text only.
    """

    benchmark: str
    tasks: int
    run_here: int


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.settings.read import read_tasks

    settings = read_tasks(config)
    check_mirror(settings.mirror)
    for task in settings.left_out:
        warn(f"left out: {task}.")
    if settings.benchmarks:
        benchmarks = list_benchmarks(registry())
        if settings.format == "csv":
            emit_csv(BenchmarkRow, benchmarks)
        else:
            screen().print(_benchmark_table(benchmarks))
        return 0
    with ConsoleObserver(screen()).doing("reading tasks and looking for their data"):
        rows = list_tasks(settings)
    if settings.format == "csv":
        emit_csv(Row, [row for group in rows.values() for row in group])
    else:
        _print_groups(rows, screen())
    return 0


def list_tasks(settings: TasksSettings) -> dict[str, list[Row]]:
    """Return the rows of each group: a suite, or a requested task or benchmark.

    Raises:
        RequestError: nothing of a task is left under the request.
    """
    return {
        name: [_row(name, choice, settings) for choice in choices]
        for name, choices in settings.groups.items()
    }


def list_benchmarks(known: Registry) -> list[BenchmarkRow]:
    """Return all benchmarks by name, including those that cannot be run here."""
    return [
        BenchmarkRow(
            name, len(choices), sum(not why_left_out(known.tasks[one.name]) for one in choices)
        )
        for name, choices in sorted(known.benchmarks.items(), key=lambda item: item[0].lower())
    ]


def _row(group: str, choice: TaskChoice, settings: TasksSettings) -> Row:
    part = resolve(choice, SPLITS_RULE, settings.subsets, settings.sources)
    kind = part.source.kind(part.name)
    texts = part.source.texts(part)
    return Row(
        group=group,
        column=column_of(part.name, kind, settings.suites),
        task=part.name,
        kind=kind,
        splits=",".join(part.splits),
        subsets=len(_subsets_of(part)),
        texts=None if texts is None else sum(one.count for one in texts),
        unique=None if texts is None else sum(one.unique for one in texts),
        characters=None if texts is None else sum(one.characters for one in texts),
        data=_where(part, settings),
    )


def _subsets_of(part: Part) -> tuple[str, ...]:
    if part.subsets is not None:
        return part.subsets
    return tuple(part.source.subsets(part.name))


def _where(part: Part, settings: TasksSettings) -> str | None:
    """Return the location of a task's data; for an aggregate, of all its parts."""
    if (origin := part.source.origin) is not None:
        return None if part.source.missing(part.name) else origin.listed_as
    locations = [_where_one(entry, part, settings) for entry, _ in part.source.datasets(part)]
    if None in locations:
        return None
    return next((one for one in _NOT_WHOLE if one in locations), locations[0])


def _where_one(entry: TaskEntry, part: Part, settings: TasksSettings) -> str | None:
    try:
        location = find(entry, _subsets_of(part), settings.mirror)
    except RequestError:
        return "unreadable"
    # A plain folder only has the dataset's name; its content shows whether it is that dataset.
    plain = plain_folder(entry.dataset, entry.revision, settings.mirror) is not None
    if location != "mirror" or not plain:
        return location
    from lcbench.hub.contents import DataError, load
    from lcbench.system.quiet import quiet_libraries

    quiet_libraries()
    splits = part.splits if part.name == entry.name else entry.splits
    task = part.source.make(replace(part, name=entry.name, splits=splits))
    try:
        point_at(task, settings.mirror)
        differs = load(task)
    except (RequestError, DataError):
        return "unreadable"
    finally:
        task.unload_data()
    return "mirror" if all(one.is_tolerable for one in differs) else "other data"


def _print_groups(groups: Mapping[str, Sequence[Row]], console: Console) -> None:
    from rich.text import Text

    for name, rows in groups.items():
        here = sum(row.data not in (None, *_NOT_WHOLE) for row in rows)
        console.print(
            Text(
                f"{name}: {several(len(rows), 'task')}, "
                f"{_total(row.texts for row in rows)} texts, "
                f"{_total(row.unique for row in rows)} of them different, "
                f"{_total(row.characters for row in rows)} characters; the data of {here} is here"
            ),
            soft_wrap=True,
        )
        console.print(_table(rows))


def _total(numbers: Iterable[int | None]) -> str:
    """Return a sum in words, with `at least` if some values are unknown."""
    numbers = list(numbers)
    known = rounded(sum(number for number in numbers if number is not None))
    return f"at least {known}" if None in numbers else known


def _table(rows: Sequence[Row]) -> Table:
    from rich.text import Text

    table = plain_table()
    # Names are typed in requests: they may be folded, but are never cut.
    longest = max(len(row.task) for row in rows) + 1
    table.add_column("task", overflow="fold", min_width=min(longest, _TASK_WIDTH))
    table.add_column("type", overflow="fold", max_width=14)
    table.add_column("splits", no_wrap=True)
    for name in ("sub-\nsets", "texts", "unique", "chars"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("data", no_wrap=True)
    column = ""
    columns = list(dict.fromkeys(row.column for row in rows))
    for row in sorted(rows, key=lambda row: columns.index(row.column)):
        if row.column != column:
            table.add_row(Text(row.column, style="bold"))
            column = row.column
        table.add_row(
            Text(f" {row.task}"),
            Text(row.kind),
            Text(_shortened(row.splits)),
            str(row.subsets),
            *(
                _UNKNOWN if number is None else rounded(number)
                for number in (row.texts, row.unique, row.characters)
            ),
            Text(row.data or "not here", style="" if row.data else "dim"),
        )
    return table


def _shortened(splits: str) -> str:
    """Return the names of splits, or their number if there is no room."""
    return splits if len(splits) <= _SPLITS_WIDTH else f"{splits.count(',') + 1} splits"


def _benchmark_table(rows: Sequence[BenchmarkRow]) -> Table:
    from rich.text import Text

    table = plain_table()
    table.add_column("benchmark", overflow="fold")
    table.add_column("tasks", justify="right")
    table.add_column("can be run here", justify="right")
    for row in rows:
        table.add_row(Text(row.benchmark), str(row.tasks), str(row.run_here))
    return table
