"""Writes a report into its folder: tables, figures with their data, and the page."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lcbench.errors import StorageError
from lcbench.reporting import document, page, summary
from lcbench.reporting.advice_text import sentences
from lcbench.reporting.formats import csv, latex, markdown
from lcbench.reporting.processes import in_processes
from lcbench.reporting.score_table import AVERAGE
from lcbench.reporting.tables import (
    main_results,
    matrix,
    paper_comparison,
    repairs,
    splits_by_length,
)
from lcbench.reporting.text import group_heading, markdown_text
from lcbench.system.files import without_links, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lcbench.reporting.findings import Findings
    from lcbench.reporting.tables.by_length import LengthBuckets

PAGE = "index.html"

DOCUMENT = "report.json"
# The list of files being written, which is also the lock of the writing process.
_JOURNAL = ".report-files"
_LOCK_SECONDS = 60.0

# Names of files that reports write. Other files that a `report.json` lists, perhaps of another
# program, are not removed.
_OURS = re.compile(
    r"index\.html|report\.json|(table1|tables)\.(md|csv|tex)|(tasks|paper|lengths|repairs)\.csv"
    r"|table1-\d+\.tex|tables/[\w-][\w.-]*\.(csv|tex)"
    r"|figures/((improvement|forest|roles|repairs|windows)(-\d+)?|by-length-[\w-]+)\.(png|svg|pdf|csv)"
)
# Keys that every version's report.json has.
_KEYS = {"title", "version", "tables"}
# The mark in the head of a page (`page.html`), and the number of characters in which it is looked
# for, since a policy and two lines come before.
_GENERATOR = '<meta name="generator" content="lcbench'
_HEAD = 4096
# Maximum length of a task's name in the name of a file.
_UNSAFE = re.compile(r"[^\w-]")

Step = Callable[[str, int, int], None]
"""A function that receives the name of a step, how much of it is done, and the total."""


@dataclass(frozen=True)
class Report:
    """A report's results, and the folder that it is written to.

    Attributes:
        findings: tables, and the results that they are made from.
        described: the same as in the page and `report.json` (`document.build`).
        folder: folder to write, created if missing. Files of an older report in it are removed.
        cells: results that it shows, as `cells_of` will return them.
    """

    findings: Findings
    described: dict[str, Any]
    folder: Path
    cells: frozenset[str] = frozenset()

    @property
    def improvement(self) -> float | None:
        """The relative improvement on Avg in % of the best repair, the mean over the models.

        It is 0 for a model that has the baseline alone; None: one has missing values.
        """
        models = [model for table in self.described["score_tables"] for model in table["models"]]
        gains = []
        for model in models:
            best = model["best"]
            found = {"value": 0.0} if best is None else model["improvements"][best].get(AVERAGE)
            if found is None:
                return None
            gains.append(float(found["value"]))
        return fmean(gains) if gains else None

    @property
    def words(self) -> list[str]:
        """The findings in sentences, one per line."""
        paper = (self.described["paper"] or {"rows": ()})["rows"]
        tables = self.described["score_tables"]
        lines = []
        for table in tables:
            of_all, models = summary.findings(table, paper)
            several = f"{group_heading(table['group'])}: " if len(tables) > 1 else ""
            lines += [f"{several}{sentence}" for sentence in of_all]
            lines += [f"{several}{label}: {text}" for label, text in models]
        return lines

    @property
    def advice(self) -> list[str]:
        """The recommended repair of each model in sentences, one line per model, if any."""
        rows = {
            (one.group, one.block.label, row.policy): row
            for one in self.findings.repairs
            for row in one.rows
        }
        lines = []
        for one in self.findings.score_tables:
            group = one.table.group
            several = f"{group_heading(group)}: " if len(self.findings.score_tables) > 1 else ""
            for label, found in one.statistics.recommendations.items():
                if found.advice is not None:
                    said = sentences(found, rows.get((group, label, found.policy or "")))
                    lines.append(f"{several}{' '.join(said)}")
        return lines


def publish(report: Report, step: Step | None = None) -> list[str]:
    """Write a report after all of it has been made, `report.json` last.

    Args:
        report: the report.
        step: receives progress of the figures.

    Returns:
        The paths of its files relative to the report's folder, sorted.

    Raises:
        StorageError: the folder cannot be written.
    """
    findings, folder, described = report.findings, report.folder, dict(report.described)
    texts = _texts(findings)
    texts["table1.md"] = "\n\n".join([*map(markdown_text, report.words), texts["table1.md"]])
    texts[PAGE] = page.build(described)
    with TemporaryDirectory(prefix="lcbench-") as temporary:
        figures = [Path(temporary) / name for name in _draw(findings, Path(temporary), step)]
        files = {*texts, DOCUMENT, *(f"figures/{path.name}" for path in figures)}
        # So that the next report knows which files to remove.
        described["files"] = sorted(files)
        described["cells"] = sorted(report.cells)
        with _alone(folder) as journal:
            older = _older(folder)
            # If this process is killed, the next report removes what it has written.
            _replace(journal, json.dumps(sorted(older | files)))
            for name, text in texts.items():
                write_atomically(folder / name, text)
            for path in figures:
                write_atomically(folder / "figures" / path.name, path.read_bytes())
            for name in older - files:
                (folder / name).unlink(missing_ok=True)
            write_atomically(folder / DOCUMENT, document.dumps(described))
    return sorted(files)


def cells_of(folder: Path) -> frozenset[str]:
    """Return the results that the report in a folder shows; none if unknown, or no report.

    They are paths of files relative to the folder of results.
    """
    cells = (_document(folder) or {}).get("cells")
    return frozenset(map(str, cells)) if isinstance(cells, list) else frozenset()


def file_of_another(folder: Path) -> str | None:
    """Return the file of another program that a report would overwrite, or None.

    That is a `report.json` with other keys, or an `index.html` without lcbench's mark, unless it is
    next to a `report.json` of an older version of lcbench.
    """
    if (there := _parsed(folder)) is not None:
        return None if _is_ours(there) else DOCUMENT
    if PAGE in _older(folder):
        # From a report that was killed before it wrote report.json.
        return None
    try:
        with (folder / PAGE).open(encoding="utf-8", errors="replace") as file:
            return None if _GENERATOR in file.read(_HEAD) else PAGE
    except (FileNotFoundError, NotADirectoryError):
        # Whether the folder can be written is checked elsewhere.
        return None
    except OSError:
        return PAGE


def _is_ours(there: Any) -> bool:
    return isinstance(there, dict) and there.keys() >= _KEYS


def _document(folder: Path) -> dict[str, Any] | None:
    """Return the content of an older report.json of lcbench in a folder, or None."""
    there = _parsed(folder)
    return there if _is_ours(there) else None


def _parsed(folder: Path) -> Any:
    """Return the content of a folder's report.json; None if it is missing or not JSON."""
    try:
        return json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _older(folder: Path) -> set[str]:
    """Return the files that an older report lists as its own; others are left alone."""
    listed = (_document(folder) or {}).get("files")
    names = list(listed) if isinstance(listed, list) else []
    with suppress(OSError, ValueError, TypeError, RecursionError):
        names += json.loads((folder / _JOURNAL).read_text(encoding="utf-8"))
    return {name for name in names if isinstance(name, str) and _OURS.fullmatch(name)}


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Lock a folder for one report at a time; yield the file that lists what is written.

    The lock ends with its process. On a file system without locks, two reports at once may be
    mixed.

    Raises:
        StorageError: the folder cannot be written, or another report holds the lock for too long.
    """
    journal = folder / _JOURNAL
    until = time.monotonic() + _LOCK_SECONDS
    while (descriptor := _locked(journal)) is None:
        if time.monotonic() > until:
            raise StorageError(
                f"{folder}: another report is being written there. Name another folder: "
                "report_dir=PATH."
            )
        time.sleep(0.1)
    try:
        yield journal
        with suppress(OSError):
            journal.unlink()
    finally:
        os.close(descriptor)


def _locked(journal: Path) -> int | None:
    """Return the descriptor of a file that this process has locked; None if another has.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise StorageError(f"{journal} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # A file system without locks.
        return descriptor
    # The former owner may have removed it at its end.
    with suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), journal.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _replace(journal: Path, text: str) -> None:
    """Overwrite the locked file in place, since a new file would not be locked.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with open(journal, "w", encoding="utf-8", opener=without_links) as file:
            file.write(text)
    except OSError as error:
        raise StorageError(f"{journal} cannot be written: {error.strerror}.") from error


def _texts(findings: Findings) -> dict[str, str]:
    """Return the text of each table file, by name."""
    score_tables, known = [found.table for found in findings.score_tables], findings.statistics
    main = [table for table in findings.tables if table.data == main_results.DATA]
    others = [table for table in findings.tables if table.data != main_results.DATA]
    values = {
        main_results.DATA: main_results.main_values(score_tables, known),
        matrix.DATA: matrix.task_values(score_tables, known),
    }
    if findings.lengths:
        values[splits_by_length.DATA] = splits_by_length.length_values(findings.lengths)
    if findings.repairs:
        values[repairs.DATA] = repairs.repair_values(findings.repairs)
    if findings.paper:
        values[paper_comparison.DATA] = paper_comparison.comparison_values(findings.paper)
    return {
        "table1.md": "\n".join(map(markdown, main)),
        **({"tables.md": "\n".join(map(markdown, others))} if others else {}),
        **{f"{table.name}.tex": latex(table) for table in main},
        **{f"tables/{table.name}.tex": latex(table) for table in others},
        **{f"tables/{table.name}.csv": csv(table) for table in others if not table.data},
        **{file: csv(table) for file, table in values.items()},
    }


def _draw(findings: Findings, folder: Path, step: Step | None) -> list[str]:
    """Draw the figures, each with its data, into a folder; return their names."""
    from lcbench.reporting.figures import (
        by_length,
        forest,
        improvement,
        roles,
        short_and_long,
        windows,
    )
    from lcbench.reporting.figures.printed import written

    tables, known = [found.table for found in findings.score_tables], findings.statistics
    # Only the baseline and the best τ, since seven curves would hide each other. Curves by query
    # length are in the table and on the page only.
    best = {
        block.label: [block.best]
        for table in tables
        for block in table.blocks
        if block.best is not None
    }
    curves: dict[str, list[LengthBuckets]] = {}
    for one in findings.by_length:
        if one.label in best and one.by != "query":
            curves.setdefault(one.task, []).append(one)
    grids = findings.role_grids
    plots: dict[str, tuple[Callable[[], Sequence[Figure]], Callable[[], str]]] = {
        "improvement": (
            partial(improvement.improvement_figures, tables, known),
            partial(improvement.improvement_csv, tables, known),
        ),
        "forest": (
            partial(forest.forest_figures, tables, known),
            partial(forest.forest_csv, tables, known),
        ),
        "repairs": (
            partial(short_and_long.repair_figures, findings.repairs),
            partial(short_and_long.repair_csv, findings.repairs),
        ),
        "windows": (
            partial(windows.windows_figures, findings.windows),
            partial(windows.windows_csv, findings.windows),
        ),
        "roles": (partial(roles.roles_figures, grids), partial(roles.roles_csv, grids)),
        **{
            f"by-length-{_UNSAFE.sub('_', task)}": (
                partial(by_length.by_length_figures, found, best),
                partial(by_length.by_length_csv, found),
            )
            for task, found in curves.items()
        },
    }

    def plot(name: str) -> None:
        draw, data = plots[name]
        if written(draw, folder / name):
            (folder / f"{name}.csv").write_text(data(), encoding="utf-8")

    progress = None if step is None else partial(step, "drawing figures")
    in_processes([partial(plot, name) for name in plots], progress)
    return sorted(path.name for path in folder.iterdir())
