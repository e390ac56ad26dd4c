"""How sure an improvement is: bootstrap intervals and permutation tests, paired over items.

Takes tables and the files of their cells; `sheets` and `figures` show what is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.report.table1 import Table

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.results import CellFiles

RESAMPLES = 10_000
SEED = 0


@dataclass(frozen=True)
class Uncertainty:
    """What is known of one relative improvement beside its size; all but p in %.

    Attributes:
        low: lower end of its 95 % interval.
        high: upper end.
        p: of a two-sided paired permutation test; None where there is none (means of tasks).
        adjusted: p by Holm's correction over all pairs of the table; None as for p.
        units: what was resampled: queries, pairs, texts, sets, documents; of a mean also tasks.
        count: how many of them (of a mean: how many tasks).
        note: what the interval leaves out; empty where it is nothing.
    """

    low: float
    high: float
    p: float | None = None
    adjusted: float | None = None
    units: str = "items"
    count: int = 0
    note: str = ""

    @property
    def excludes_zero(self) -> bool:
        """Whether the improvement is told from none."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class TableStatistics:
    """The uncertainty of all that one table says; what is not in it is unknown.

    Attributes:
        cells: by label of the block, policy and task.
        means: by label, policy and column, `Avg` among them.
        average: of `Avg Improv.`, by column.
        resamples: bootstrap samples.
        seed: of all that is drawn.
        notes: what is unknown, and why.
    """

    cells: Mapping[tuple[str, str, str], Uncertainty]
    means: Mapping[tuple[str, str, str], Uncertainty]
    average: Mapping[str, Uncertainty]
    resamples: int = RESAMPLES
    seed: int = SEED
    notes: tuple[str, ...] = ()


NOTHING = TableStatistics({}, {}, {})
"""Of a table of which nothing is known."""


def analyse(
    table: Table,
    scores: pd.DataFrame,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    progress: Callable[[int, int], None] | None = None,
) -> TableStatistics:
    """Return how sure the improvements of a table are.

    Args:
        table: of `table1.build_tables`.
        scores: the frame that it was built from.
        resamples: bootstrap samples.
        seed: of all that is drawn.
        progress: told how many tasks are done, of how many.
    """
    return NOTHING


def compare_pair(
    first: CellFiles, second: CellFiles, resamples: int = RESAMPLES, seed: int = SEED
) -> Uncertainty | None:
    """Return how sure the improvement of the second cell over the first is; None: unknown."""
    return None
