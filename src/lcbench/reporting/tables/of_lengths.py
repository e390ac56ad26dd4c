"""Common parts of tables by length: model and task, rows under headings, notes on units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

from lcbench.reporting.score_table import BASELINE
from lcbench.reporting.statistics import LEAST_CHANGED
from lcbench.reporting.table import Entry, Section
from lcbench.reporting.tables.changes import NOT_DEFINED, Change
from lcbench.reporting.tables.items_by_length import By, Items, Place
from lcbench.reporting.text import TOO_FEW, group_heading
from lcbench.uncertainty.sums import RESAMPLES


@dataclass(frozen=True, kw_only=True)
class OfLengths:
    """The results by length for one model and task.

    Attributes:
        group: group of the table.
        column: column of the task.
        task: name of the task.
        label: label of the model.
        unit: unit of lengths.
        why: reason why there is no result; empty if there is one.
        resamples: number of bootstrap samples; 0: no intervals.
        has_draws: whether training draws are a source of variation.
        by: text whose length counts.
    """

    group: str
    column: str
    task: str
    label: str
    unit: str = "characters"
    why: str = ""
    resamples: int = RESAMPLES
    has_draws: bool = False
    by: By = "text"

    @classmethod
    def nothing(cls, place: Place, items: Items, resamples: int, why: str = "") -> Self:
        """Return an empty result for a task and model."""
        return cls(
            group=place.group,
            column=place.column,
            task=place.task,
            label=place.label,
            unit=items.unit,
            why=why,
            resamples=resamples,
            has_draws=bool(items.right),
        )


@dataclass(frozen=True, kw_only=True)
class ScoredLengths(OfLengths):
    """Scores of a model on a task by policy and part, from short to long.

    Attributes:
        scores: scores × 100; None is a missing value: too few items, an undefined score, or a score
            that does not count in the table.
        changes: relative improvements of the other policies over the baseline in %.
    """

    scores: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    changes: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)

    def change(self, policy: str, place: int) -> Change:
        """Return the change of a part at a policy other than the baseline."""
        return self.changes[policy][place] if policy in self.changes else NOT_DEFINED

    def filled(
        self,
        policies: Sequence[str],
        parts: Sequence[tuple[Mapping[str, float | None], Mapping[str, Change]]],
    ) -> Self:
        """Return a copy with the scores and changes of each part, by policy."""
        return replace(
            self,
            scores={
                policy: tuple(scores.get(policy) for scores, _ in parts) for policy in policies
            },
            changes={
                policy: tuple(changes.get(policy, NOT_DEFINED) for _, changes in parts)
                for policy in policies
                if policy != BASELINE
            },
        )


Found = TypeVar("Found", bound=OfLengths)


def sections_of(
    found: Sequence[Found],
    heading: Callable[[Found], str],
    rows: Callable[[Found], Iterable[tuple[Entry, ...]]],
    groups: Sequence[OfLengths],
) -> tuple[Section, ...]:
    """Return the sections of a table, with the rows of each heading together.

    Args:
        found: results to show.
        heading: returns the heading of a result; if there are several groups, the group is added.
        rows: returns the rows of a result.
        groups: all results, whether or not they are shown.
    """
    several = len({one.group for one in groups}) > 1
    of: dict[str, list[tuple[Entry, ...]]] = {}
    for one in found:
        name = f"{group_heading(one.group)}: {heading(one)}" if several else heading(one)
        of.setdefault(name, []).extend(rows(one))
    return tuple(Section(name, tuple(own)) for name, own in of.items())


def notes_of_units(shown: Sequence[OfLengths], what: str, so: str = "") -> Iterator[str]:
    """Return notes on the units of lengths.

    Args:
        shown: results in the table.
        what: name of the texts whose length counts.
        so: consequence for older results.
    """
    if any(one.unit == "characters" for one in shown):
        yield f"Lengths are those of whole {what} in characters, before truncation."
    if older := dict.fromkeys(one.task for one in shown if one.unit == "tokens"):
        yield (
            f"Of {', '.join(older)} lengths are in tokens as the model reads them, since the "
            f"results are of a version that kept no other{so}."
        )


def notes_of_intervals(of: str, shown: Sequence[OfLengths]) -> Iterator[str]:
    """Return notes on the marks of a table; none if there are no intervals.

    Args:
        of: name of the part whose items are resampled.
        shown: results in the table.
    """
    if not shown[0].resamples:
        return
    yield (
        f"▲ ▼ in bold: significant, that is, the 95 % interval of a paired bootstrap "
        f"({shown[0].resamples:,} samples) over the items of {of}, those that share a document or "
        "a text drawn together, excludes zero; △ ▽: it does not. Each stands for itself: of twenty "
        "without an effect, one is significant by chance. Where the baseline may be 0, differences "
        "are divided by it as it is, as in Table 1. Where fewer than "
        f"{LEAST_CHANGED} of these units changed there is no mark, but “{TOO_FEW}”."
    )
    if any(one.has_draws for one in shown):
        yield (
            "Of classified texts the interval is that of Student's t over the texts and the random "
            "draws of texts that the classifiers learned from."
        )
    if any(one.by == "text" and not one.has_draws for one in shown):
        yield (
            "Some classifications did not keep their predictions: their intervals leave out that "
            "each classifier learned from a random draw of texts, and may claim too much."
        )
