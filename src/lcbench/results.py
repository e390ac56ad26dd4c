"""The result files: where they lie, how they are written, and how they are read into a frame.

The layout is that of `mteb.ResultCache`, one cache a protocol; beside each of mteb's files lies
what its format cannot hold, under names that do not end in `.json` (mteb's loader would fail):

    <results_dir>/<protocol key>/results/<org>__<model>/<revision>/            the baseline
    <results_dir>/<protocol key>/results/<org>__<model>/<revision>/experiments/tau_<canonical>/
        <Task>.json                mteb's result; it is written last, so its presence means done
        <Task>.provenance.jsonl    protocol, proof, versions, data, hardware, seconds, texts; of an
                                   imported result, where it comes from and what it lacks
        <Task>.items.parquet       one row an item: id, length in tokens, score, ranks
        <Task>.failure.txt         if the cell failed: how often, why, where, and the traceback
        .<Task>.attempt-<n>        while a process runs the cell: whose it is (`claims`)
        model_meta.json            mteb's description of the model

This module imports neither mteb nor torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError, StorageError
from lcbench.failures import patiently
from lcbench.files import try_writing, write_atomically
from lcbench.grid import Cell
from lcbench.provenance import DISTRIBUTIONS
from lcbench.tasks.suites import SYNTHETIC_TASKS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_META = "model_meta.json"
# In a provenance: the digest of the result that it belongs to, so that a change by hand is seen.
DIGEST = "result_sha256"

# In a provenance, and in a cell's conditions: the digest of what its items are (ids, labels), as
# far as the data alone says it.
ITEMS = "items_of_data"

# What a metric may exceed its range by: a correlation of 1 as it is computed.
_ROUNDING = 1e-6

# What the cells of others are shown under. No protocol's name has a colon, so that none of ours can
# stand among them.
# A window of more tokens than this is no limit.
_NO_WINDOW = 1e20
_IMPORTED_GROUP = "imported: public results of mteb; prompts, dtype and window unknown"

# What must be equal, beyond the protocol, for two cells to be compared: every library that encodes
# or scores. Our own version changes with every commit; its changes of meaning change the key.
COMPARED_VERSIONS = tuple(name for name in DISTRIBUTIONS if name != "lcbench")


@dataclass(frozen=True)
class CellFiles:
    """The files of one cell. The only place that knows their names."""

    folder: Path
    task: str

    @property
    def result(self) -> Path:
        """mteb's result: written last, so the cell is done when it is there."""
        return self.folder / f"{self.task}.json"

    @property
    def provenance(self) -> Path:
        """How the result came about."""
        return self.folder / f"{self.task}.provenance.jsonl"

    @property
    def items(self) -> Path:
        """One row an item (query, pair, text)."""
        return self.folder / f"{self.task}.items.parquet"

    @property
    def failure(self) -> Path:
        """The traceback of the last attempt, if that failed."""
        return self.folder / f"{self.task}.failure.txt"

    @property
    def meta(self) -> Path:
        """mteb's description of the model; one a folder."""
        return self.folder / _META


@dataclass(frozen=True)
class Finished:
    """A cell's outcome, ready to be written.

    Attributes:
        write_result: writes mteb's JSON to the path that it is given.
        model_meta: mteb's description of the model, with the policy as an experiment.
        provenance: how the result came about; JSON types only.
        items: one row an item, or None for a type of task that has no per-item scores here.
    """

    write_result: Callable[[Path], None]
    model_meta: dict[str, Any]
    provenance: dict[str, Any]
    items: pa.Table | None


@dataclass(frozen=True)
class Failure:
    """How the last attempt of a cell ended that has no result.

    Attributes:
        attempts: how many there were, this one among them.
        transient: whether it may go better the next time: no memory, no network, a process killed.
        reason: in one line.
        where: host, process, Slurm job.
        at: when, in UTC (ISO 8601).
        traceback: all of it.
    """

    attempts: int
    transient: bool
    reason: str
    where: str
    at: str
    traceback: str

    def __str__(self) -> str:
        """Return the content of its file."""
        head = {
            "attempts": self.attempts,
            "kind": "transient" if self.transient else "deterministic",
            "reason": " ".join(self.reason.split()),
            "where": " ".join(self.where.split()),
            "at": self.at,
        }
        lines = [f"{key}: {value}\n" for key, value in head.items()]
        return "".join([*lines, "\n", self.traceback])


def read_failure(path: Path) -> Failure | None:
    """Return what a failure's file says; None: there is none. What it lacks is empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head, _, traceback = text.partition("\n\n")
    said = dict(line.partition(": ")[::2] for line in head.split("\n"))
    if not said.get("attempts", "").isdigit():
        # Of a version before there was more than a traceback.
        last = text.strip().rpartition("\n")[2]
        return Failure(1, False, last, "", "", text)
    return Failure(
        attempts=int(said["attempts"]),
        transient=said.get("kind") == "transient",
        reason=said.get("reason", ""),
        where=said.get("where", ""),
        at=said.get("at", ""),
        traceback=traceback,
    )


class Results:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self, cell: Cell) -> CellFiles:
        """Return the files of a cell, whether they exist or not."""
        model = cell.model.replace("/", "__").replace(" ", "_")
        folder = self.folder / cell.protocol.key / "results" / model / cell.revision
        if not cell.policy.is_baseline:
            folder = folder / "experiments" / f"tau_{cell.policy.canonical}"
        return CellFiles(folder, cell.task)

    def check_writable(self) -> None:
        """Make the folder, and try a file in it.

        Raises:
            RequestError: naming the key, before anything is computed.
        """
        try:
            try_writing(self.folder)
        except OSError as error:
            raise RequestError(
                f"results_dir={self.folder} cannot be written: {error.strerror or error}. "
                "Name another folder: results_dir=PATH."
            ) from error

    def is_done(self, cell: Cell, warn: Callable[[str], None]) -> bool:
        """Whether the cell's result is there, can be read, and is as it was written.

        Any other is set aside under another name and reported, so that it is neither averaged nor
        silently written over.
        """
        files = self.files(cell)
        content = _content(files.result)
        if content is None:
            return False
        wrong = _what_is_wrong(files, content)
        if wrong is None:
            return True
        if aside := _set_aside(files.result, content):
            warn(f"{files.result} {wrong}; it is kept as {aside.name} and computed again.")
        # Another process may have set it aside, and even have made it again.
        again = _content(files.result)
        return again is not None and _what_is_wrong(files, again) is None

    def provenance(self, cell: Cell) -> dict[str, Any]:
        """Return how a cell's result came about; {} if that is not there or cannot be read."""
        return read_provenance(self.files(cell))

    def write(
        self, cell: Cell, finished: Finished, is_mine: Callable[[], bool] = lambda: True
    ) -> bool:
        """Write a cell's files, each whole or not at all, the result last.

        Args:
            cell: which.
            finished: its outcome.
            is_mine: whether the cell is still this process's to write; asked before each step.

        Returns:
            whether it was written; else it is no longer this process's.

        Raises:
            StorageError: nothing of this cell counts as done then.
        """
        files, items = self.files(cell), finished.items

        def write_items(path: Path) -> None:
            import pyarrow.parquet as pq

            pq.write_table(items, path)

        steps: list[tuple[Path, Callable[[Path], object]]] = [
            (files.provenance, _json_writer(finished.provenance)),
            (files.result, finished.write_result),
        ]
        if items is not None:
            steps.insert(0, (files.items, write_items))
        if not files.meta.exists():
            steps.insert(0, (files.meta, _json_writer(finished.model_meta, indent=4)))
        try:
            for path, write in steps:
                # What was written before has brought this process's view of the folder up to date.
                if not is_mine():
                    return False
                write_atomically(path, write)
        except StorageError:
            with suppress(OSError):
                if not files.result.exists():
                    files.items.unlink(missing_ok=True)
                    files.provenance.unlink(missing_ok=True)
            raise
        files.failure.unlink(missing_ok=True)
        return True

    def failure(self, cell: Cell) -> Failure | None:
        """Return how the last attempt of a cell ended, if in failure."""
        return read_failure(self.files(cell).failure)

    def write_failure(self, cell: Cell, failure: Failure) -> Path:
        """Keep how a cell failed, and return where.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.files(cell).failure
        write_atomically(path, lambda file: _write_text(file, str(failure)))
        return path

    def read(
        self,
        column_of: Callable[[str, str | None], str],
        warn: Callable[[str], None],
        paths: Iterable[Path] | None = None,
    ) -> pd.DataFrame:
        """Read scores into a frame, one row a cell × split × subset.

        Args:
            column_of: the column of Table 1 for a task's name and mteb type.
            warn: told of every file that cannot be read; those are set aside.
            paths: of result files, only these; None: all in the folder.

        Returns:
            columns group, window, model, revision, policy, task, column, split, subset, score
            (in [0, 1], NaN for a subset that an imported result lacks), conditions (what must be
            equal for two cells to be compared), protocol (as the cell's provenance has it), files
            (the cell's `CellFiles`), imported (None for a cell of ours; else what the revision is:
            `pinned`, the one that mteb's registry names; `revision`, another; `unnamed`, not known;
            `external`, of scores that the model's authors reported).
        """
        import pandas as pd

        rows = list(self._rows(column_of, warn, paths))
        _tell_docs_apart(rows)
        columns = ["group", "window", "model", "revision", "policy", "task", "column"]
        columns += ["split", "subset", "score", "conditions", "protocol", "files", "imported"]
        return pd.DataFrame(rows, columns=columns)

    def _rows(
        self,
        column_of: Callable[[str, str | None], str],
        warn: Callable[[str], None],
        asked: Iterable[Path] | None,
    ) -> Iterator[dict[str, Any]]:
        if asked is None:
            every = self.folder.glob("*/results/**/*.json")
            paths = sorted(path for path in every if path.name != _META)
        else:
            paths = list(asked)
        for path in paths:
            files = CellFiles(path.parent, path.name.removesuffix(".json"))
            content = _content(path)
            if content is None:
                continue
            wrong, result = _what_is_wrong(files, content), _read_result(content)
            if wrong or result is None:
                if aside := _set_aside(path, content):
                    warn(f"{path} {wrong}; it is kept as {aside.name}.")
                continue
            provenance = _read_object(files.provenance)
            if provenance is None:
                warn(f"{path} is left out: how it came about ({files.provenance.name}) is missing.")
                continue
            yield from _result_rows(result, files, provenance, column_of)


def _result_rows(
    result: Mapping[str, Any],
    files: CellFiles,
    provenance: Mapping[str, Any],
    column_of: Callable[[str, str | None], str],
) -> Iterator[dict[str, Any]]:
    model, revision, policy = _cell_of(files.folder)
    protocol = provenance.get("protocol", {})
    window = provenance.get("window")
    if isinstance(window, float | int) and not window <= _NO_WINDOW:
        # Infinity, or what transformers writes for no limit.
        window = None
    versions = provenance.get("versions", {})
    versions = versions if isinstance(versions, dict) else {}
    protocol = protocol if isinstance(protocol, dict) else {}
    conditions = {
        "dataset_revision": str(result.get("dataset_revision")),
        # A result may have been copied here from elsewhere: what it says of itself counts as well.
        "mteb_version": str(result.get("mteb_version")),
        "data": json.dumps(provenance.get("data"), sort_keys=True),
        "prompts": json.dumps(provenance.get("prompts"), sort_keys=True),
        **{name: str(versions.get(name)) for name in COMPARED_VERSIONS},
    }
    if isinstance(provenance.get(ITEMS), str):
        conditions[ITEMS] = provenance[ITEMS]
    task = result["task_name"]
    imported = provenance.get("imported")
    scores = [
        (split, entry["hf_subset"], entry["main_score"])
        for split, entries in result["scores"].items()
        for entry in entries
    ]
    for split, subsets in (provenance.get("missing") or {}).items():
        scores += [(split, subset, math.nan) for subset in subsets]
    for split, subset, score in scores:
        yield {
            "group": _IMPORTED_GROUP if imported else group_name(protocol),
            "docs": protocol.get("docs"),
            "window": window,
            "model": provenance.get("model") or model,
            "revision": revision,
            "policy": policy,
            "task": task,
            "column": column_of(task, provenance.get("task_type")),
            "split": split,
            "subset": subset,
            "score": score,
            "conditions": conditions,
            "protocol": protocol,
            "files": files,
            "imported": imported,
        }


def _cell_of(folder: Path) -> tuple[str, str, str]:
    """Return model, revision and policy of a folder of results."""
    policy = "1"
    if folder.parent.name == "experiments":
        policy, folder = folder.name.removeprefix("tau_"), folder.parents[1]
    return folder.parent.name.replace("__", "/"), folder.name, policy


def _tell_docs_apart(rows: list[dict[str, Any]]) -> None:
    """Give docstring tasks of different texts or sizes groups of their own: they share names.

    The synthetic ones have texts of their own, and may have them for each window: their lengths
    go by it.
    """
    kinds = [
        (row["group"], row["window"] if row["task"] in SYNTHETIC_TASKS else None) for row in rows
    ]
    digests: dict[Any, set[str]] = {}
    for row, kind in zip(rows, kinds, strict=True):
        if row["docs"] is not None:
            digests.setdefault(kind, set()).add(row["docs"])
    for row, kind in zip(rows, kinds, strict=True):
        if row["docs"] is not None and len(digests[kind]) > 1:
            row["group"] += f", docs {row['docs'][:8]}"


# What a protocol's name says of its prompts; any other is told, so that no two share a table.
_PROMPTS_OF = {"leaderboard": "registry"}


def group_name(protocol: Mapping[str, Any]) -> str:
    """Return the name of the cells that a table may show together, windows as its headings."""
    name = str(protocol.get("name", "unknown protocol"))
    parts = [name]
    if protocol.get("prompts", "none") != _PROMPTS_OF.get(name, "none"):
        parts.append(f"prompts {protocol.get('prompts')}")
    if protocol.get("dtype", "float32") != "float32":
        parts.append(str(protocol["dtype"]))
    if protocol.get("splits", "test") != "test":
        parts.append(f"splits {protocol['splits']}")
    if protocol.get("subsets") is not None:
        parts.append(f"subsets {', '.join(protocol['subsets'])}")
    return ", ".join(parts)


def read_provenance(files: CellFiles) -> dict[str, Any]:
    """Return how a cell's result came about; {} if that is not there or cannot be read."""
    return _read_object(files.provenance) or {}


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _content(path: Path) -> bytes | None:
    """Return a file's content; None: there is none.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return patiently(path.read_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


def _read_result(raw: bytes) -> dict[str, Any] | None:
    """Return an mteb result, or None if that is not one."""
    try:
        content = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    if content is None or "task_name" not in content:
        return None
    scores = content.get("scores")
    if not isinstance(scores, dict) or not scores:
        return None
    for entries in scores.values():
        if not isinstance(entries, list) or not entries:
            return None
        for entry in entries:
            if not isinstance(entry, dict) or not {"main_score", "hf_subset"} <= entry.keys():
                return None
            if not is_possible(entry["main_score"]):
                return None
    return content


def is_possible(score: Any, lowest: float = -1) -> bool:
    """Whether a value can be a score, or that of one that is not known (None, NaN).

    Every main score of mteb's lies within [-1, 1]: accuracies, nDCG … within [0, 1], correlations
    below 0 as well. What does not is in per cent, or no score.

    Args:
        score: the value.
        lowest: value of its metric.
    """
    if score is None:
        return True
    if isinstance(score, bool) or not isinstance(score, int | float):
        return False
    return score != score or lowest - _ROUNDING <= score <= 1 + _ROUNDING


def _what_is_wrong(files: CellFiles, content: bytes) -> str | None:
    """Return why a result is not to be taken for one; None: it is.

    Args:
        files: of its cell.
        content: of the result's file.
    """
    if _read_result(content) is None:
        return "cannot be read"
    written = (_read_object(files.provenance) or {}).get(DIGEST)
    if written is not None and written != digest_of(content):
        return "was changed after it was written"
    return None


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a result's file, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _set_aside(path: Path, content: bytes) -> Path | None:
    """Give a file that is no result another name, and return it; None: it has changed meanwhile.

    Args:
        path: of the file.
        content: that it was found to have.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.broken-{moment}-{secrets.token_hex(2)}")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return None
    if _content(aside) == content:
        return aside
    # Another process has put a new one there; unless yet another has come since, it goes back.
    with suppress(OSError):
        os.link(aside, path)
    aside.unlink(missing_ok=True)
    return None


def _json_writer(content: Mapping[str, Any], indent: int | None = None) -> Callable[[Path], None]:
    text = json.dumps(content, indent=indent, ensure_ascii=False, default=str) + "\n"
    return lambda path: _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
