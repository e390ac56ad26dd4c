"""Reads the result and the items of a cell, each file once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lcbench.results.content import read_result
from lcbench.results.items import ItemsError, whole_items

if TYPE_CHECKING:
    from lcbench.results.files import CellFiles


class CellItems:
    """The result and the items of a cell, whose files are opened at most once.

    Columns of the items are decoded when they are first needed, and kept until `close`.

    Attributes:
        files: files of the cell.
    """

    def __init__(self, files: CellFiles) -> None:
        self.files = files
        self._columns: dict[str, pa.ChunkedArray] = {}

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """mteb's result; None if it is missing or damaged."""
        return read_result(self.files)

    @property
    def names(self) -> list[str]:
        """The names of the items' columns; raises what `table` raises."""
        return list(self._file.schema_arrow.names)

    @property
    def metadata(self) -> pq.FileMetaData:
        """The metadata of the items' file; raises what `table` raises."""
        return self._file.metadata

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return columns of the items, each in one chunk; splits and subsets as dictionaries.

        Raises:
            OSError: the items are missing or unreadable.
            ItemsError: they were changed.
            pa.ArrowException: they are damaged.
            KeyError: they have no column of a name.
        """
        missing = [name for name in names if name not in self._columns]
        if missing:
            read = self._file.read(columns=missing).unify_dictionaries().combine_chunks()
            self._columns.update(zip(read.column_names, read.columns, strict=True))
        return pa.table({name: self._columns[name] for name in names})

    def close(self) -> None:
        """Drop the columns and the file, which are read again if they are needed again."""
        self._columns.clear()
        self.__dict__.pop("_opened", None)

    @property
    def _file(self) -> pq.ParquetFile:
        if isinstance(self._opened, Exception):
            raise self._opened
        return self._opened

    @cached_property
    def _opened(self) -> pq.ParquetFile | Exception:
        try:
            return pq.ParquetFile(whole_items(self.files), read_dictionary=["split", "subset"])
        except (OSError, ItemsError, pa.ArrowException) as error:
            return error
