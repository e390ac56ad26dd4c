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

Where `tau_<canonical>` would be longer than 200 characters (τ by layer for many layers), mteb and
this module write `exp_<digest>`, and of the name of a model that is as long its beginning and a
digest; the provenance, and mteb's description of the model, have all of it.

This module imports neither mteb nor torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError, StorageError
from lcbench.failures import patiently
from lcbench.files import fitting, try_writing, write_atomically
from lcbench.grid import Cell, Protocol
from lcbench.provenance import DISTRIBUTIONS
from lcbench.tasks.suites import SYNTHETIC_TASKS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_META = "model_meta.json"
# In a provenance: the digest of the result that it belongs to, so that a change by hand is seen.
DIGEST = "result_sha256"
# The same of the items. Older results have none: their items are taken as they are.
ITEMS_DIGEST = "items_sha256"

# Files of one fault that a report names one by one; of the others it says how many there are.
_MOST_NAMED = 5

# In a provenance, and in a cell's conditions: the digest of what its items are (ids, labels), as
# far as the data alone says it. Of an older result it is taken of the items themselves.
ITEMS = "items_of_data"

# What mteb puts before a metric of queries that are asked in parts (MindSmallReranking).
SUBQUERIES = "max_over_subqueries_"

# Characters of an experiment's name beyond which mteb takes a digest of it.
_LONGEST_EXPERIMENT = 200

# Metrics that are never below 0, by how their names begin; any other may be -1 (correlations).
_NEVER_NEGATIVE = (
    *("accuracy", "f1", "ndcg_at", "map", "mrr", "recall", "precision", "hit_rate", "v_measure"),
    *("max_ap", "max_accuracy", "max_f1", SUBQUERIES, "paired_accuracy", "robustness_at", "lrap"),
    *("nmi", "text_acc", "image_acc"),
)

# What a metric may exceed its range by: a correlation of 1 as it is computed.
_ROUNDING = 1e-6

# In a provenance: the pooling of a model that names none, where none was asked for.
ASSUMED_POOLING = "assumed_pooling"
# In a provenance: the folder of a model as it was asked for. Older results have none.
MODEL_PATH = "model_path"

# A window of more tokens than this is no limit.
_NO_WINDOW = 1e20

# What the cells of others are shown under. No protocol's name has a colon, so that none of ours can
# stand among them.
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
        text = _read_bytes(path).decode("utf-8", errors="replace")
    except OSError:
        return None
    head, _, traceback = text.partition("\n\n")
    said = dict(line.partition(": ")[::2] for line in head.split("\n"))
    attempts = said.get("attempts", "")
    if not (attempts.isascii() and attempts.isdecimal() and len(attempts) < 10):
        # Of a version before there was more than a traceback.
        last = text.strip().rpartition("\n")[2]
        return Failure(1, False, last, "", "", text)
    return Failure(
        attempts=int(attempts),
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
        folder = self.folder / cell.protocol.key / "results" / _folder_name(cell.model)
        folder /= cell.revision
        if not cell.policy.is_baseline:
            folder = folder / "experiments" / _policy_folder(cell.policy.canonical)
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
        """Whether the cell's result is there, can be read, was not changed and is its own.

        Any other is set aside under another name and reported, so that it is neither averaged nor
        silently written over. A run asks this, of its own cells: a report leaves them where they
        are.

        Raises:
            StorageError: it cannot be read or set aside: no permission.
        """
        files = self.files(cell)
        content = _content(files.result)
        if content is None:
            return False
        wrong = self._what_is_wrong(files, content)
        if wrong is None:
            return True
        try:
            aside = _set_aside(files.result, content)
        except OSError as error:
            raise StorageError(
                f"{files.result} {wrong}, and it cannot be set aside: {error.strerror}. Have it "
                "removed by whoever may, or name another folder: results_dir=PATH."
            ) from error
        if aside is not None:
            warn(f"{files.result} {wrong}; it is kept as {aside.name} and computed again.")
        # Another process may have set it aside, and even have made it again.
        again = _content(files.result)
        return again is not None and self._what_is_wrong(files, again) is None

    def _what_is_wrong(self, files: CellFiles, content: bytes) -> str | None:
        """Return why a file is not the result of the cell in whose place it lies; None: it is."""
        return _read_cell(self.folder, files, content).wrong

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
        files, record = self.files(cell), finished.provenance
        steps: list[tuple[Path, Callable[[Path], object]]] = []
        if finished.items is not None:
            items = _parquet(finished.items)
            record = {**record, ITEMS_DIGEST: digest_of(items)}
            steps.append((files.items, lambda path: path.write_bytes(items)))
        steps += [
            (files.provenance, _json_writer(record)),
            (files.result, finished.write_result),
        ]
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
        # The cell is finished whether or not an older failure can be removed (`allotment.tidy`).
        with suppress(OSError):
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
            warn: told of every file that is left out: it cannot be read, was changed, or is not
                the result of the cell in whose place it lies. Nothing is written or renamed.
            paths: of result files, only these; None: all in the folder.

        Returns:
            columns group, window, model, revision, path (of a model's folder as it was asked for;
            None: of the hub, or not known), policy, task, column, split, subset, score (in [0, 1],
            NaN for a subset that an imported result lacks), conditions (what must be equal for two
            cells to be compared), protocol (as the cell's provenance has it), files (the cell's
            `CellFiles`), imported (None for a cell of ours; else what the revision is: `pinned`,
            the one that mteb's registry names; `revision`, another; `unnamed`, not known;
            `external`, of scores that the model's authors reported).
        """
        import pandas as pd

        rows = list(self._rows(column_of, warn, paths))
        _tell_docs_apart(rows)
        columns = ["group", "window", "model", "revision", "path", "policy", "task", "column"]
        columns += ["split", "subset", "score", "conditions", "protocol", "files", "imported"]
        return pd.DataFrame(rows, columns=columns)

    def _rows(
        self,
        column_of: Callable[[str, str | None], str],
        warn: Callable[[str], None],
        asked: Iterable[Path] | None,
    ) -> Iterator[dict[str, Any]]:
        left_out = _LeftOut()
        paths = _result_files(self.folder, left_out) if asked is None else asked
        seen: set[tuple[Any, ...]] = set()
        digests: dict[bytes, tuple[_Parts, str | None]] = {}
        for path in paths:
            files = CellFiles(path.parent, path.name.removesuffix(".json"))
            try:
                content = _content(path)
                if content is None:
                    continue
                read = _read_cell(self.folder, files, content)
            except StorageError as error:
                left_out.add(path, f"is left out: {error}")
                continue
            if read.result is None or read.provenance is None or read.wrong:
                left_out.add(path, f"{read.wrong}; it is left out.")
                continue
            conditions = _conditions(read.result, read.provenance)
            rows = list(_result_rows(read.result, files, read.provenance, conditions, column_of))
            keys = {tuple(str(row[name]) for name in _UNIQUE) for row in rows}
            if keys & seen:
                left_out.add(path, "is left out: there is another result of the same cell.")
                continue
            seen |= keys
            try:
                items = read_items(files)
                check_items(files, items, read.provenance)
                # What all its rows hold.
                if ITEMS not in read.provenance:
                    conditions |= _items_of_data(items, read.result, digests)
            except FileNotFoundError:
                if ITEMS_DIGEST in read.provenance:
                    left_out.add(files.items, "is missing: what needs the items is left out.")
            except (OSError, ItemsError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                left_out.add(files.items, f"is left out: {why}. The score counts all the same.")
            yield from rows
        left_out.tell(warn)


# What no two results share.
_UNIQUE = ("group", "docs", "window", "model", "revision", "policy", "task", "split", "subset")


class _LeftOut:
    """What is left out of a report, by reason, so that a foreign folder is told in a few lines."""

    def __init__(self) -> None:
        self._paths: dict[str, list[Path]] = {}

    def add(self, path: Path, why: str) -> None:
        """Take note of a file."""
        self._paths.setdefault(why, []).append(path)

    def tell(self, warn: Callable[[str], None]) -> None:
        """Name the files, of many with the same fault the first ones."""
        for why, paths in self._paths.items():
            for path in paths[:_MOST_NAMED]:
                warn(f"{path} {why}")
            if len(paths) > _MOST_NAMED:
                warn(f"… and {len(paths) - _MOST_NAMED:,} more, each: {why}")


def _result_files(folder: Path, left_out: _LeftOut) -> list[Path]:
    """Return the files in the places of results below a folder, sorted.

    Only the levels of the layout are listed, so that links in circles come to an end. What cannot
    be listed is told: its results would be missing without a word.
    """
    found: list[Path] = []
    for group in _folders(folder, left_out):
        for model in _folders(group / "results", left_out):
            for revision in _folders(model, left_out):
                found += _json_files(revision, left_out)
                for parts in _folders(revision / "experiments", left_out):
                    found += _json_files(parts, left_out)
    return sorted(found)


def _entries(folder: Path, left_out: _LeftOut) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        left_out.add(folder, f"cannot be listed ({error.strerror}): its results are left out.")
        return []


def _folders(folder: Path, left_out: _LeftOut) -> list[Path]:
    # `is_dir` of a link in circles raises.
    found = []
    for entry in _entries(folder, left_out):
        with suppress(OSError):
            if not entry.name.startswith(".") and entry.is_dir():
                found.append(Path(entry.path))
    return found


def _json_files(folder: Path, left_out: _LeftOut) -> list[Path]:
    return [
        Path(entry.path)
        for entry in _entries(folder, left_out)
        # Beside files some systems keep others of the same name with a dot before it.
        if entry.name.endswith(".json") and entry.name[0] != "." and entry.name != _META
    ]


@dataclass(frozen=True)
class _Read:
    """What the files of a cell hold.

    Attributes:
        wrong: why they are not the result of the cell in whose place they lie; None: they are.
        result: mteb's.
        provenance: how it came about.
    """

    wrong: str | None
    result: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None


def _read_cell(results_dir: Path, files: CellFiles, content: bytes) -> _Read:
    """Read the files of a cell, and compare them with each other and with their place.

    Args:
        results_dir: the folder of all results.
        files: of the cell.
        content: of its result.

    Raises:
        StorageError: the provenance cannot be read: no permission.
    """
    result = _read_result(content)
    if result is None:
        return _Read("cannot be read")
    kept = _content(files.provenance)
    if kept is None:
        return _Read(f"does not say how it came about ({files.provenance.name} is missing)")
    provenance = _read_provenance(kept)
    if provenance is None:
        return _Read(f"does not say how it came about ({files.provenance.name} cannot be read)")
    written = provenance.get(DIGEST)
    if written is not None and written != digest_of(content):
        return _Read("was changed after it was written")
    if another := _of_another_cell(results_dir, files, result, provenance):
        return _Read(f"is the result of another cell: {another}")
    return _Read(None, result, provenance)


def _of_another_cell(
    results_dir: Path, files: CellFiles, result: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str | None:
    """Return how a result differs from the place where it lies; None: it fits.

    A folder that was copied, renamed or merged by hand shows the scores of one cell as those of
    another. What an older provenance does not say is not compared.
    """
    model, revision, policy = _cell_of(files.folder)
    tau = provenance.get("policy")
    if tau is not None and _policy_folder(tau) == files.folder.name:
        # Of a long name the folder has a digest.
        tau = policy
    told = {
        "task": (result["task_name"], files.task),
        "τ": (tau, policy),
        "revision": (provenance.get("revision"), revision),
    }
    if (name := provenance.get("model")) is not None:
        told["model"] = (_folder_name(str(name)), _folder_name(model))
    try:
        key = Protocol(**provenance["protocol"]).key
    except (KeyError, TypeError):
        key = None
    group = _model_folder(files.folder).parents[1]
    with suppress(ValueError):
        told["protocol"] = (key, str(group.relative_to(results_dir)))
    for what, (said, place) in told.items():
        if said is not None and str(said) != place:
            return f"{what} {said}, where {what} {place} belongs"
    return None


def _model_folder(folder: Path) -> Path:
    """Return the folder of the model that a cell's folder lies in."""
    return folder.parents[2] if folder.parent.name == "experiments" else folder.parent


def _folder_name(model: str) -> str:
    """Return what the folder of a model is called, as mteb has it; a long name is cut."""
    return fitting(model.replace("/", "__").replace(" ", "_"))


def _policy_folder(canonical: str) -> str:
    """Return what the folder of a policy is called, as mteb has it: of many layers by a digest."""
    name = f"tau_{canonical}"
    if len(name) <= _LONGEST_EXPERIMENT:
        return name
    return f"exp_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _conditions(result: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what must be equal, beyond the protocol, for two cells to be compared."""
    versions = provenance.get("versions", {})
    versions = versions if isinstance(versions, dict) else {}
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
    if isinstance(provenance.get(ASSUMED_POOLING), str):
        conditions[ASSUMED_POOLING] = provenance[ASSUMED_POOLING]
    return conditions


def _result_rows(
    result: Mapping[str, Any],
    files: CellFiles,
    provenance: Mapping[str, Any],
    conditions: Mapping[str, str],
    column_of: Callable[[str, str | None], str],
) -> Iterator[dict[str, Any]]:
    model, revision, policy = _cell_of(files.folder)
    protocol = provenance.get("protocol", {})
    window = provenance.get("window")
    if isinstance(window, float | int) and not window <= _NO_WINDOW:
        # Infinity, or what transformers writes for no limit.
        window = None
    protocol = protocol if isinstance(protocol, dict) else {}
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
            "path": path if isinstance(path := provenance.get(MODEL_PATH), str) else None,
            "policy": provenance.get("policy") or policy,
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
    """Return model, revision and policy of a folder of results; of long names what is there."""
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
_PROMPTS_OF = {"leaderboard": "registry", "model": "model"}


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
    if protocol.get("pooling") is not None:
        parts.append(f"pooling {protocol['pooling']}")
    if protocol.get("subsets") is not None:
        parts.append(f"subsets {', '.join(protocol['subsets'])}")
    return ", ".join(parts)


def read_provenance(files: CellFiles) -> dict[str, Any]:
    """Return how a cell's result came about; {} if that is not there or cannot be read."""
    try:
        content = _content(files.provenance)
    except StorageError:
        return {}
    return (_read_provenance(content) if content is not None else None) or {}


def _read_provenance(content: bytes) -> dict[str, Any] | None:
    """Return a provenance; None: it is none, or what is read of it is of another kind."""
    found = _json_object(content)
    if found is None:
        return None

    def texts(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)

    protocol, missing, window = (found.get(name) for name in ("protocol", "missing", "window"))
    names = ("model", "revision", "policy", "task_type", "imported")
    is_one = (
        all(isinstance(found.get(name), str | None) for name in names)
        and isinstance(protocol, dict | None)
        and isinstance(found.get("data"), dict | None)
        and isinstance(missing, dict | None)
        and isinstance(window, int | float | None)
        and not isinstance(window, bool)
        and all(map(texts, (missing or {}).values()))
    )
    if protocol is not None and is_one:
        subsets = protocol.get("subsets")
        is_one = isinstance(protocol.get("docs"), str | None) and (
            subsets is None or texts(subsets)
        )
    return found if is_one else None


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    # A list in a list in a list …: Python's reader gives up at some depth.
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _read_bytes(path: Path) -> bytes:
    """Return the content of a regular file; of anything else, which might never end, nothing."""
    # Else to open a pipe waits for whoever writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


def _content(path: Path) -> bytes | None:
    """Return a file's content; None: there is none. Of what is no file it is empty.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return patiently(lambda: _read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            return b""
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


# What the system says of a folder, of a link to itself, and of a socket, when one is read.
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)


def _read_result(raw: bytes) -> dict[str, Any] | None:
    """Return an mteb result, or None if that is not one."""
    content = _json_object(raw)
    if content is None or not isinstance(content.get("task_name"), str):
        return None
    scores = content.get("scores")
    if not isinstance(scores, dict) or not scores:
        return None
    for entries in scores.values():
        if not isinstance(entries, list) or not entries:
            return None
        if not all(isinstance(entry, dict) for entry in entries):
            return None
        subsets = [entry.get("hf_subset") for entry in entries]
        if not all(isinstance(one, str) for one in subsets) or len(set(subsets)) < len(subsets):
            return None
        if not all("main_score" in entry and is_possible(entry["main_score"]) for entry in entries):
            return None
    return content


def lowest_score(metric: str) -> int:
    """Return the lowest value that a main score of mteb's can have: 0, or -1 (correlations)."""
    return 0 if metric.startswith(_NEVER_NEGATIVE) else -1


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


class ItemsError(Exception):
    """Items that are not those that their result was written with."""


def read_items(files: CellFiles) -> bytes:
    """Return the items' file as it is, for `check_items`.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return _read_bytes(files.items)


def check_items(files: CellFiles, content: bytes, provenance: Mapping[str, Any]) -> None:
    """See that items are those that were written: pyarrow ends the process over some others.

    Raises:
        ItemsError: they are not.
    """
    written = provenance.get(ITEMS_DIGEST)
    if written is not None and written != digest_of(content):
        raise ItemsError("the items were changed after they were written")


def whole_items(files: CellFiles) -> pa.BufferReader:
    """Return a cell's items for pyarrow to read, if they are as they were written.

    Raises:
        OSError: they are not there, or cannot be read.
        ItemsError: they were changed.
    """
    import pyarrow as pa

    content = read_items(files)
    check_items(files, content, read_provenance(files))
    return pa.BufferReader(content)


def digest_of_items(items: pa.Table, *, relevant: bool) -> str:
    """Return the digest of what items are: their ids and labels, without scores and ranks.

    Args:
        items: with the columns split, subset, id, gold and relevant.
        relevant: whether queries' relevant documents and their grades are part of it.
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
        # A null has no length: of a text, or a pair.
        for length in lists.value_lengths().fill_null(0).to_pylist():
            digest.update(json.dumps(sorted(graded[start : start + length])).encode())
            start += length
    return digest.hexdigest()


# Columns of the items' file that the data alone determines.
_OF_DATA = (
    *("split", "subset", "id", "gold"),
    *("relevant.list.element.id", "relevant.list.element.grade"),
)

_Parts = frozenset[tuple[str, str]]
"""Splits and subsets."""


def _items_of_data(
    content: bytes, result: Mapping[str, Any], known: dict[bytes, tuple[_Parts, str | None]]
) -> dict[str, str]:
    """Return the digest of an older result's items, as newer ones have it in their provenance.

    It is not known of items that cannot be read; of documents with summaries, which go by the model
    as well; of sub-queries, which were written in any order once; and of an aggregate, whose digest
    is that of its parts.

    Args:
        content: of the items' file.
        result: mteb's.
        known: parts and digests of items that were read before: most cells of a task have the same,
            whose columns are not read again.

    Returns:
        The condition; empty where it is not known.
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
    # A broken file, or one of another layout.
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
        return {}
    parts, digest = known[key]
    is_its_own = parts == {(split, entry["hf_subset"]) for split, entry in entries}
    return {ITEMS: digest} if digest is not None and is_its_own else {}


def _parts_and_digest(
    items: pa.Table, known: dict[bytes, tuple[_Parts, str | None]]
) -> tuple[_Parts, str | None]:
    """Return the splits and subsets of items, and their digest; None where the model has a part.

    The same items in another order have the digest of those that were read first.
    """
    import pyarrow as pa

    found = items.group_by(["split", "subset"]).aggregate([]).to_pydict()
    parts = frozenset(zip(found["split"], found["subset"], strict=True))
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
    """Return a digest of the columns that the data alone determines, as a file has them."""
    digest = hashlib.sha256(repr((metadata.num_rows, metadata.created_by)).encode())
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            if column.path_in_schema in _OF_DATA:
                start = column.dictionary_page_offset or column.data_page_offset
                digest.update(content[start : start + column.total_compressed_size])
    return digest.digest()


def _parquet(items: pa.Table) -> bytes:
    import io

    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(items, buffer)
    return buffer.getvalue()


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a result's file, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _set_aside(path: Path, content: bytes) -> Path | None:
    """Give a file that is no result another name, and return it; None: it has changed meanwhile.

    Args:
        path: of the file.
        content: that it was found to have.

    Raises:
        OSError: it cannot be renamed.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.broken-{moment}-{secrets.token_hex(2)}")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return None
    # A link that led to itself leads nowhere under another name.
    if _content(aside) in (content, None):
        return aside
    # Another process has put a new one there; unless yet another has come since, it goes back.
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


def _json_writer(content: Mapping[str, Any], indent: int | None = None) -> Callable[[Path], None]:
    text = json.dumps(content, indent=indent, ensure_ascii=False, default=str) + "\n"
    return lambda path: _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
