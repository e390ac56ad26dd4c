"""`python -m lcbench report`: writes tables, figures and page for a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lcbench.api.report import collapse_folder, find_collapse, find_report
from lcbench.cli.console import announce, screen, warn
from lcbench.errors import NoResultsError
from lcbench.system.observer import SlowSteps
from lcbench.system.words import several

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from lcbench.reporting.publish import Report, Step
    from lcbench.reporting.table import Table
    from lcbench.settings.schema import ReportSettings

# Tables that are printed: the main ones, and those that a key asks for; others are in files.
_SHOWN = frozenset({"table1", "choice", "comparison", "differences", "models", "table2", "repairs"})
_ALL = "all"


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.settings.read import read_report

    settings, console = read_report(config), screen()
    measured = _show_collapse(settings, console)
    if measured and settings.manifest is not None:
        return 0
    try:
        show(partial(find_report, settings, warn), console, settings.show)
    except NoResultsError:
        # Of measurements alone nothing else can be said.
        if not measured:
            raise
    return 0


def _show_collapse(settings: ReportSettings, console: Console) -> bool:
    """Write the report of measurements of collapse, and return whether there are any."""
    from rich.text import Text

    from lcbench.reporting.collapse import PAGE

    measured, others = find_collapse(settings)
    if measured is None:
        return False
    written = measured.write(collapse_folder(settings))
    for line in written.headlines:
        console.print(Text(line))
    console.print(Text(f"Length collapse: {written.folder / PAGE}"), soft_wrap=True)
    if others:
        say = several(others, "measurement")
        warn(f"{say} of other options, protocols or revisions left out: repeat their command.")
    return True


def show(
    find: Callable[[Step], Report | None], console: Console, asked: Sequence[str] = ()
) -> Report | None:
    """Print a report's tables, write its files, and print their paths; return the report.

    The recommended repair, if the report has one, is the last line.

    Args:
        find: returns the findings, if there are any. Its argument receives progress.
        console: console to print on.
        asked: names of tables that are printed too; `all`: all of them.

    Raises:
        RequestError: there is nothing to report, nowhere to write it, or no table of a name.
        StorageError: the report's folder cannot be written.
    """
    from rich.text import Text

    with _bars(console, "reading results") as step:
        report = find(step)
    if report is None:
        return None
    # Imported late: they are not needed if there is nothing to report.
    from lcbench.cli.tables import rendered
    from lcbench.reporting.publish import PAGE, publish

    shown, others = _split(report.findings.tables, asked)
    for table in shown:
        console.print(rendered(table))
    console.print()
    for line in report.words:
        console.print(Text(line))
    with _bars(console, "writing the report") as step:
        files = publish(report, step)
    if others:
        names = ", ".join(table.name for table in others)
        console.print(
            Text(
                f"Further tables, in tables.md: {names}. To print all of them: "
                "python -m lcbench report show=all",
                "dim",
            )
        )
    top = [name for name in files if "/" not in name and name != PAGE]
    folders = sorted({f"{name.partition('/')[0]}/" for name in files if "/" in name})
    written = f"Written to {report.folder}: {', '.join([*top, *folders])}"
    console.print(Text(written, style="dim"))
    console.print(Text(f"Page: {report.folder / PAGE}"), soft_wrap=True)
    for line in report.advice:
        console.print(Text(line))
    return report


def _split(tables: Sequence[Table], asked: Sequence[str]) -> tuple[list[Table], list[Table]]:
    """Return the tables that are printed, and the others.

    Raises:
        RequestError: there is no table of a name that is asked for.
    """
    from lcbench.errors import RequestError, did_you_mean

    names = [table.name for table in tables]
    for name in asked:
        if name != _ALL and name not in names:
            raise RequestError(
                f"show={name}: the report has no such table.{did_you_mean(name, names)} It has: "
                f"{', '.join(names)}."
            )
    shown = [
        table
        for table in tables
        if _ALL in asked or table.name in asked or table.name.split("-")[0] in _SHOWN
    ]
    return shown, [table for table in tables if table not in shown]


@contextmanager
def _bars(console: Console, what: str) -> Iterator[Step]:
    """Show progress bars on a terminal; elsewhere announce steps that take long, one line each.

    Args:
        console: where bars are drawn.
        what: first step, which ends when the first progress of another one is received.
    """
    if not console.is_terminal:
        with SlowSteps(announce) as steps:
            steps.begin(what)

            def follow(step: str, done: int, total: int) -> None:
                steps.end(what)
                steps.begin(step)
                if done >= total:
                    steps.end(step)

            yield follow
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Warnings still go to standard error.
    shown = Progress(*columns, console=console, transient=True, redirect_stderr=False)
    bars: dict[str, Any] = {}
    with shown:
        first = shown.add_task(what, total=None)

        def tell(step: str, done: int, total: int) -> None:
            shown.update(first, visible=False)
            if step not in bars:
                bars[step] = shown.add_task(step, total=total)
            shown.update(bars[step], completed=done, total=total)

        yield tell
