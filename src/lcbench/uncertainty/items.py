"""What a cell's score is made of: its queries, texts, pairs, documents or sets.

Reads the items that a cell kept and sees that they give its score. How much the score would vary
over other items like these, `covariance` and `reporting.intervals` say. Loads no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcbench.results.content import read_result
from lcbench.results.items import ItemsError, whole_items
from lcbench.uncertainty.clusters import Shared, digest_of_names, link, nothing_shared, numbered
from lcbench.uncertainty.correlations import Correlations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

ROUNDING = 1e-5
"""How far a score may be from what its items give: mteb rounds the means of retrieval metrics to
five decimals and what it writes to six."""

# Of a classification's experiments; the column has a sign.
_MOST_BITS = 63

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
        right: the experiments that are right about each text, as bits, shape (items,); None: not a
            classification, or not known.
    """

    keys: tuple[Any, ...]
    values: NDArray[np.float64]
    gold: NDArray[np.float64] | None = None
    draws: NDArray[np.float64] | None = None
    units: str = "items"
    right: NDArray[np.unsignedinteger[Any]] | None = None

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
        return float(Correlations(self.gold, self.values[:, None]).whole()[0])


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
    result = read_result(files)
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


@dataclass(frozen=True)
class ItemShares:
    """What the items of a cell share with others, by the parts of `independent_parts`.

    Attributes:
        parts: of each what its items share.
        are_older: whether the items were written before they said so: queries of the same relevant
            documents share these, as far as ids within the task show it.
        lacking: how many items say nothing, though the others do.
    """

    parts: tuple[Shared, ...]
    are_older: bool = False
    lacking: int = 0


def read_shares(files: CellFiles, samples: Samples) -> ItemShares:
    """Return what the items of a cell share with others.

    Args:
        files: of the cell.
        samples: of `read_samples`.
    """
    if any(sample.units == "sets" for sample in samples.values()):
        return ItemShares(_shares_nothing(files.task, samples))
    try:
        with pq.ParquetFile(whole_items(files), read_dictionary=["split", "subset"]) as file:
            names = file.schema_arrow.names
            columns = ["split", "subset", "id", "shares", "relevant.list.element.id"]
            table = file.read(columns=[one for one in columns if one.split(".")[0] in names])
        return _shares(files.task, table.unify_dictionaries().combine_chunks(), samples)
    # A broken file, or one of another layout.
    except (ItemsError, OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        return ItemShares(_shares_nothing(files.task, samples), are_older=True)


def _shares(task: str, table: pa.Table, samples: Samples) -> ItemShares:
    """Return what items share, from a table of them whose splits and subsets are numbered."""
    are_older = "shares" not in table.column_names or table["shares"].null_count == len(table)
    codes, of_part = _parts(table)
    rows = {part: _rows(table, codes, of_part[part]) for part in samples}
    # Documents of two splits are others, whatever their ids, unless all queries have the same:
    # those of our own tasks, whose splits are lengths.
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
        lacking += 0 if are_older else count - len(np.unique(owners))
        found.append(
            Shared(
                owners,
                np.concatenate([one[1] for one in of_parts]),
                _alone(task, parts[0], samples[parts[0]]),
            )
        )
    return ItemShares(tuple(found), are_older, lacking)


def ordered_items(task: str, table: pa.Table) -> tuple[pa.Table, NDArray[np.uint64]]:
    """Return items part by part, each by their ids, and the cluster of each (`clusters.link`).

    Args:
        task: its name.
        table: with split, subset, id, gold, tokens_2, score, relevant and, of newer ones, shares.
    """
    numbered_parts = table
    for name in ("split", "subset"):
        place = table.column_names.index(name)
        numbered_parts = numbered_parts.set_column(
            place, name, pc.dictionary_encode(table[name].combine_chunks())
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
        place = every.column_names.index(name)
        every = every.set_column(place, name, every[name].cast(pa.string()))
    return every.combine_chunks(), np.concatenate([of_parts[part] for part in samples])


def _shares_nothing(task: str, samples: Samples) -> tuple[Shared, ...]:
    return tuple(
        nothing_shared(_alone(task, parts[0], samples[parts[0]]))
        for parts, _ in independent_parts(samples)
    )


def _alone(task: str, part: Part, sample: Sample) -> NDArray[np.uint64]:
    """Return what items go by that share nothing."""
    return numbered(len(sample.values), task, part, sample.keys)


def _linked(rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the owners and digests of what rows share."""
    lists = rows["shares"].combine_chunks()
    times = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    owners = np.repeat(np.arange(len(rows)), times)
    texts = bytes.fromhex("".join(lists.flatten().to_pylist()))
    return owners, np.frombuffer(texts, dtype=">u8").astype(np.uint64)


def _linked_by_ids(
    scope: Sequence[str], rows: pa.Table
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return what `_linked` does as far as the ids of relevant documents show it.

    Args:
        scope: within which equal ids are those of the same document.
        rows: of a split and subset.
    """
    owners, texts = [], []
    for place, documents in enumerate(rows["relevant"].to_pylist()):
        if documents:
            owners.append(place)
            texts.append(digest_of_names(*scope, *sorted(one["id"] for one in documents)))
    return np.array(owners, dtype=np.int64), np.array(texts, dtype=np.uint64)


def _of_sets(part: Part, entry: Mapping[str, Any]) -> Sample:
    # mteb's own list of them: its predictions, of which items are made, lack sets of one label.
    values = np.array(entry["v_measures"], dtype=float)
    return Sample((*part, len(values)), values, units="sets")


def _of_items(files: CellFiles, entries: Mapping[Part, Mapping[str, Any]]) -> dict[Part, Sample]:
    with pq.ParquetFile(whole_items(files), read_dictionary=["split", "subset"]) as file:
        units = _units(file.metadata)
        columns = list(_COLUMNS)
        if any("scores_per_experiment" in entry for entry in entries.values()):
            columns.append(_column_of_right(file))
        table = file.read(columns=columns).unify_dictionaries().combine_chunks()
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


def _column_of_right(file: pq.ParquetFile) -> str:
    """Return the column that says which experiments are right about a text.

    Older items have the predictions alone, which are far larger.
    """
    if "right" in file.schema_arrow.names and file.read(columns=["right"])["right"].null_count == 0:
        return "right"
    return "predictions"


def _right(rows: pa.Table, draws: NDArray[np.float64]) -> NDArray[np.unsignedinteger[Any]] | None:
    """Return the experiments that are right about each text, as bits.

    Args:
        rows: with a column `right`, or with labels and predictions.
        draws: the accuracy of each experiment.

    Returns:
        None where they do not give the accuracies, or are too many.
    """
    count = len(draws)
    if count > _MOST_BITS:
        return None
    places = np.arange(count, dtype=np.uint64)
    if "right" in rows.column_names:
        bits = rows["right"].to_numpy().astype(np.uint64)
    else:
        predicted = rows["predictions"].combine_chunks()
        if (pc.fill_null(pc.list_value_length(predicted), 0).to_numpy() != count).any():
            return None
        labels = rows["gold"].combine_chunks().take(np.repeat(np.arange(len(rows)), count))
        right = pc.equal(predicted.flatten(), labels).to_numpy(zero_copy_only=False)
        bits = (right.reshape(-1, count).astype(np.uint64) << places).sum(axis=1, dtype=np.uint64)
    accuracies = [float((bits >> place & np.uint64(1)).mean()) for place in places]
    if not np.allclose(accuracies, draws, rtol=0, atol=ROUNDING):
        return None
    found: NDArray[np.unsignedinteger[Any]] = bits.astype(np.uint16) if count <= 16 else bits
    return found


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


def _rows(table: pa.Table, codes: NDArray[np.int64], code: int) -> pa.Table:
    """Return the rows of a split and subset, in an order that goes by their ids alone."""
    places = np.flatnonzero(codes == code)
    first, count = int(places[0]), len(places)
    # Rows of a subset follow one another, as they are written.
    together = int(places[-1]) - first + 1 == count
    return _ordered(table.slice(first, count) if together else table.take(places))


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
