"""What the scores of one task vary with: clusters of items, and a classification's experiments.

From what each of them adds to the scores to first order come variances without bias; `bootstrap`
draws from the same components.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lcbench.uncertainty.clusters import numbered
from lcbench.uncertainty.correlations import Correlations
from lcbench.uncertainty.items import Samples, independent_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLUSTERS_AT_ONCE = 256
"""Clusters whose weights, or right answers, are held at once."""


@dataclass(frozen=True)
class Component:
    """What a score varies with: a sample of units, or a classification's experiments.

    Attributes:
        values: of each unit and cell, shape (units, cells).
        weight: of it in the score.
        clusters: of each unit, shape (units,).
        gold: what the values of pairs are correlated with; None: their mean is the score.
        deviates: whether only the deviations of its mean from `values`' add to the score: those of
            a classification's experiments, whose mean the texts give already.
        right: of texts, which of the experiments are right about them: of each cell those of each
            of its subsets, as bits, shape (units,); empty: not known.
        experiments: of texts, how many.
    """

    values: NDArray[np.float64]
    weight: float
    clusters: NDArray[np.uint64]
    gold: NDArray[np.float64] | None = None
    deviates: bool = False
    right: Sequence[Sequence[NDArray[np.unsignedinteger[Any]]]] = ()
    experiments: int = 0


Source = Literal["items", "experiments", "both"]


@dataclass(frozen=True)
class Variation:
    """Independent clusters, and how a task's scores vary with them.

    Attributes:
        covariance: of the scores, estimated without bias, shape (cells, cells).
        degrees: of freedom.
        source: items, a classification's experiments, or what varies with both together: that is
            part of the other two, and counted twice where it is not taken off.
    """

    covariance: NDArray[np.float64]
    degrees: int
    source: Source = "items"


def components(
    cells: Sequence[Samples], name: str, clusters: Sequence[NDArray[np.uint64]]
) -> list[Component]:
    """Return what the scores of cells with the same items vary with.

    Of a classification these are its texts and, where the cells have kept them, its experiments.

    Args:
        cells: with the same items.
        name: of the task.
        clusters: of each of `independent_parts`, that of each item.
    """
    found = []
    for (parts, weight), of_part in zip(independent_parts(cells[0]), clusters, strict=True):
        samples = [[cell[part] for part in parts] for cell in cells]
        values = np.empty((len(samples[0][0].values), len(cells)))
        for place, several in enumerate(samples):
            values[:, place] = np.mean([one.values for one in several], axis=0)
        right = [[one.right for one in several if one.right is not None] for several in samples]
        counts = {one.experiments for several in samples for one in several}
        if len(counts) > 1 or not all(len(several) == len(parts) for several in right):
            right, counts = [], {0}
        found.append(
            Component(
                values, weight, of_part, samples[0][0].gold, right=right, experiments=counts.pop()
            )
        )
        draws = [[one.draws for one in several if one.draws is not None] for several in samples]
        # All of the cells have them, or none (`items.same_items`); translations may have others.
        if (
            all(len(several) == len(parts) for several in draws)
            and len({len(one) for several in draws for one in several}) == 1
        ):
            means = np.stack([np.mean(several, axis=0) for several in draws], axis=1)
            if len(means) > 1:
                trained = numbered(len(means), name, "experiments", parts[0])
                found.append(Component(means, weight, trained, deviates=True))
    return found


def variations(parts: Sequence[Component]) -> list[Variation]:
    """Return how scores vary with their clusters, from what each adds to them to first order.

    Parts that share clusters vary together: the clusters of all of them are one sample.
    """
    contributions = [one.weight * _contributions(one) for one in parts]
    every, places = np.unique(np.concatenate([one.clusters for one in parts]), return_inverse=True)
    of_part = np.split(places, np.cumsum([len(one.clusters) for one in parts])[:-1])
    has = coo_array(
        (
            np.ones(len(places)),
            (np.repeat(np.arange(len(parts)), [len(one) for one in of_part]), places),
        ),
        shape=(len(parts), len(every)),
    ).tocsr()
    number, sample = connected_components(has @ has.T, directed=False)
    found = []
    for group in range(number):
        own = np.flatnonzero(sample == group).tolist()
        members, within = np.unique(
            np.concatenate([of_part[part] for part in own]), return_inverse=True
        )
        added = sums_of(np.concatenate([contributions[part] for part in own]), within, len(members))
        degrees = len(members) - 1
        deviates = all(parts[part].deviates for part in own)
        source: Source = "experiments" if deviates else "items"
        found.append(Variation(added.T @ added * len(members) / degrees, degrees, source))
    return found + [both for one in parts if (both := _interaction(one)) is not None]


def _interaction(one: Component) -> Variation | None:
    """Return how the scores of a classification vary with texts and experiments together.

    What is left of each text (cluster of texts) in each experiment without the text's mean and the
    experiment's.
    """
    if not one.right or one.experiments < 2:
        return None
    members, places = np.unique(one.clusters, return_inverse=True)
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(len(members) + 1))
    bits = np.arange(one.experiments)
    means = np.zeros((one.experiments, one.values.shape[1]))
    squares = np.zeros((one.values.shape[1],) * 2)
    for final in (False, True):
        for some in steps_of(len(members), CLUSTERS_AT_ONCE):
            rows = order[starts[some.start] : starts[some.stop]]
            right = np.stack(
                [
                    np.mean([of[rows, None] >> bits.astype(of.dtype) & 1 for of in several], axis=0)
                    for several in one.right
                ],
                axis=2,
            )
            if not final:
                means += right.sum(axis=0) / len(places)
                continue
            right -= one.values[rows, None] + (means - one.values.mean(axis=0))
            left = np.add.reduceat(right, starts[some] - starts[some.start], axis=0)
            left = left.reshape(-1, left.shape[2])
            squares += left.T @ left
    many, times = len(members), one.experiments
    scale = (one.weight / len(places)) ** 2 * many / (many - 1) / times / (times - 1)
    return Variation(squares * scale, (many - 1) * (times - 1), "both")


def _contributions(one: Component) -> NDArray[np.float64]:
    """Return what each unit adds to the scores of a component, shape (units, cells)."""
    if one.gold is not None:
        return Correlations(one.gold, one.values).influence()
    added: NDArray[np.float64] = (one.values - one.values.mean(axis=0)) / len(one.values)
    return added


def sums_of(
    values: NDArray[np.float64], places: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return sums of rows, shape (count, columns).

    Args:
        values: shape (rows, columns).
        places: of the sum that each row is part of, shape (rows,).
        count: of sums.
    """
    if count == len(values):
        found = np.empty_like(values)
        found[places] = values
        return found
    rows = np.arange(len(values))
    adds = coo_array((np.ones(len(values)), (places, rows)), shape=(count, len(values))).tocsr()
    return np.asarray(adds @ values)


def steps_of(count: int, size: int) -> Iterator[slice]:
    """Return slices of so many places, of a size at most."""
    return (slice(start, min(count, start + size)) for start in range(0, count, size))
