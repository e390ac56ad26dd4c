"""The items of a cell: schema, reading and digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lcbench.results.content import SUBQUERIES, digest_of, read_provenance
from lcbench.results.files import CellFiles, read_bytes

if TYPE_CHECKING:
    import pyarrow as pa

ITEMS_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("subset", pa.string()),
        # A query's id (for sub-queries, the common part of their ids); else the position in the
        # split (and, for clusterings, in the set).
        ("id", pa.string()),
        # Tokens that the model reads of the item, and of the second text of a pair; for
        # sub-queries, of the longest one; for a document with summaries, of the longest machine
        # summary, since mteb encodes the summaries only.
        ("tokens", pa.int32()),
        ("tokens_2", pa.int32()),
        # Lengths of the same texts in characters, before truncation and without prompts, so that
        # they are the same for every model. Older results lack this, and the same of relevant
        # documents.
        ("characters", pa.int32()),
        ("characters_2", pa.int32()),
        # The item's part of the main score: a query's nDCG, AP …, or that of its sub-queries
        # together; a pair's cosine; the share of experiments that classify a text correctly; a
        # document's correlation of its summaries' similarities with their grades, as its task
        # averages it (SummEval's first version: the mean of Spearman's ρ and its p-value). Null for
        # clusterings, where mteb's result has scores of sets, not of texts.
        ("score", pa.float64()),
        # The gold standard: a pair's similarity, a text's label.
        ("gold", pa.string()),
        # The prediction: the label in each experiment, or the cluster.
        ("predictions", pa.list_(pa.string())),
        # For a text, the experiments that classify it correctly, the first in the lowest bit. Null
        # for other items, for more than 63 experiments, and in older results.
        ("right", pa.int64()),
        # Digests of the texts that the item shares with others, whatever their ids: for a query,
        # its own text (unless others of its split have the same) and its relevant documents
        # together; for classification the text, for pairs both texts, for summaries their document,
        # for clusterings all texts of the set. Older results have none.
        ("shares", pa.list_(pa.string())),
        # For a query, every relevant document with its grade, tokens, characters, and rank over the
        # whole corpus (1 = first), or among the candidates if the task reranks.
        (
            "relevant",
            pa.list_(
                pa.struct(
                    [
                        ("id", pa.string()),
                        ("grade", pa.int32()),
                        ("tokens", pa.int32()),
                        ("characters", pa.int32()),
                        ("rank", pa.int32()),
                    ]
                )
            ),
        ),
    ]
)


# The same for the items. Older results have none, and their items are not checked.
ITEMS_DIGEST = "items_sha256"

# In provenance and conditions: the digest of the items' content (ids, labels) that the data alone
# determines. For an older result it is computed from the items themselves.
ITEMS = "items_of_data"


class ItemsError(Exception):
    """The items are not those written with the result."""


def read_items(files: CellFiles) -> bytes:
    """Return the content of the items' file, for `check_items`.

    Raises:
        OSError: it is missing or unreadable.
    """
    return read_bytes(files.items)


def check_items(files: CellFiles, content: bytes, provenance: Mapping[str, Any]) -> None:
    """Check that items are unchanged, since some damaged files would crash pyarrow.

    Raises:
        ItemsError: they were changed.
    """
    written = provenance.get(ITEMS_DIGEST)
    if written is not None and written != digest_of(content):
        raise ItemsError("the items were changed after they were written")


def whole_items(files: CellFiles) -> pa.BufferReader:
    """Return a cell's items for pyarrow to read, if they are unchanged.

    Raises:
        OSError: they are missing or unreadable.
        ItemsError: they were changed.
    """
    import pyarrow as pa

    content = read_items(files)
    check_items(files, content, read_provenance(files))
    return pa.BufferReader(content)


def digest_of_items(items: pa.Table, *, relevant: bool) -> str:
    """Return the digest of the items' content: ids and labels, without scores and ranks.

    Args:
        items: items with the columns split, subset, id, gold and relevant.
        relevant: whether it includes queries' relevant documents and their grades.
    """
    digest = hashlib.sha256()
    for name in ("split", "subset", "id", "gold"):
        digest.update(json.dumps(items[name].to_numpy().tolist()).encode())
    if relevant:
        lists = items["relevant"].combine_chunks()
        documents = lists.flatten()
        ids, grades = (
            documents.field(name).to_numpy(zero_copy_only=False).tolist()
            for name in ("id", "grade")
        )
        graded = list(zip(ids, grades, strict=True))
        start = 0
        # Texts and pairs have null here, which has no length.
        for length in lists.value_lengths().fill_null(0).to_pylist():
            digest.update(json.dumps(sorted(graded[start : start + length])).encode())
            start += length
    return digest.hexdigest()


# Columns of the items' file that the data alone determines.
_OF_DATA = (
    *("split", "subset", "id", "gold"),
    *("relevant.list.element.id", "relevant.list.element.grade"),
)

Parts = frozenset[tuple[str, str]]
"""Splits and subsets."""


def items_digest(
    content: bytes, result: Mapping[str, Any], known: dict[bytes, tuple[Parts, str | None]]
) -> dict[str, str]:
    """Return the digest of an older result's items, which newer ones have in their provenance.

    It is unknown for unreadable items; for documents with summaries, which also depend on the
    model; for sub-queries, which were once written in any order; and for an aggregate, whose digest
    is that of its parts.

    Args:
        content: content of the items' file.
        result: mteb's.
        known: parts and digests of items that were read before. Most cells of a task have the same,
            whose columns are not read again.

    Returns:
        The condition; empty if unknown.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    entries = [(split, entry) for split, found in result["scores"].items() for entry in found]
    if any(key.startswith(SUBQUERIES) for _, entry in entries for key in entry):
        return {}
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            key = _columns_key(content, file.metadata)
            if key not in known:
                known[key] = _parts_and_digest(file.read(columns=list(_OF_DATA)), known)
    # The file is damaged, or has another layout.
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        return {}
    parts, digest = known[key]
    is_its_own = parts == {(split, entry["hf_subset"]) for split, entry in entries}
    return {ITEMS: digest} if digest is not None and is_its_own else {}


def _parts_and_digest(
    items: pa.Table, known: dict[bytes, tuple[Parts, str | None]]
) -> tuple[Parts, str | None]:
    """Return the splits and subsets of items, and their digest; None if it depends on the model.

    The same items in another order get the digest of those that were read first.
    """
    import pyarrow as pa

    groups = items.group_by(["split", "subset"]).aggregate([]).to_pydict()
    parts = frozenset(zip(groups["split"], groups["subset"], strict=True))
    if all(items[name].null_count == len(items) for name in ("gold", "relevant")):
        return parts, None
    order = [(name, "ascending") for name in ("split", "subset", "id")]
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, items.schema) as writer:
        writer.write_table(items.sort_by(order).combine_chunks())
    key = hashlib.sha256(stream.getvalue()).digest()
    if key not in known:
        known[key] = parts, digest_of_items(items, relevant=True)
    return known[key]


def _columns_key(content: bytes, metadata: Any) -> bytes:
    """Return a digest of the columns of a file that the data alone determines."""
    digest = hashlib.sha256(repr((metadata.num_rows, metadata.created_by)).encode())
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            if column.path_in_schema in _OF_DATA:
                start = column.dictionary_page_offset or column.data_page_offset
                digest.update(content[start : start + column.total_compressed_size])
    return digest.digest()


def parquet_of(items: pa.Table) -> bytes:
    import io

    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(items, buffer)
    return buffer.getvalue()
