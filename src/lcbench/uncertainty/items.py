"""Reads the items that a cell's score is computed from: queries, texts, pairs, documents, sets.

It checks that the items give the score. `covariance` and `reporting.intervals` estimate how much
the score would vary over other items like these. No model is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lcbench.results.items import ItemsError
from lcbench.uncertainty.clusters import Shared, digest_of_names, link, nothing_shared, numbered
from lcbench.uncertainty.correlations import Correlations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.cell_items import CellItems
    from lcbench.results.files import CellFiles

ROUNDING = 1e-5
"""How far a score may be from what its items give: mteb rounds the means of retrieval metrics to
five decimals and what it writes to six."""

# Maximum number of experiments whose bits fit into a signed 64-bit column.
_MOST_BITS = 63

# Columns of the items that are read; the others are far larger.
_COLUMNS = ["split", "subset", "id", "gold", "tokens_2", "score"]


@dataclass(frozen=True)
class Sample:
    """The items that the score of one split and subset of a cell is computed from.

    Attributes:
        keys: identifiers of the items, which are the same in all cells.
        values: value of each item: its part of the score, or a pair's cosine; shape (items,).
        gold: gold standard that the values of pairs are correlated with; None if the score is the
            mean of the values.
        draws: score of each experiment of a classification, shape (experiments,); else None.
        units: name of the items: queries, pairs, texts, sets, documents.
        right: experiments that classify each text correctly, as bits, shape (items,); None: not a
            classification, or unknown.
    """

    keys: tuple[Any, ...]
    values: NDArray[np.float64]
    gold: NDArray[np.float64] | None = None
    draws: NDArray[np.float64] | None = None
    units: str = "items"
    right: NDArray[np.unsignedinteger[Any]] | None = None

    @property
    def experiments(self) -> int:
        """The number of experiments whose scores are known."""
        return 0 if self.draws is None else len(self.draws)

    @property
    def score(self) -> float:
        """The score computed from the items; NaN if one of them has no value."""
        if len(self.values) == 0:
            return float("nan")
        if self.gold is None:
            return float(self.values.mean())
        return float(Correlations(self.gold, self.values[:, None]).whole()[0])


Part = tuple[str, str]
"""A split and a subset of it."""

Samples = Mapping[Part, Sample]
"""All that the score of a cell is made of."""


def read_samples(cell: CellItems) -> Samples | None:
    """Return the items of a cell's score; None if they are unknown.

    They are unknown for types of tasks that keep no items, for items that do not give the score
    (metrics other than the means and correlations of `Sample`), and for unreadable files. The order
    of items is the same for all cells that have them.
    """
    samples = _read(cell)
    return None if isinstance(samples, str) else samples


NO_ITEMS = "the items are not known"
"""Why there is nothing to say of most cells."""


def why_unknown(cell: CellItems) -> str:
    """Return why `read_samples` returns None for a cell, in a few words; else an empty text."""
    found = _read(cell)
    return found if isinstance(found, str) else ""


def same_items(samples: Samples, others: Samples | None) -> bool:
    """Return whether two cells have the same items, so that they can be paired.

    A classification's experiments are drawn as well. A cell without recorded experiments, or with
    another number of them, is only paired with cells like it, so that no cell's experiments are
    ignored.
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
    """Return the indices of cells with the same items, by group; None belongs to no group."""
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
    """Return the parts of a score that vary independently, each with its weight in the score.

    A score is the mean over splits of the mean over subsets. Subsets have different items, unless
    all subsets of a split have the same ids and labels: translations of the same texts (Massive)
    are one sample, each item of which is the mean over the languages.

    Queries of retrieval have no labels, so subsets with the same ids are assumed to be translations
    of the same queries. Subsets of equal size that merely number unrelated queries look the same,
    but the assumption is the smaller error: treating translations as independent would make the
    variance too small, while pairing unrelated queries by number changes neither the mean nor, in
    expectation, its variance; only the number of queries is reported as that of one subset.

    Returns:
        The splits and subsets of each part, whose items are averaged, and the weight of that
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
    """Return a cell's score computed from its items: the mean over splits of that over subsets."""
    return sum(
        weight * fmean(samples[part].score for part in parts)
        for parts, weight in independent_parts(samples)
    )


def _read(cell: CellItems) -> Samples | str:
    """Return the items of a cell's score, or the reason why they are unknown."""
    result = cell.result
    if result is None:
        return NO_ITEMS
    try:
        entries = {
            (split, entry["hf_subset"]): entry
            for split, found in result["scores"].items()
            for entry in found
        }
        if all(isinstance(entry.get("v_measures"), list) for entry in entries.values()):
            samples = {part: _of_sets(part, entry) for part, entry in entries.items()}
        else:
            samples = _of_items(cell, entries)
        if any(np.isnan(sample.values).any() for sample in samples.values()):
            return "some items have no score"
        for part, entry in entries.items():
            if not abs(samples[part].score - entry["main_score"]) <= ROUNDING:
                return "the items do not give the score"
    except ItemsError as error:
        return str(error)
    # The file is missing or damaged, or has another layout.
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        return NO_ITEMS
    revision = str(result.get("dataset_revision"))
    return {
        part: replace(sample, keys=(revision, *sample.keys)) for part, sample in samples.items()
    }


@dataclass(frozen=True)
class ItemShares:
    """The texts that the items of a cell share with others, by `independent_parts`.

    Attributes:
        parts: shared texts of the items of each part.
        are_older: whether the items were written before shared texts were recorded. Then only
            queries with the same relevant documents are linked, by ids within the task.
        lacking: number of items without this record although others have it.
    """

    parts: tuple[Shared, ...]
    are_older: bool = False
    lacking: int = 0


def read_shares(cell: CellItems, samples: Samples) -> ItemShares:
    """Return the texts that the items of a cell share with others.

    Args:
        cell: the cell.
        samples: result of `read_samples`.
    """
    task = cell.files.task
    if any(sample.units == "sets" for sample in samples.values()):
        return ItemShares(_shares_nothing(task, samples))
    try:
        names = [name for name in ("split", "subset", "id", "shares") if name in cell.names]
        table = cell.table(names)
        # Only older items are linked by their documents.
        if _are_older(table) and "relevant" in cell.names:
            table = cell.table([*names, "relevant"])
        return _shares(task, table, samples)
    # The file is damaged, or has another layout.
    except (ItemsError, OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        return ItemShares(_shares_nothing(task, samples), are_older=True)


class TaskSamples:
    """The samples of the cells of one task, and the texts that their items share with others.

    Attributes:
        samples: items of each cell that was read; None: unknown.
        why: the reason why the items of a cell are unknown.
    """

    def __init__(self, cells: Iterable[CellItems] = ()) -> None:
        self.samples: dict[CellFiles, Samples | None] = {}
        self.why: dict[CellFiles, str] = {}
        # Cells with the same items have the same shared texts, which are read once.
        self._groups: dict[CellFiles, int] = {}
        self._firsts: list[tuple[str, Samples]] = []
        self._shares: list[ItemShares] = []
        for cell in cells:
            self.read(cell)

    def read(self, cell: CellItems, scope: str = "") -> None:
        """Read the samples of a cell.

        Args:
            cell: the cell.
            scope: scope within which equal ids mean the same texts.
        """
        samples = self.samples[cell.files] = read_samples(cell)
        if samples is None:
            self.why[cell.files] = why_unknown(cell) or NO_ITEMS
            return
        for group, (other, first) in enumerate(self._firsts):
            if other == scope and same_items(first, samples):
                # Cells of older versions lack this.
                if self._shares[group].are_older:
                    self._shares[group] = read_shares(cell, samples)
                break
        else:
            group = len(self._firsts)
            self._firsts.append((scope, samples))
            self._shares.append(read_shares(cell, samples))
        self._groups[cell.files] = group

    def shares(self, files: CellFiles) -> ItemShares:
        """Return the texts that the items of a cell share with others.

        Raises:
            KeyError: the cell's items are unknown.
        """
        return self._shares[self._groups[files]]


def _are_older(table: pa.Table) -> bool:
    """Return whether items were written before shared texts were recorded."""
    return "shares" not in table.column_names or table["shares"].null_count == len(table)


def _shares(task: str, table: pa.Table, samples: Samples) -> ItemShares:
    """Return the texts that items share, from a table with numbered splits and subsets."""
    are_older = _are_older(table)
    codes, of_part = _parts(table)
    rows = {part: _rows(table, codes, of_part[part]) for part in samples}
    # Documents of two splits are different whatever their ids, unless all queries are the same, as
    # in lcbench's tasks whose splits are lengths.
    same = len({sample.keys for sample in samples.values()}) == 1
    scope_of = {part: (task, *(() if same else part)) for part in samples}
    found, lacking = [], 0
    for parts, _ in independent_parts(samples):
        of_parts = [
            _linked_by_ids(scope_of[part], rows[part]) if are_older else _linked(rows[part])
            for part in parts
        ]
        owners = np.concatenate([one[0] for one in of_parts])
        count = len(rows[parts[0]])
        lacking += 0 if are_older else count - int(np.count_nonzero(np.bincount(owners)))
        found.append(
            Shared(
                owners,
                np.concatenate([one[1] for one in of_parts]),
                _alone(task, parts[0], samples[parts[0]]),
            )
        )
    return ItemShares(tuple(found), are_older, lacking)


def ordered_items(task: str, table: pa.Table) -> tuple[pa.Table, NDArray[np.uint64]]:
    """Return items by part, ordered by id, and the cluster of each (`clusters.link`).

    Args:
        task: its name.
        table: items with the columns split, subset, id, gold, tokens_2, score, relevant and, in
            newer results, shares.
    """
    numbered_parts = table
    for name in ("split", "subset"):
        index = table.column_names.index(name)
        numbered_parts = numbered_parts.set_column(
            index, name, pc.dictionary_encode(table[name].combine_chunks())
        )
    numbered_parts = numbered_parts.unify_dictionaries().combine_chunks()
    codes, of_part = _parts(numbered_parts)
    there = {part: code for part, code in of_part.items() if (codes == code).any()}
    samples, rows = {}, []
    for part, code in there.items():
        own = _rows(numbered_parts, codes, code)
        pairs = own["tokens_2"].null_count < len(own)
        samples[part] = Sample(
            (_digest(own["id"]), _digest(own["gold"])),
            own["score"].to_numpy().astype(np.float64),
            gold=pc.cast(own["gold"], pa.float64()).to_numpy() if pairs else None,
        )
        rows.append(own)
    linked = link(_shares(task, numbered_parts, samples).parts)
    of_parts = {
        part: clusters
        for (parts, _), clusters in zip(independent_parts(samples), linked, strict=True)
        for part in parts
    }
    every = pa.concat_tables(rows)
    for name in ("split", "subset"):
        index = every.column_names.index(name)
        every = every.set_column(index, name, every[name].cast(pa.string()))
    return every.combine_chunks(), np.concatenate([of_parts[part] for part in samples])


def _shares_nothing(task: str, samples: Samples) -> tuple[Shared, ...]:
    return tuple(
        nothing_shared(_alone(task, parts[0], samples[parts[0]]))
        for parts, _ in independent_parts(samples)
    )


def _alone(task: str, part: Part, sample: Sample) -> NDArray[np.uint64]:
    """Return identifiers of items that share nothing."""
    return numbered(len(sample.values), task, part, sample.keys)


def _linked(rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the texts that rows share, as owners and digests."""
    lists = rows["shares"].combine_chunks()
    times = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    owners = np.repeat(np.arange(len(rows)), times)
    texts = bytes.fromhex("".join(lists.flatten().to_pylist()))
    return owners, np.frombuffer(texts, dtype=">u8").astype(np.uint64)


def _linked_by_ids(
    scope: Sequence[str], rows: pa.Table
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return what `_linked` returns, as far as the ids of relevant documents reveal it.

    Args:
        scope: scope within which equal ids mean the same document.
        rows: rows of a split and subset.
    """
    owners, texts = [], []
    lists = rows["relevant"].combine_chunks()
    times = pc.fill_null(pc.list_value_length(lists), 0).to_pylist()
    documents = iter(lists.flatten().field("id").to_pylist())
    for place, count in enumerate(times):
        if count:
            owners.append(place)
            texts.append(digest_of_names(*scope, *sorted(islice(documents, count))))
    return np.array(owners, dtype=np.int64), np.array(texts, dtype=np.uint64)


def _of_sets(part: Part, entry: Mapping[str, Any]) -> Sample:
    # mteb's own list of sets; its predictions, which items are made of, lack sets with one label.
    values = np.array(entry["v_measures"], dtype=float)
    return Sample((*part, len(values)), values, units="sets")


def _of_items(cell: CellItems, entries: Mapping[Part, Mapping[str, Any]]) -> dict[Part, Sample]:
    units = _units(cell.metadata)
    columns = list(_COLUMNS)
    if any("scores_per_experiment" in entry for entry in entries.values()):
        columns.append(column_of_right(cell))
    table = cell.table(columns)
    codes, of_part = _parts(table)
    samples = {}
    for (split, subset), entry in entries.items():
        part = _rows(table, codes, of_part[split, subset])
        # Only pairs have a second text.
        pairs = part["tokens_2"].null_count < len(part)
        experiments = entry.get("scores_per_experiment")
        draws = None if experiments is None else _draws(experiments, entry["main_score"])
        samples[split, subset] = Sample(
            (_digest(part["id"]), _digest(part["gold"])),
            part["score"].to_numpy().astype(np.float64),
            gold=pc.cast(part["gold"], pa.float64()).to_numpy() if pairs else None,
            draws=draws,
            units="pairs" if pairs else units,
            right=None if draws is None else _right(part, draws),
        )
    return samples


def column_of_right(cell: CellItems) -> str:
    """Return the column that holds which experiments classify a text correctly.

    Older items only have the predictions, which are far larger.
    """
    if "right" in cell.names and cell.table(["right"])["right"].null_count == 0:
        return "right"
    return "predictions"


def as_bits(right: NDArray[np.bool_]) -> NDArray[np.uint64] | None:
    """Return the experiments that classify each text correctly as bits, shape (texts,).

    Args:
        right: shape (texts, experiments).

    Returns:
        The bits; None if there are too many experiments.
    """
    count = right.shape[1]
    if count > _MOST_BITS:
        return None
    places = np.arange(count, dtype=np.uint64)
    bits: NDArray[np.uint64] = (right.astype(np.uint64) << places).sum(axis=1, dtype=np.uint64)
    return bits


def _right(rows: pa.Table, draws: NDArray[np.float64]) -> NDArray[np.unsignedinteger[Any]] | None:
    """Return the experiments that classify each text correctly, as bits.

    Args:
        rows: rows with a column `right`, or with labels and predictions.
        draws: accuracy of each experiment.

    Returns:
        The bits; None if they do not give the accuracies, or there are too many experiments.
    """
    count = len(draws)
    bits: NDArray[np.uint64] | None
    if "right" in rows.column_names:
        bits = rows["right"].to_numpy().astype(np.uint64)
    else:
        predicted = rows["predictions"].combine_chunks()
        if (pc.fill_null(pc.list_value_length(predicted), 0).to_numpy() != count).any():
            return None
        labels = rows["gold"].combine_chunks().take(np.repeat(np.arange(len(rows)), count))
        right = pc.equal(predicted.flatten(), labels).to_numpy(zero_copy_only=False)
        bits = as_bits(right.reshape(-1, count))
    if bits is None:
        return None
    places = np.arange(count, dtype=np.uint64)
    accuracies = [float((bits >> place & np.uint64(1)).mean()) for place in places]
    if not np.allclose(accuracies, draws, rtol=0, atol=ROUNDING):
        return None
    found: NDArray[np.unsignedinteger[Any]] = bits.astype(np.uint16) if count <= 16 else bits
    return found


def _units(metadata: Any) -> str:
    """Return the name of items: only queries have relevant documents, only texts predictions."""
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            name = column.path_in_schema.partition(".")[0]
            counted = column.statistics
            if name not in ("relevant", "predictions") or counted is None:
                continue
            # `num_values` of the statistics excludes nulls.
            if counted.num_values > 0:
                return "queries" if name == "relevant" else "texts"
    return "documents"


def _parts(table: pa.Table) -> tuple[NDArray[np.int64], dict[Part, int]]:
    """Return an index for each row's split and subset, and the pairs that it refers to."""
    splits, subsets = (table[name].combine_chunks() for name in ("split", "subset"))
    names = subsets.dictionary.to_pylist()
    codes = splits.indices.to_numpy().astype(np.int64) * len(names) + subsets.indices.to_numpy()
    numbers = {
        (split, subset): place * len(names) + other
        for place, split in enumerate(splits.dictionary.to_pylist())
        for other, subset in enumerate(names)
    }
    return codes, numbers


def _rows(table: pa.Table, codes: NDArray[np.int64], code: int) -> pa.Table:
    """Return the rows of a split and subset, in an order that depends on their ids only."""
    places = np.flatnonzero(codes == code)
    first, count = int(places[0]), len(places)
    # Rows of a subset are written next to each other.
    together = int(places[-1]) - first + 1 == count
    return _ordered(table.slice(first, count) if together else table.take(places))


def _ordered(table: pa.Table) -> pa.Table:
    """Return rows by length of id, then by id, so that 2 comes before 10 as in most files."""
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
    """Return a digest of a column of texts: equal only if all texts are the same."""
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
    """Return each experiment's main score if that is the accuracy, as items are right or wrong."""
    values = np.array([experiment["accuracy"] for experiment in experiments], dtype=float)
    return values if abs(values.mean() - main_score) <= ROUNDING else None
