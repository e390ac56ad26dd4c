"""Power of a sweep before it is run, from its tasks' sizes and recorded noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scipy import stats

from lcbench.tasks.suites import averaged_columns
from lcbench.uncertainty.power import CLAIMED, POWER, detectable, probability

if TYPE_CHECKING:
    from lcbench.tasks.source import Part, Texts

# Standard deviation of one unit's contribution to a task's relative change in %, times the number
# of units: all-MiniLM-L6-v2 at τ = 0.9, from the cells of results/demo and results/minilm. Tasks
# of a type differ by a factor of up to 2.5 (a test compares).
NOISE = {
    "Retrieval": 15.0,
    "Reranking": 17.0,
    "Classification": 10.0,
    "Clustering": 3.5,
    "STS": 3.0,
}
# mteb states texts of a clustering, not sets; most of the paper's clusterings have ten.
_SETS = 10


@dataclass(frozen=True)
class Foresight:
    """The power of a sweep to detect changes of Avg.

    Attributes:
        chance: probability that a change of `CLAIMED` % is significant.
        smallest: change in % that is significant with 80 % probability.
        tried: number of repairs other than the baseline, whose choice is accounted for.
        unknown: tasks of unknown noise, which are treated as noise-free.
        word: what the repairs are called: τ, or repairs.
    """

    chance: float
    smallest: float
    tried: int
    unknown: tuple[str, ...]
    word: str = "τ"

    def sentence(self) -> str:
        """Return the power in words."""
        counted = ""
        if self.tried > 1:
            counted = f", accounting for the choice among {self.tried} {self.word}"
        lacking = f", without noise for {', '.join(self.unknown)}" if self.unknown else ""
        return (
            f"A change of Avg by {CLAIMED:g} % would be significant with a probability of at most "
            f"{self.chance:.0%}, one by {self.smallest:.2g} % with {POWER:.0%}{counted} (with the "
            f"items' noise of MiniLM at τ = 0.9, tasks alike{lacking})."
        )


def foresee(
    parts: Mapping[str, Part],
    column_of: Callable[[str, str | None], str],
    tried: int,
    word: str = "τ",
) -> Foresight | None:
    """Return the power of a sweep; None if no task's noise is known.

    It covers noise from items only; variation of the effect between tasks adds to it.

    Args:
        parts: the tasks.
        column_of: of a task and its type, the column of Table 1.
        tried: number of repairs other than the baseline.
        word: what they are called.
    """
    columns: dict[str, list[float]] = {}
    unknown: list[str] = []
    for name, part in parts.items():
        kind = part.source.kind(name)
        column = column_of(name, kind)
        units = _units_of(kind, part)
        noise = NOISE.get(kind)
        if units is None or noise is None:
            unknown.append(name)
        columns.setdefault(column, []).append(
            0.0 if units is None or noise is None else noise**2 / units
        )
    averaged = {name: columns[name] for name in averaged_columns(tuple(columns))}
    variance = sum(sum(of) / len(of) ** 2 for of in averaged.values()) / len(averaged) ** 2
    if variance <= 0 or not tried:
        return None
    # As if the τ were independent (Šidák): the τ of a sweep share noise, so less would suffice.
    each = 0.95 ** (1 / tried)
    critical, error = float(stats.norm.ppf((1 + each) / 2)), math.sqrt(variance)
    left_out = tuple(
        name for name in unknown if column_of(name, parts[name].source.kind(name)) in averaged
    )
    return Foresight(
        chance=probability(CLAIMED, error, critical),
        smallest=detectable(error, critical),
        tried=tried,
        unknown=left_out,
        word=word,
    )


def _units_of(kind: str, part: Part) -> int | None:
    """Return how many independent units a task has, of the subsets that the protocol asks for.

    A score is the mean over subsets, whose units add up unless the subsets are of unequal sizes. As
    many in each are taken for translations of the same texts, which are counted once.
    """
    names = part.subsets or tuple(part.source.subsets(part.name))
    if kind == "Clustering" or len(names) < 2:
        return _units(kind, part.texts())
    counts = []
    for name in names:
        one = _units(kind, replace(part, subsets=(name,)).texts())
        if one is None:
            return None
        counts.append(one)
    if len(set(counts)) == 1:
        return counts[0]
    return round(len(counts) ** 2 / sum(1 / one for one in counts))


def _units(kind: str, texts: Sequence[Texts] | None) -> int | None:
    """Return the number of independent units of a task, from its sizes; None if unknown."""
    if not texts:
        return None
    if kind == "Clustering":
        return _SETS
    # Half of the docs suite's texts are for training and half are scored.
    scored = [one.count // 2 if one.drawn_rows and len(texts) == 1 else one.count for one in texts]
    if kind in ("Retrieval", "Reranking"):
        queries = sum(one.count for one in texts if one.role == "query")
        documents = sum(one.unique for one in texts if one.role == "document")
        # Queries about one document count once.
        return min(queries, documents) or None
    return scored[0] or None
