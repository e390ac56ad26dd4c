"""Measurements of collapse as data frames, sentences and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.api.measured import Found
    from lcbench.measures.figures import PaperFigure
    from lcbench.measures.files import InsideMeasurement, Measurement
    from lcbench.reporting.collapse import Written


@dataclass(frozen=True, repr=False)
class Collapses:
    """Measurements of collapse, as `lcbench.collapse` and `lcbench.report` return them.

    Attributes:
        measurements: measurements of embeddings, one for each model, repair and task, in the order
            of the request.
        inside: the same inside models.
        failed: measurements and figures that could not be made, each with the reason.
        figures: figures of the paper, one for each number, model and task.
        notes: limitations of the numbers.
        others: earlier measurements of other models and repairs on the same texts with equal
            options, which the report also shows; None: there are none.
    """

    measurements: tuple[Measurement, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    figures: tuple[PaperFigure, ...] = ()
    inside: tuple[InsideMeasurement, ...] = ()
    others: Collapses | None = None

    @classmethod
    def of(
        cls, found: Found, others: Found | None = None, failed: Mapping[str, str] | None = None
    ) -> Collapses:
        """Return measurements that were found in a results folder."""
        return cls(
            found.embeddings,
            failed or {},
            figures=tuple(one.figure for one in found.figures),
            inside=found.inside,
            others=cls.of(others) if others else None,
        )

    def __len__(self) -> int:
        """The number of measurements and figures, without `others`."""
        return len(self.measurements) + len(self.inside) + len(self.figures)

    @property
    def collapses(self) -> bool:
        """Whether any of the measured models collapses."""
        from lcbench.reporting.collapse import answer_of

        return any(answer_of(one) == "yes" for one in self.measurements)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name, with exact values: `tables["collapse"]`, `tables["lengths"]` …"""
        import io

        import pandas as pd

        from lcbench.reporting.formats import csv
        from lcbench.reporting.tables.collapse import tables_of
        from lcbench.reporting.tables.inside import head_table, inside_tables

        tables = (
            *tables_of(self.measurements),
            *inside_tables(self.inside),
            *head_table(self.inside),
        )
        return {table.name: pd.read_csv(io.StringIO(csv(table))) for table in tables}

    @property
    def headlines(self) -> tuple[str, ...]:
        """Sentences on all measurements, the baseline of each model first, and on figures."""
        from lcbench.reporting.collapse import headlines_of
        from lcbench.reporting.figures.paper import sentence_of
        from lcbench.reporting.tables.inside import inside_headlines

        return (
            *headlines_of(self.measurements),
            *inside_headlines(self.inside),
            *map(sentence_of, self.figures),
        )

    def report(self, folder: str | PathLike[str]) -> Path:
        """Write tables, figures and a page, with those of `others`, and return the page.

        Raises:
            StorageError: the folder cannot be written.
        """
        from lcbench.reporting.collapse import PAGE

        self.write(Path(folder))
        return Path(folder) / PAGE

    def write(self, folder: Path) -> Written:
        """Write the same report, and return what was written."""
        from lcbench.reporting.collapse import report

        others = self.others or Collapses(())
        return report(
            (*self.measurements, *others.measurements),
            folder,
            (*self.figures, *others.figures),
            (*self.inside, *others.inside),
        )

    def __repr__(self) -> str:
        return "\n".join(self.headlines) or "no measurements"
