"""Reads files of rows one row at a time: JSONL, CSV and Parquet, each row with its line.

A file of any size is read in little memory. Nothing is executed or unpickled.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lcbench.errors import RequestError, did_you_mean
from lcbench.system.words import reason_of
from lcbench.tasks.corpus.spec import COMPRESSED, ENDINGS

# Of JSON, where each row has its own keys: so many rows say which columns there are.
_ROWS_LOOKED_AT = 100
# Rows of Parquet that are in memory at once.
_BATCH = 1000
# A row of more bytes is no row: a quote that is never closed, or no line ends.
_LONGEST_ROW = 256 * 2**20


@dataclass(frozen=True)
class Rows:
    """A file of rows, or a split of a dataset of the hub.

    Attributes:
        path: of the file; of a dataset, its folder.
        config: configuration of a dataset.
        split: of a dataset; None: it is a file.
    """

    path: str
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        if self.split is None:
            return self.path
        return f"{self.path} ({'' if self.config is None else f'{self.config}, '}{self.split})"

    @property
    def format(self) -> str:
        """The ending of its name; `dataset`: of the hub."""
        return "dataset" if self.split is not None else ending_of(Path(self.path))


@dataclass(frozen=True)
class Row:
    """A row of a file.

    Attributes:
        line: where it begins: `line 7`; of Parquet `row 7`. Both count from 1.
        values: by column.
    """

    line: str
    values: Mapping[str, Any]


def wrong(rows: Rows | Path | str, line: str | None, what: str) -> RequestError:
    """Return the error for something that is wrong in a file: its name, the line, the remedy."""
    return RequestError(f"{rows}{'' if line is None else f', {line}'}: {what}")


def ending_of(path: Path) -> str:
    """Return the ending of a file's name that says how it is read, without `.gz`."""
    name = path.name.lower().removesuffix(COMPRESSED)
    return next((one for one in ENDINGS if name.endswith(one)), "")


def columns_of(rows: Rows) -> tuple[str, ...]:
    """Return the names of a file's columns; of JSONL those of its first hundred rows.

    Raises:
        RequestError: the file cannot be read.
    """
    if rows.format == ".parquet":
        with _reading(rows), _parquet(rows) as file:
            return tuple(file.schema_arrow.names)
    if rows.format in (".csv", ".tsv"):
        with _reading(rows), _opened(rows) as stream:
            header, _ = _header(_decoded(rows, stream), rows)
            return tuple(header)
    keys: dict[str, None] = {}
    for row in islice(read_rows(rows), _ROWS_LOOKED_AT):
        keys |= dict.fromkeys(row.values)
    return tuple(keys)


def read_rows(rows: Rows, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield the rows of a file in their order.

    Args:
        rows: the file.
        columns: that are needed, which makes Parquet faster; None: all.

    Raises:
        RequestError: naming the file and the line that cannot be read.
    """
    readers = {
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json_lines,
        ".csv": _csv,
        ".tsv": _csv,
    }
    with _reading(rows):
        if rows.format == "dataset":
            yield from _dataset(rows, columns)
        elif rows.format == ".parquet":
            yield from _parquet_rows(rows, columns)
        else:
            with _opened(rows) as stream:
                yield from readers[rows.format](_decoded(rows, stream), rows)


def missing_columns(
    rows: Rows, wanted: Iterable[str], there: Sequence[str], remedy: str
) -> RequestError:
    """Return the error for columns that a file lacks, which names those that are there."""
    lacking = ", ".join(wanted)
    near = did_you_mean(lacking, there)
    listed = ", ".join(there[:40]) or "none"
    return wrong(rows, None, f"there is no column {lacking}; there are: {listed}.{near} {remedy}")


@contextmanager
def _reading(rows: Rows) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        raise wrong(
            rows, None, f"it is not valid Parquet ({str(error).partition(chr(10))[0]})."
        ) from error
    except UnicodeDecodeError as error:
        # Of text files each line is decoded by itself; this is Parquet.
        raise wrong(rows, None, f"a text in it is not UTF-8 ({error.reason}).") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise wrong(
            rows, None, f"it is not a whole gzip file ({error}). Compress it again."
        ) from error
    except OSError as error:
        raise wrong(rows, None, f"it cannot be read: {error.strerror or error}.") from error


@contextmanager
def _opened(rows: Rows) -> Iterator[Any]:
    with Path(rows.path).open("rb") as file:
        if rows.path.lower().endswith(COMPRESSED):
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream
        else:
            yield file


def _decoded(rows: Rows, stream: Any) -> Iterator[str]:
    """Yield the lines of a text file with their ends.

    Raises:
        RequestError: one is not UTF-8.
    """
    number = 0
    while content := stream.readline(_LONGEST_ROW + 1):
        number += 1
        if len(content) > _LONGEST_ROW:
            raise wrong(rows, f"line {number}", f"a line of more than {_LONGEST_ROW:,} bytes.")
        if number == 1:
            if content.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise wrong(rows, "line 1", f"it is UTF-16. {_as_utf8(rows, 'UTF-16')}")
            content = content.removeprefix(b"\xef\xbb\xbf")
        try:
            yield content.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = content[error.start]
            raise wrong(
                rows,
                f"line {number}",
                f"byte {error.start + 1} (0x{byte:02x}) is not UTF-8. "
                f"{_as_utf8(rows, 'WINDOWS-1252')}",
            ) from None


def _as_utf8(rows: Rows, encoding: str) -> str:
    return f"If it is {encoding}: iconv -f {encoding} -t UTF-8 OLD > NEW"


def _json_lines(lines: Iterable[str], rows: Rows) -> Iterator[Row]:
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        line = f"line {number}"
        try:
            value = json.loads(text.rstrip())
        except (ValueError, RecursionError) as error:
            if number == 1 and text.lstrip().startswith("["):
                raise wrong(rows, line, _array(rows)) from None
            place = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            said = error.msg if isinstance(error, json.JSONDecodeError) else "too large or nested"
            raise wrong(
                rows, line, f"it is not JSON{place} ({said}). Each line is one object."
            ) from None
        if isinstance(value, list) and number == 1:
            raise wrong(rows, line, _array(rows))
        if not isinstance(value, dict):
            raise wrong(
                rows, line, f'a {type(value).__name__}, not an object such as {{"text": "…"}}.'
            )
        yield Row(line, value)


def _array(rows: Rows) -> str:
    return "it is a JSON array; one object per line is needed: jq -c '.[]' OLD.json > NEW.jsonl"


def _header(lines: Iterator[str], rows: Rows) -> tuple[list[str], str]:
    """Return the names of the columns of a CSV file, and what separates them.

    Raises:
        RequestError: there are none, or two of the same name.
    """
    first = next(lines, "")
    separator = "\t" if rows.format == ".tsv" else ","
    if rows.format == ".csv" and "," not in first:
        separator = next((one for one in (";", "\t") if one in first), separator)
    header = next(iter(csv.reader([first], delimiter=separator)), [])
    if not any(header):
        raise wrong(rows, "line 1", "there is no header with the names of the columns.")
    twice = sorted(name for name in set(header) if header.count(name) > 1)
    if twice:
        raise wrong(rows, "line 1", f"two columns have the name {twice[0] or '“”'}; rename one.")
    return header, separator


def _csv(lines: Iterator[str], rows: Rows) -> Iterator[Row]:
    # For the whole process; the default takes a text of more characters for a mistake.
    csv.field_size_limit(min(sys.maxsize, _LONGEST_ROW))
    header, separator = _header(lines, rows)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        line = f"line {reader.line_num + 2}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise wrong(
                rows,
                line,
                f"the row that begins here is not CSV ({error}). Texts with separators, quotes or "
                'line breaks need quotes, and quotes in them are doubled: "a ""b"", c".',
            ) from None
        if not values:
            continue
        if len(values) != len(header):
            raise wrong(
                rows,
                line,
                f"{len(values)} fields, and the header has {len(header)}. A text with "
                f"{'tabs' if separator == chr(9) else separator} in it needs quotes.",
            )
        yield Row(line, dict(zip(header, values, strict=True)))


@contextmanager
def _parquet(rows: Rows) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(rows.path) as file:
        yield file


def _parquet_rows(rows: Rows, columns: Sequence[str] | None) -> Iterator[Row]:
    number = 0
    with _parquet(rows) as file:
        there = file.schema_arrow.names
        read = None if columns is None else [one for one in columns if one in there]
        for batch in file.iter_batches(batch_size=_BATCH, columns=read):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"row {number}", values)


def _dataset(rows: Rows, columns: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of a split of a dataset's folder, as `datasets` reads them."""
    from datasets import load_dataset

    try:
        split = load_dataset(rows.path, rows.config, split=rows.split, streaming=True)
        for number, values in enumerate(split, start=1):
            yield Row(f"row {number}", values)
    except RequestError:
        raise
    except Exception as error:
        raise wrong(rows, None, f"datasets cannot read it ({reason_of(error)}).") from error
