"""What a cell's score is made of: its queries, texts, pairs, documents or sets.

Reads the items that a cell kept and sees that they give its score. How much the score would vary
over other items like these, `covariance` and `reporting.intervals` say. Loads no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcbench.results.items import ItemsError, whole_items

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

ROUNDING = 1e-5
"""How far a score may be from what its items give: mteb rounds the means of retrieval metrics to
five decimals and what it writes to six."""

# Of the items' columns; the others are far larger.
_COLUMNS = ["split", "subset", "id", "gold", "tokens_2", "score"]


@dataclass(frozen=True)
class Sample:
    """What the score of one split and subset of a cell is made of.

    Attributes:
        keys: what tells the items apart, the same for the same items of another cell.
        values: of each item: its part of the score, or a pair's cosine; shape (items,).
        gold: what the values of pairs are correlated with; None where the score is their mean.
        draws: the score in each of a classification's experiments, shape (experiments,); else None.
        units: what the items are: queries, pairs, texts, sets, documents.
    """

    keys: tuple[Any, ...]
    values: NDArray[np.float64]
    gold: NDArray[np.float64] | None = None
    draws: NDArray[np.float64] | None = None
    units: str = "items"

    @property
    def experiments(self) -> int:
        """How many experiments' scores are known."""
        return 0 if self.draws is None else len(self.draws)

    @property
    def score(self) -> float:
        """The score that the items give; NaN if one of them has none."""
        if len(self.values) == 0:
            return float("nan")
        if self.gold is None:
            return float(self.values.mean())
        once = np.ones((1, len(self.values)), dtype=np.int32)
        return float(spearman(self.gold, self.values[:, None], once)[0, 0])


Part = tuple[str, str]
"""A split and a subset of it."""

Samples = Mapping[Part, Sample]
"""All that the score of a cell is made of."""


def read_samples(files: CellFiles) -> Samples | None:
    """Return what a cell's score is made of; None where that cannot be known.

    That is so for types of tasks that keep no items, for items that do not give the score (other
    metrics than the means and correlations of `Sample`), and for files that cannot be read. Items
    are in an order of their own, the same for all cells that have them.
    """
    found = _read(files)
    return None if isinstance(found, str) else found


NO_ITEMS = "the items are not known"
"""Why there is nothing to say of most cells."""


def why_unknown(files: CellFiles) -> str:
    """Return why `read_samples` has nothing of a cell, in a few words; empty where it has."""
    found = _read(files)
    return found if isinstance(found, str) else ""


def same_items(samples: Samples, others: Samples | None) -> bool:
    """Whether two cells have the same items, so that they can be paired.

    A classification's experiments are drawn as well: a cell that did not keep them, or has others
    in number, is compared with its like alone, so that no cell loses its own to another.
    """
    return (
        others is not None
        and samples.keys() == others.keys()
        and all(
            samples[part].keys == others[part].keys
            and samples[part].experiments == others[part].experiments
            for part in samples
        )
    )


def paired(samples: Sequence[Samples | None]) -> list[list[int]]:
    """Return the places of cells with the same items, group by group; those of None in none."""
    groups: list[list[int]] = []
    for place, one in enumerate(samples):
        if one is None:
            continue
        for group in groups:
            if same_items(one, samples[group[0]]):
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def independent_parts(samples: Samples) -> list[tuple[tuple[Part, ...], float]]:
    """Return the parts of a score that vary on their own, each with its weight in the score.

    A score is the mean over splits of the mean over subsets. Subsets have items of their own,
    unless all of a split have the same ids and labels: translations of the same texts (Massive) are
    one sample, of which each item is the mean over the languages.

    Queries of retrieval have no label, so that subsets with the same ids are taken as translations
    of the same queries. This is assumed, not known: ids that merely count unrelated queries, as
    many in each subset, look the same. Of the two mistakes it is the smaller: translations that
    were taken as independent would make the variance too small, while unrelated queries that are
    paired by their numbers leave the mean as it is and its variance too, in expectation; only
    their count is then that of one subset.

    Returns:
        the splits and subsets of each part, whose items are averaged, and the weight of that
        average; weights add up to 1.
    """
    splits = list(dict.fromkeys(split for split, _ in samples))
    found: list[tuple[tuple[Part, ...], float]] = []
    for split in splits:
        parts = tuple(part for part in samples if part[0] == split)
        first = samples[parts[0]]
        if first.gold is None and all(samples[part].keys == first.keys for part in parts):
            found.append((parts, 1 / len(splits)))
        else:
            found += [((part,), 1 / len(parts) / len(splits)) for part in parts]
    return found


def score_of(samples: Samples) -> float:
    """Return a cell's score as its items give it: the mean over splits of that over subsets."""
    return sum(
        weight * fmean(samples[part].score for part in parts)
        for parts, weight in independent_parts(samples)
    )


def _read(files: CellFiles) -> Samples | str:
    """Return what a cell's score is made of, or why that is not known."""
    try:
        result = json.loads(files.result.read_text(encoding="utf-8"))
        entries = {
            (split, entry["hf_subset"]): entry
            for split, found in result["scores"].items()
            for entry in found
        }
        if all(isinstance(entry.get("v_measures"), list) for entry in entries.values()):
            samples = {part: _of_sets(part, entry) for part, entry in entries.items()}
        else:
            samples = _of_items(files, entries)
        if any(np.isnan(sample.values).any() for sample in samples.values()):
            return "some items have no score"
        for part, entry in entries.items():
            if not abs(samples[part].score - entry["main_score"]) <= ROUNDING:
                return "the items do not give the score"
    except ItemsError as error:
        return str(error)
    # A missing or broken file, or one of another layout.
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        return NO_ITEMS
    revision = str(result.get("dataset_revision"))
    return {
        part: replace(sample, keys=(revision, *sample.keys)) for part, sample in samples.items()
    }


class Correlations:
    """Spearman's correlations of cells with a gold standard, over samples of pairs.

    Counting the pairs of a sample instead of drawing them lets the pairs be sorted once for all
    samples. Ties have their mean rank, as in `scipy.stats.spearmanr`.
    """

    def __init__(self, gold: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Sort the pairs.

        Args:
            gold: shape (pairs,).
            values: shape (pairs, cells).
        """
        self._gold = _Order.of(gold)
        self._cells = [_Order.of(column) for column in values.T]

    def over(self, counts: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the correlations of samples that have each pair so many times.

        Args:
            counts: shape (samples, pairs).

        Returns:
            Shape (samples, cells); NaN where one side is constant.
        """
        total = counts.sum(axis=1, dtype=np.float64)
        single = counts.astype(np.float64)
        cubes = np.einsum("ij,ij,ij->i", single, single, single)
        ranks, lost = self._gold.ranks(counts, cubes)
        # From the mean of the ranks 1 … n, which is the same whatever the ties.
        weights = single * (ranks - (total[:, None] + 1) / 2)
        norm = (total**3 - lost) / 12
        own = np.einsum("ij,ij->i", weights, single) / 2
        found = np.empty((len(counts), len(self._cells)))
        for cell, order in enumerate(self._cells):
            product, lost = order.product(counts, weights, own, cubes)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, cell] = product / np.sqrt(norm * (total**3 - lost) / 12)
        return found


def spearman(
    gold: NDArray[np.float64], values: NDArray[np.float64], counts: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return `Correlations` of samples that have each pair so many times, (samples, cells)."""
    return Correlations(gold, values).over(counts)


@dataclass(frozen=True)
class _Order:
    """Values in order, and which of them are tied.

    The squares of ranks around their mean add up to (n³ − Σ t³)/12, t being the size of each tie, 1
    of a value that is alone.

    Attributes:
        order: places of the values, from small to large.
        tied: positions in that order of values that others equal.
        starts: where in `tied` each tie begins.
    """

    order: NDArray[np.int64]
    tied: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> _Order:
        order = np.argsort(values, kind="stable")
        same = values[order][1:] == values[order][:-1]
        after, before = np.append(False, same), np.append(same, False)
        tied = np.flatnonzero(after | before)
        return cls(order, tied, np.flatnonzero(~after[tied]))

    def ranks(
        self, counts: NDArray[np.int32], cubes: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rank of each value in each sample, and Σ t³."""
        taken = np.take(counts, self.order, axis=1)
        below = np.cumsum(taken, axis=1, dtype=np.int32)
        ranks = below - (taken - 1) / 2
        if len(self.tied):
            mean, cubes = self._ties(taken, below, cubes)
            ranks[:, self.tied] = np.repeat(mean, self._members(), axis=1) + 0.5
        found = np.empty_like(ranks)
        found[:, self.order] = ranks
        return found, cubes

    def product(
        self,
        counts: NDArray[np.int32],
        weights: NDArray[np.float64],
        own: NDArray[np.float64],
        cubes: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Σ weights × ranks of each sample, for weights that add up to 0, and Σ t³.

        Args:
            counts: shape (samples, pairs).
            weights: of each pair, times its count; the same shape.
            own: Σ weights × counts / 2 of each sample.
            cubes: Σ counts³ of each sample.
        """
        taken = np.take(counts, self.order, axis=1)
        below = np.cumsum(taken, axis=1, dtype=np.int32)
        weighted = np.take(weights, self.order, axis=1)
        # A rank is the counts up to its value, less half of its own, and a half that cancels.
        product = np.einsum("ij,ij->i", weighted, below) - own
        if len(self.tied):
            mean, cubes = self._ties(taken, below, cubes)
            here = weighted[:, self.tied]
            alone = below[:, self.tied] - taken[:, self.tied] / 2
            product -= np.einsum("ij,ij->i", here, alone)
            together = np.add.reduceat(here, self.starts, axis=1)
            product += np.einsum("ij,ij->i", together, mean)
        return product, cubes

    def _members(self) -> NDArray[np.int64]:
        return np.diff(np.append(self.starts, len(self.tied)))

    def _ties(
        self, taken: NDArray[np.int32], below: NDArray[np.int32], cubes: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rank of each tie less a half, and Σ t³ of all values."""
        single = taken[:, self.tied].astype(np.float64)
        sizes = np.add.reduceat(single, self.starts, axis=1)
        ends = below[:, self.tied[np.append(self.starts[1:], len(self.tied)) - 1]]
        cubes = cubes - np.einsum("ij,ij,ij->i", single, single, single)
        return ends - sizes / 2, cubes + np.einsum("ij,ij,ij->i", sizes, sizes, sizes)


def _of_sets(part: Part, entry: Mapping[str, Any]) -> Sample:
    # mteb's own list of them: its predictions, of which items are made, lack sets of one label.
    values = np.array(entry["v_measures"], dtype=float)
    return Sample((*part, len(values)), values, units="sets")


def _of_items(files: CellFiles, entries: Mapping[Part, Mapping[str, Any]]) -> dict[Part, Sample]:
    with pq.ParquetFile(whole_items(files), read_dictionary=["split", "subset"]) as file:
        units = _units(file.metadata)
        table = file.read(columns=_COLUMNS).unify_dictionaries().combine_chunks()
    codes, of_part = _parts(table)
    samples = {}
    for (split, subset), entry in entries.items():
        places = np.flatnonzero(codes == of_part[split, subset])
        first, count = int(places[0]), len(places)
        # Rows of a subset follow one another, as they are written.
        together = int(places[-1]) - first + 1 == count
        part = table.slice(first, count) if together else table.take(places)
        part = _ordered(part)
        # Only pairs have a second text.
        pairs = part["tokens_2"].null_count < len(part)
        experiments = entry.get("scores_per_experiment")
        samples[split, subset] = Sample(
            (_digest(part["id"]), _digest(part["gold"])),
            part["score"].to_numpy().astype(np.float64),
            gold=pc.cast(part["gold"], pa.float64()).to_numpy() if pairs else None,
            draws=None if experiments is None else _draws(experiments, entry["main_score"]),
            units="pairs" if pairs else units,
        )
    return samples


def _units(metadata: Any) -> str:
    """Return what the items are: only queries have relevant documents, only texts predictions."""
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            name = column.path_in_schema.partition(".")[0]
            counted = column.statistics
            if name not in ("relevant", "predictions") or counted is None:
                continue
            # `num_values` of the statistics leaves out nulls.
            if counted.num_values > 0:
                return "queries" if name == "relevant" else "texts"
    return "documents"


def _parts(table: pa.Table) -> tuple[NDArray[np.int64], dict[Part, int]]:
    """Return a number of each row's split and subset, and those numbers."""
    splits, subsets = (table[name].combine_chunks() for name in ("split", "subset"))
    names = subsets.dictionary.to_pylist()
    codes = splits.indices.to_numpy().astype(np.int64) * len(names) + subsets.indices.to_numpy()
    numbers = {
        (split, subset): place * len(names) + other
        for place, split in enumerate(splits.dictionary.to_pylist())
        for other, subset in enumerate(names)
    }
    return codes, numbers


def _ordered(table: pa.Table) -> pa.Table:
    """Return rows by length of id, then by id: 2 before 10, which is how most are written."""
    ids = table["id"].combine_chunks()
    lengths = pc.binary_length(ids)
    if len(table) > 1:
        longer = np.diff(lengths.to_numpy())
        after = pc.less(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False)
        if np.all((longer > 0) | ((longer == 0) & after)):
            return table
    keys = pa.table({"length": lengths, "id": ids})
    order = pc.sort_indices(keys, sort_keys=[("length", "ascending"), ("id", "ascending")])
    return table.take(order)


def _digest(column: pa.ChunkedArray) -> str:
    """Return what two columns of texts share only if all their texts are the same."""
    texts = column.combine_chunks()
    if isinstance(texts, pa.ChunkedArray):
        texts = pa.concat_arrays(texts.chunks)
    lengths = pc.fill_null(pc.binary_length(texts), -1).to_numpy(zero_copy_only=False)
    _, offsets, characters = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    digest = hashlib.blake2b(lengths.tobytes(), digest_size=16)
    if characters is not None:
        digest.update(characters[int(bounds[0]) : int(bounds[-1])])
    return digest.hexdigest()


def _draws(
    experiments: Sequence[Mapping[str, Any]], main_score: float
) -> NDArray[np.float64] | None:
    """Return the main score in each experiment: that of accuracy, as items are right or wrong."""
    values = np.array([experiment["accuracy"] for experiment in experiments], dtype=float)
    return values if abs(values.mean() - main_score) <= ROUNDING else None
