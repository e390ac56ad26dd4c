"""The report of measurements of collapse: sentences, tables, figures and a page.

Measures nothing: it shows what `lcbench.measures` has found.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lcbench
from lcbench.measures import files
from lcbench.measures.crowding import Answer
from lcbench.reporting import document, page
from lcbench.reporting.figures.collapse import by_length, by_sentences, figures_of, points_of
from lcbench.reporting.figures.inside import TITLES, inside_panels
from lcbench.reporting.figures.panels import Curves
from lcbench.reporting.figures.paper import by_number, panels_of, sentence_of, stem_of, title_of
from lcbench.reporting.figures.position import position_figures
from lcbench.reporting.formats import csv, latex, markdown
from lcbench.reporting.table import Table, as_json
from lcbench.reporting.tables.collapse import tables_of
from lcbench.reporting.tables.inside import head_table, inside_headlines, inside_tables
from lcbench.reporting.tables.measurements import (
    is_significant,
    length_range,
    name_of,
    ordered,
    repair_of,
    signed,
    with_distinct_labels,
)
from lcbench.system.files import write_atomically

if TYPE_CHECKING:
    from lcbench.measures.estimates import Estimate
    from lcbench.measures.figures import PaperFigure
    from lcbench.measures.files import InsideMeasurement, Measurement
    from lcbench.measures.retrieval import Retrieval

PAGE = "index.html"
_DOCUMENT = "collapse.json"
# Names of files that these reports write; no others are removed.
_OURS = re.compile(
    r"index\.html|collapse\.(json|md)|(tables|figures)/[\w-][\w.-]*\.(csv|tex|png|svg)"
)


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        folder: where.
        files: names below it.
        shown: tables that a terminal shows.
        headlines: sentences on each measurement.
    """

    folder: Path
    files: tuple[str, ...]
    shown: tuple[Table, ...]
    headlines: tuple[str, ...]


def answer_of(measurement: Measurement) -> Answer:
    """Return whether a model collapses, or that it cannot be told."""
    found = measurement.collapse
    if found.crowding is not None:
        return found.crowding.verdict.collapses
    return "cannot be told" if found.by_length is None else found.by_length.beyond_averaging


def headlines_of(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """Return sentences on each measurement, the baseline of each model first."""
    lines = []
    for one in ordered(measurements):
        found = one.collapse
        if found.crowding is not None:
            lines.append(f"{name_of(one)}, {repair_of(one)}, {one.task}: {found.crowding.verdict}")
        elif found.by_length is not None:
            lines.append(
                f"{name_of(one)}, {one.task}: collapses beyond averaging: {answer_of(one)}. "
                "From the shortest to the longest texts the mean cosine changes by "
                f"{signed(found.by_length.change)}."
            )
        if found.change is not None:
            unsure = "" if is_significant(found.change.length) else ", not significant"
            lines.append(
                f"{name_of(one)}, {repair_of(one)} against the baseline: the rise changes by "
                f"{signed(found.change.rise)}, length itself by "
                f"{signed(found.change.length)}{unsure}."
            )
        if found.retrieval is not None:
            lines.append(f"{name_of(one)}, {repair_of(one)}, {one.task}: {_said(found.retrieval)}")
        if found.without_retrieval:
            lines.append(f"{one.task}: retrieval is not measured: {found.without_retrieval}.")
        lines += [f"{name_of(one)}, {one.task}: {note}." for note in found.notes]
    return tuple(dict.fromkeys(lines))


def _said(found: Retrieval) -> str:
    """Return two sentences on retrieval by length of documents."""
    overall = found.overall
    if found.shorter is None or found.longer is None or found.difference is None:
        first = (
            "what the length of documents does to retrieval cannot be told, for the relevant ones "
            f"are read to {length_range(overall.shortest, overall.longest)} tokens."
        )
    else:
        first = (
            f"a shorter document scores above a longer relevant one in {_percent(found.shorter)} % "
            f"of pairs, a longer one above a shorter relevant one in {_percent(found.longer)} % "
            f"(difference {signed(found.difference)})."
        )
    others = overall.dilution_of_others
    compared = "" if others is None else f", of other documents {signed(others)}"
    (claim,) = {part.answer for part in found.moderations if part.local == "mean"}
    return (
        f"{first} The best chunk of the relevant document scores {signed(overall.dilution)} above "
        f"the whole{compared}; that anisotropy harms only where shift is strong: {claim}."
    )


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.1f}"


def report(
    measurements: Sequence[Measurement],
    folder: Path,
    paper: Sequence[PaperFigure] = (),
    inside: Sequence[InsideMeasurement] = (),
) -> Written:
    """Write the report of measurements into a folder, and return what was written.

    Files of an older report in it are removed.

    Args:
        measurements: of any models, temperatures and tasks.
        folder: where to.
        paper: figures of the paper that are made of the same models and texts.
        inside: measurements inside models.

    Raises:
        StorageError: the folder cannot be written.
    """
    from lcbench.reporting.figures.printed import csv_text, written

    measurements, inside = (
        with_distinct_labels(measurements, inside),
        with_distinct_labels(inside, measurements),
    )
    tables = (*tables_of(measurements), *inside_tables(inside))
    headlines = (*headlines_of(measurements), *inside_headlines(inside))
    sentences = tuple(map(sentence_of, paper))
    panels = {"sentences": by_sentences(measurements), "lengths": by_length(measurements)}
    panels |= inside_panels(inside)
    panels |= {stem_of(number): panels_of(group) for number, group in by_number(paper).items()}
    described = describe(measurements, tables, headlines, panels, paper, inside)
    files = {
        "collapse.md": "\n".join(
            ["# Length collapse", "", *(f"- {line}" for line in (*headlines, *sentences)), ""]
            + [markdown(table) for table in tables]
        ),
        PAGE: page.build(described),
    }
    for table in (*tables, *head_table(inside)):
        files[f"tables/{table.name}.csv"] = csv(table)
        files[f"tables/{table.name}.tex"] = latex(table)
    for stem, drawn in panels.items():
        if drawn:
            files[f"figures/{stem}.csv"] = csv_text(
                ("panel", "series", "of", "at", "value", "low", "high"), points_of(drawn)
            )
    older = _older(folder)
    for path, content in files.items():
        write_atomically(folder / path, content)
    names = [_DOCUMENT, *files]
    for stem, drawn in panels.items():
        if drawn:
            draw = partial(figures_of, drawn)
            if stem == stem_of("position"):
                placed = [one for one in paper if one.number == "position"]
                draw = partial(position_figures, placed)
            paths = written(draw, folder / "figures" / stem)
            names += [f"figures/{path.name}" for path in paths]
    # Tables and figures of other texts would pass for those of this report.
    for name in older - set(names):
        (folder / name).unlink(missing_ok=True)
    described["files"] = sorted(names)
    write_atomically(folder / _DOCUMENT, document.dumps(described))
    return Written(folder, tuple(names), tables[:2], headlines + sentences)


def _older(folder: Path) -> set[str]:
    """Return the files that an older report in a folder lists as its own."""
    try:
        listed = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))["files"]
        return {name for name in listed if _OURS.fullmatch(name)}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return set()


def describe(
    measurements: Sequence[Measurement],
    tables: Sequence[Table],
    headlines: Sequence[str],
    panels: dict[str, list[Curves]],
    paper: Sequence[PaperFigure],
    inside: Sequence[InsideMeasurement] = (),
) -> dict[str, Any]:
    """Return the report as plain values for JSON, as the page takes it."""
    from lcbench.reporting.figures.interactive import DARK, TEMPLATE, Charts, curves_view

    charts = Charts()
    titles = {"sentences": "Mean cosine by number of sentences", "lengths": "Mean cosine by length"}
    titles |= TITLES
    notes: dict[str, list[str]] = {}
    for number, group in by_number(paper).items():
        titles[stem_of(number)] = title_of(number)
        notes[stem_of(number)] = list(map(sentence_of, group))
    shown = [
        {
            **charts.add(
                titles[stem],
                map(curves_view, drawn),
                [("Of", [panel.title for panel in drawn])],
            ),
            "notes": notes.get(stem, []),
        }
        for stem, drawn in panels.items()
        if drawn
    ]
    models = list(dict.fromkeys([*map(name_of, measurements), *map(name_of, inside)]))
    models = models or list(dict.fromkeys(one.model.rpartition("/")[2] for one in paper))
    named = ", ".join(models) if len(models) <= 3 else f"{len(models)} models"
    return {
        "title": f"Length collapse: {named}",
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "version": lcbench.__version__,
        "findings": list(headlines),
        "tables": [as_json(table) for table in tables],
        "figures": {
            "charts": shown,
            "template": TEMPLATE,
            "dark": DARK,
            "views": charts.views,
        },
        "measurements": [_described(one) for one in measurements],
        "inside": [_without_texts(files.as_json(one)) for one in inside],
        "paper_figures": [{**asdict(one), "sentence": sentence_of(one)} for one in paper],
    }


def _without_texts(inside: dict[str, Any]) -> dict[str, Any]:
    """Return a measurement inside a model without the values of each text, which are many."""
    for layer in inside["inside"]["layers"]:
        del layer["of_texts"]
    return inside


def _described(one: Measurement) -> dict[str, Any]:
    whole = files.as_json(one)
    return {**whole, "answer": answer_of(one), "record": json.loads(json.dumps(whole["record"]))}
