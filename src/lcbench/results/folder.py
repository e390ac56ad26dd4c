"""A results folder: its layout, and writing and reading of cells.

The layout is that of `mteb.ResultCache`, one cache per protocol. Next to mteb's files are others
with further data, whose names do not end in `.json` (mteb's loader would fail):

    <results_dir>/<protocol key>/results/<org>__<model>/<revision>/            the baseline
    <results_dir>/<protocol key>/results/<org>__<model>/<revision>/experiments/tau_<canonical>/
        <Task>.json                mteb's result; it is written last, so its presence means done
        <Task>.provenance.jsonl    protocol, proof, versions, data, hardware, seconds, texts; for an
        imported result, its origin and what it lacks <Task>.items.parquet       one row per item:
        id, length in tokens, score, ranks <Task>.failure.txt         if the cell failed: how often,
        why, where, and the traceback .<Task>.attempt-<n>        the claim of a process that runs
        the cell (`claims`) model_meta.json            mteb's description of the model

If `tau_<canonical>` exceeds 200 characters (τ by layer for many layers), mteb and this module write
`exp_<digest>`; a model's name of that length is cut and followed by a digest. The provenance and
mteb's description of the model have the full names.

This module imports neither mteb nor torch.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError, StorageError
from lcbench.repair.repair import experiment_folder
from lcbench.results.cell import Cell
from lcbench.results.content import (
    content_of,
    digest_of,
    read_provenance,
)
from lcbench.results.failure import Failure, read_failure
from lcbench.results.files import CellFiles
from lcbench.results.items import (
    ITEMS,
    ITEMS_DIGEST,
    ItemsError,
    Parts,
    check_items,
    items_digest,
    parquet_of,
    read_items,
)
from lcbench.results.labels import read_labels
from lcbench.results.rows import (
    UNIQUE,
    LeftOut,
    check_same_score,
    conditions_of,
    folder_name,
    read_cell,
    result_files,
    result_rows,
    separate_texts,
)
from lcbench.system.files import Content, check_writable, write_atomically

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Finished:
    """The files of a finished cell, before they are written.

    Attributes:
        result: mteb's JSON, or a function that writes it.
        model_meta: mteb's description of the model, with the repair as an experiment.
        provenance: provenance of the result; JSON types only.
        items: one row per item, or None for a type of task without per-item scores here.
    """

    result: Content
    model_meta: dict[str, Any]
    provenance: dict[str, Any]
    items: pa.Table | None


class Results:
    """A folder of results.

    Attributes:
        folder: the folder, which cells are written to and looked for in.
        others: further folders that `read` includes.
    """

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.others = tuple(others)

    def files(self, cell: Cell) -> CellFiles:
        """Return the files of a cell, whether they exist or not."""
        folder = self.folder / cell.protocol.key / "results" / folder_name(cell.model)
        folder /= cell.revision
        if not cell.repair.is_baseline:
            folder = folder / "experiments" / experiment_folder(cell.repair.parts)
        return CellFiles(folder, cell.task)

    def check_writable(self) -> None:
        """Check that the folder can be written, before anything is computed.

        Raises:
            RequestError: naming the key.
        """
        try:
            check_writable(self.folder)
        except OSError as error:
            raise RequestError(
                f"results_dir={self.folder} cannot be written: {error.strerror or error}. "
                "Choose another folder: results_dir=PATH."
            ) from error

    def is_done(self, cell: Cell, warn: Callable[[str], None]) -> bool:
        """Return whether the cell has a valid, unchanged result of its own.

        An invalid result is renamed and reported, so that it is neither averaged nor silently
        overwritten. Only a run does this, for its own cells: a report changes nothing.

        Raises:
            StorageError: it cannot be read or renamed: no permission.
        """
        files = self.files(cell)
        content = content_of(files.result)
        if content is None:
            return False
        wrong = self._what_is_wrong(files, content)
        if wrong is None:
            return True
        try:
            aside = _set_aside(files.result, content)
        except OSError as error:
            raise StorageError(
                f"{files.result} {wrong}, and it cannot be set aside: {error.strerror}. Ask "
                "its owner to remove it, or choose another folder: results_dir=PATH."
            ) from error
        if aside is not None:
            warn(f"{files.result} {wrong}; it is kept as {aside.name} and computed again.")
        # Another process may have set it aside, and may even have recomputed it.
        again = content_of(files.result)
        return again is not None and self._what_is_wrong(files, again) is None

    def _what_is_wrong(self, files: CellFiles, content: bytes) -> str | None:
        """Return why a file is not its cell's result, or None if it is."""
        return read_cell(self.folder, files, content).wrong

    def provenance(self, cell: Cell) -> dict[str, Any]:
        """Return a cell's provenance; {} if it is missing or unreadable."""
        return read_provenance(self.files(cell))

    def write(
        self, cell: Cell, finished: Finished, is_mine: Callable[[], bool] = lambda: True
    ) -> bool:
        """Write a cell's files atomically, the result last.

        Args:
            cell: the cell.
            finished: its files.
            is_mine: returns whether this process still holds the cell; called before each step.

        Returns:
            whether it was written; else this process no longer holds the cell.

        Raises:
            StorageError: it cannot be written; the cell does not count as done.
        """
        files, record = self.files(cell), finished.provenance
        steps: list[tuple[Path, Content]] = []
        if finished.items is not None:
            items = parquet_of(finished.items)
            record = {**record, ITEMS_DIGEST: digest_of(items)}
            steps.append((files.items, items))
        steps += [
            (files.provenance, _json_text(record)),
            (files.result, finished.result),
        ]
        if not files.meta.exists():
            steps.insert(0, (files.meta, _json_text(finished.model_meta, indent=4)))
        try:
            for path, text in steps:
                # The files written before have updated this process's view of the folder.
                if not is_mine():
                    return False
                write_atomically(path, text)
        except StorageError:
            with suppress(OSError):
                if not files.result.exists():
                    files.items.unlink(missing_ok=True)
                    files.provenance.unlink(missing_ok=True)
            raise
        # The cell is finished whether or not an older failure can be removed (`queue.tidy`).
        with suppress(OSError):
            files.failure.unlink(missing_ok=True)
        return True

    def failure(self, cell: Cell) -> Failure | None:
        """Return the failure of a cell's last attempt, if any."""
        return read_failure(self.files(cell).failure)

    def write_failure(self, cell: Cell, failure: Failure) -> Path:
        """Record a cell's failure, and return the file.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.files(cell).failure
        write_atomically(path, str(failure))
        return path

    def read(
        self,
        column_of: Callable[[str, str | None], str],
        warn: Callable[[str], None],
        paths: Iterable[Path] | None = None,
    ) -> pd.DataFrame:
        """Read scores into a frame with one row per cell × split × subset.

        Args:
            column_of: returns the column of Table 1 for a task's name and mteb type.
            warn: receives a line about each file that is left out because it is unreadable, was
                changed, or belongs to another cell than its path says. Nothing is written or
                renamed.
            paths: result files to read; None: all in the folder and in `others`.

        Returns:
            A frame with the columns group, window, model, revision, path (requested path of a
            model's folder; None: a model of the hub, or unknown), policy, task, column, split,
            subset, score (in [0, 1], NaN for a subset that an imported result lacks), conditions
            (which must be equal for two cells to be compared), protocol (as in the cell's
            provenance), files (the cell's `CellFiles`), imported (None for a cell of lcbench; else
            the kind of revision: `pinned`, the one in mteb's registry; `revision`, another;
            `unnamed`, unknown; `external`, for scores reported by the model's authors),
            left_out (number of rows of a user's texts that were not scored, by reason).

        Raises:
            RequestError: two folders have different scores of the same cell.
        """
        import pandas as pd

        rows = list(self._rows(column_of, warn, paths))
        separate_texts(rows)
        labels = {
            key: label
            for folder in reversed((self.folder, *self.others))
            for key, label in read_labels(folder).items()
        }
        for row in rows:
            row["label"] = labels.get((row["model"], row["revision"]))
        columns = ["group", "window", "model", "revision", "path", "policy", "task", "column"]
        columns += [
            "split",
            "subset",
            "score",
            "conditions",
            "protocol",
            "files",
            "imported",
            "left_out",
            "label",
        ]
        return pd.DataFrame(rows, columns=columns)

    def _rows(
        self,
        column_of: Callable[[str, str | None], str],
        warn: Callable[[str], None],
        asked: Iterable[Path] | None,
    ) -> Iterator[dict[str, Any]]:
        left_out = LeftOut()
        places = [(self.folder, path) for path in asked or ()]
        if asked is None:
            folders = (self.folder, *self.others)
            places = [(one, path) for one in folders for path in result_files(one, left_out)]
        seen: dict[tuple[Any, ...], tuple[Path, dict[str, Any]]] = {}
        digests: dict[bytes, tuple[Parts, str | None]] = {}
        for folder, path in places:
            files = CellFiles(path.parent, path.name.removesuffix(".json"))
            try:
                content = content_of(path)
                if content is None:
                    continue
                read = read_cell(folder, files, content)
            except StorageError as error:
                left_out.add(path, f"is left out: {error}")
                continue
            if read.result is None or read.provenance is None or read.wrong:
                left_out.add(path, f"{read.wrong}; it is left out.")
                continue
            conditions = conditions_of(read.result, read.provenance)
            rows = list(result_rows(read.result, files, read.provenance, conditions, column_of))
            keyed = {tuple(str(row[name]) for name in UNIQUE): row for row in rows}
            if twins := keyed.keys() & seen.keys():
                if all(seen[key][0] != folder for key in twins):
                    for key in twins:
                        check_same_score(keyed[key], seen[key][1])
                else:
                    left_out.add(path, "is left out: there is another result of the same cell.")
                continue
            seen |= {key: (folder, row) for key, row in keyed.items()}
            try:
                items = read_items(files)
                check_items(files, items, read.provenance)
                # Values that all its rows have in common.
                if ITEMS not in read.provenance:
                    conditions |= items_digest(items, read.result, digests)
            except FileNotFoundError:
                if ITEMS_DIGEST in read.provenance:
                    left_out.add(files.items, "is missing: tables that need items omit it.")
            except (OSError, ItemsError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                left_out.add(files.items, f"is left out: {why}. The score is used nevertheless.")
            yield from rows
        left_out.tell(warn)


def _set_aside(path: Path, content: bytes) -> Path | None:
    """Rename an invalid result, and return the new path; None if it has changed meanwhile.

    Args:
        path: of the file.
        content: content that was found invalid.

    Raises:
        OSError: it cannot be renamed.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.broken-{moment}-{secrets.token_hex(2)}")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return None
    # A link that pointed to itself is dangling under another name.
    if content_of(aside) in (content, None):
        return aside
    # Another process has written a new file there; put it back, unless there is one again.
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    except OSError:
        # A file system without hard links.
        if not os.path.lexists(path):
            aside.replace(path)
    with suppress(OSError):
        aside.unlink(missing_ok=True)
    return None


def _json_text(content: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, ensure_ascii=False, default=str) + "\n"
