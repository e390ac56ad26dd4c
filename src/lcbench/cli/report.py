"""`python -m lcbench report`: the tables and figures of a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from lcbench.api.report import find_report
from lcbench.cli.console import screen, warn

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from lcbench.reporting.publish import Report, Step


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.settings.read import read_report

    show(partial(find_report, read_report(config), warn), screen())
    return 0


def show(find: Callable[[Step | None], Report | None], console: Console) -> None:
    """Print a report's tables, write its files, and say where they are.

    Args:
        find: returns what there is to report, if anything. Its argument is told how far it is.
        console: where to print.

    Raises:
        RequestError: there is nothing to report, or nowhere to write it.
        StorageError: the report's folder cannot be written.
    """
    from rich.text import Text

    with _bars(console) as step:
        report = find(step)
    if report is None:
        return
    # Imported late: a report that finds nothing to say does not need them.
    from lcbench.cli.tables import tables_of
    from lcbench.reporting.publish import PAGE, publish

    for table in tables_of(report.findings):
        console.print(table)
    for line in report.words:
        console.print(Text(line))
    with _bars(console) as step:
        files = publish(report, step)
    top = [name for name in files if "/" not in name and name != PAGE]
    folders = sorted({f"{name.partition('/')[0]}/" for name in files if "/" in name})
    written = f"Written to {report.folder}: {', '.join([*top, *folders])}"
    console.print(Text(written, style="dim"))
    console.print(Text(f"The page: {report.folder / PAGE}"), soft_wrap=True)


@contextmanager
def _bars(console: Console) -> Iterator[Step | None]:
    """Show on a terminal what is being worked out, and how much of it is done."""
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = Progress(*columns, console=console, transient=True)
    bars: dict[str, Any] = {}
    with ExitStack() as stack:

        def tell(what: str, done: int, total: int) -> None:
            if not bars:
                # Not before: while it is shown, warnings would go to standard output.
                stack.enter_context(shown)
            if what not in bars:
                bars[what] = shown.add_task(what, total=total)
            shown.update(bars[what], completed=done, total=total)

        yield tell
