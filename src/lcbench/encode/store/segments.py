"""Serialises rows of a shelf as segments with checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

Keys = NDArray[np.bytes_]

# Of what is written below; another layout is another folder.
_LAYOUT = 2
_KEY_BYTES = 16

# Names of the checksums that a segment carries: of keys and lengths, and of the values.
_CHECKSUMS = ("index", "values")


@dataclass(frozen=True)
class Context:
    """The common properties of a shelf's rows, which differ only in their texts.

    Attributes:
        model: the model's name.
        revision: revision of its weights and tokenizer.
        window: number of tokens read of a text; None: no limit.
        dtype: dtype of the computation.
        temperature: name of the repair of the texts' role, which is often a temperature alone.
        prompt: text put before each text.
        role: role of the texts if the model may depend on it; otherwise "".
        made_by: digest of the versions of the libraries and of the code that make the rows.
        pooling: pooling requested instead of the model's own; None: the model's.
        changes: further requested changes of the model, such as fewer dimensions; None: none.
    """

    model: str
    revision: str | None
    window: int | None
    dtype: str
    temperature: str
    prompt: str
    made_by: str
    role: str = ""
    pooling: str | None = None
    changes: str | None = None

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that name the shelf."""
        return hashlib.blake2b(self.described.encode("ascii"), digest_size=16).hexdigest()

    @property
    def described(self) -> str:
        """All fields as JSON, as each segment carries them."""
        # Folders of earlier versions also have tokens, which nothing reads and which are evicted.
        kept = {"layout": _LAYOUT, "kind": "embedding", **asdict(self)}
        if self.changes is None:
            # As in folders of versions that had none.
            del kept["changes"]
        return json.dumps(kept, sort_keys=True)


def digests(texts: Sequence[str]) -> Keys:
    """Return the keys of texts: BLAKE2b of 16 bytes of each, as an array of dtype S16."""
    made = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()
        for text in texts
    )
    return np.frombuffer(made, dtype=f"S{_KEY_BYTES}")


@dataclass(frozen=True)
class Rows:
    """Rows of a segment.

    Attributes:
        keys: keys of the texts, [n].
        lengths: lengths of the texts in tokens, [n].
        values: embeddings, [n, dimensions].
    """

    keys: Keys
    lengths: NDArray[np.int32]
    values: NDArray[Any]

    def without_values(self) -> Rows:
        """Return a copy that keeps no file mapped."""
        return Rows(self.keys.copy(), self.lengths.copy(), np.zeros(0))


def concatenate(pieces: Iterable[Rows]) -> Rows:
    parts = list(pieces)
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _schema(context: Context, kind: Any, checksums: Mapping[str, str]) -> Any:
    """Return a segment's columns; `kind` is Arrow's type of the values of a row."""
    columns = [("key", pa.binary(_KEY_BYTES)), ("length", pa.int32()), ("embedding", kind)]
    return pa.schema(columns, metadata={"context": context.described, **checksums})


def _checksums(rows: Rows, *, only_keys: bool = False) -> dict[str, str]:
    """Return the checksums of rows: of keys and lengths, and of the values.

    XXH3 of 128 bits, since it costs little compared with reading: a segment takes 0.4 ms, and
    22 ms with BLAKE2b. It protects against damage, not forgery: anyone who can write the store can
    also write segments.
    """
    index = xxhash.xxh3_128(np.ascontiguousarray(rows.keys).data)
    index.update(np.ascontiguousarray(rows.lengths, np.int32).data)
    found = {"index": index.hexdigest()}
    if not only_keys:
        found["values"] = xxhash.xxh3_128(np.ascontiguousarray(rows.values).data).hexdigest()
    return found


def is_intact(batch: Any, rows: Rows, *, only_keys: bool) -> bool:
    """Whether the rows of a segment have the checksums that it carries."""
    carried = batch.schema.metadata
    return all(
        carried[name.encode()] == value.encode()
        for name, value in _checksums(rows, only_keys=only_keys).items()
    )


def pack(rows: Rows, context: Context) -> Any:
    """Return rows as Arrow's record batch."""
    vectors = pa.FixedSizeListArray.from_arrays(
        _column(rows.values.reshape(-1), pa.float32()), rows.values.shape[1]
    )
    keys, lengths = _column(rows.keys, pa.binary(_KEY_BYTES)), _column(rows.lengths, pa.int32())
    schema = _schema(context, vectors.type, _checksums(rows))
    return pa.RecordBatch.from_arrays([keys, lengths, vectors], schema=schema)


def _column(values: NDArray[Any], kind: Any) -> Any:
    """Return an Arrow array of the same memory; `pyarrow.array` would import pandas first."""
    return pa.Array.from_buffers(
        kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def unpack(batch: Any, context: Context, dimensions: int | None) -> Rows | None:
    """Return the rows of a record batch without copying them; None: it is not valid."""
    try:
        last = batch.column(batch.num_columns - 1)
        size = getattr(last.type, "list_size", None) if dimensions is None else dimensions
        carried = batch.schema.metadata
        checksums = {name: carried[name.encode()] for name in _CHECKSUMS}
        schema = _schema(context, pa.list_(pa.float32(), size), checksums) if size else None
        batch.validate(full=True)
    except (ValueError, IndexError, KeyError, TypeError):
        # Arrow's own error is a ValueError, and so is a name that is no text; or without columns;
        # or without checksums, or without any metadata.
        return None
    if schema is None or not batch.schema.equals(schema, check_metadata=True):
        return None
    if any(column.null_count for column in batch.columns):
        return None
    vectors = _numbers(last.flatten(), "float32").reshape(-1, last.type.list_size)
    keys, lengths = _numbers(batch.column(0), f"S{_KEY_BYTES}"), _numbers(batch.column(1), "int32")
    return Rows(keys, lengths, vectors)


def _numbers(array: Any, dtype: str) -> NDArray[Any]:
    """Return an Arrow array's memory; its own `to_numpy` would import pandas first."""
    buffer, kind = array.buffers()[1], np.dtype(dtype)
    if buffer is None:
        return np.zeros(0, dtype=kind)
    return np.frombuffer(buffer, kind, count=len(array), offset=array.offset * kind.itemsize)


class BrokenError(Exception):
    """A file is not a valid segment."""
