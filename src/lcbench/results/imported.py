"""Imports public mteb results as baselines into a results folder."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcbench import __version__
from lcbench.errors import RequestError, did_you_mean
from lcbench.repair.repair import NO_REPAIR
from lcbench.results.cell import Cell, Protocol
from lcbench.results.content import is_possible, lowest_score
from lcbench.results.folder import Finished, Results
from lcbench.tasks.registry import SPLITS_RULE, TaskEntry, registry, splits_of

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

Scores = Mapping[str, Sequence[Mapping[str, Any]]]
"""mteb's: the entries of each split, one a subset."""

_META = "model_meta.json"
_EXPERIMENTS = "experiments"
_LAYOUT = "results/<organisation>__<model>/<revision>/<Task>.json"

# Former main scores of types of tasks whose main score mteb has changed.
_FORMER_MAIN_SCORE = {"Reranking": "map"}

Outcome = Literal["taken", "known", "unused", "refused"]


@dataclass(frozen=True)
class ImportRequest:
    """The results to import, and their destination.

    Attributes:
        path: folder to import from.
        results_dir: results folder to import into.
        models: models to import, by their names on the hub; None: all.
        tasks: tasks to import; None: all.
        replace: whether changed files replace what was imported before.
    """

    path: Path
    results_dir: Path
    models: tuple[str, ...] | None
    tasks: tuple[str, ...] | None
    replace: bool


@dataclass(frozen=True)
class Imported:
    """The outcome of an import, as numbers of files.

    Attributes:
        folder: folder of the imported results, an `mteb.ResultCache`.
        taken: imported files.
        known: unchanged files that were imported before.
        unused: files without scores on the protocol's splits and subsets.
        refused: files that are unreadable, or differ from what was imported before.
        experiments: files of experiments, which are not baselines.
    """

    folder: Path
    taken: int
    known: int
    unused: int
    refused: int
    experiments: int


class _UnusableError(Exception):
    """A file that cannot be imported; the message says why."""


def import_results(
    request: ImportRequest,
    tell: Callable[[str], None],
    watch: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> Imported:
    """Import the results of a folder.

    Args:
        request: the results to import, and their destination.
        tell: receives each refused file with the reason.
        watch: iterates over the files, to show progress.

    Raises:
        RequestError: the path or a name is wrong, or there is nothing to import.
        StorageError: results cannot be written.
    """
    base = _base(request.path, request.results_dir)
    files, experiments = _find(base)
    files, experiments = _only(files, experiments, request)
    if not files:
        raise RequestError(_nothing(request.path, experiments))
    results = Results(request.results_dir)
    results.check_writable()
    from lcbench.system.quiet import quiet_libraries

    quiet_libraries()
    counts: Counter[Outcome] = Counter()
    for path in watch(files):
        try:
            counts[_import_file(path, base, results, request.replace)] += 1
        except _UnusableError as error:
            tell(f"{path.relative_to(base)}: {error}")
            counts["refused"] += 1
    return Imported(
        folder=request.results_dir / _protocol().key,
        taken=counts["taken"],
        known=counts["known"],
        unused=counts["unused"],
        refused=counts["refused"],
        experiments=len(experiments),
    )


def _protocol() -> Protocol:
    """Return the protocol of imported results, as far as it is known."""
    return Protocol(
        name="imported",
        prompts="unknown",
        dtype="unknown",
        splits=SPLITS_RULE,
        subsets=None,
        window=None,
        texts=None,
    )


def _base(path: Path, results_dir: Path) -> Path:
    """Return the path as given, made absolute; its last parts name model and revision.

    Raises:
        RequestError: it is not a folder of baselines that can be imported.
    """
    base = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would lose a link's own name
    if not base.exists():
        siblings = [one.name for one in base.parent.iterdir()] if base.parent.is_dir() else []
        near = did_you_mean(base.name, siblings)
        raise RequestError(f"path={path}: there is no such folder.{near}")
    if not base.is_dir():
        raise RequestError(f"path={path} is a file; give its folder.")
    if _EXPERIMENTS in (base.name, base.parent.name):
        raise RequestError(f"path={path} holds experiments, which are not baselines.")
    if base.resolve().is_relative_to(results_dir.resolve()):
        raise RequestError(
            f"path={path} is in results_dir={results_dir}: these already are lcbench's results. "
            "`python -m lcbench report` shows them."
        )
    return base


def _find(base: Path) -> tuple[list[Path], list[Path]]:
    """Return the result files in a repository, its `results`, a model's or a revision's folder.

    Returns:
        The files of baselines, and those of experiments.
    """
    if (base / "results").is_dir():
        base = base / "results"
    experiments = [path for path in base.glob(f"**/{_EXPERIMENTS}/*/*.json") if path.name != _META]
    for pattern in ("*/*/*.json", "*/*.json", "*.json"):
        files = [
            path
            for path in sorted(base.glob(pattern))
            if path.name != _META and _EXPERIMENTS not in path.relative_to(base).parts
        ]
        if files:
            return files, experiments
    return [], experiments


def _only(
    files: list[Path], experiments: list[Path], request: ImportRequest
) -> tuple[list[Path], list[Path]]:
    """Return the files of the requested models and tasks.

    Raises:
        RequestError: there are no results of a model or task.
    """
    if request.models is not None and files:
        there = {_model_of(path.parent) for path in files}
        for name in request.models:
            if name not in there:
                near = did_you_mean(name, there)
                raise RequestError(f"models={name}: {request.path} has no results of it.{near}")
        files = [path for path in files if _model_of(path.parent) in request.models]
        experiments = [path for path in experiments if _model_of(path.parents[2]) in request.models]
    if request.tasks is not None and files:
        files = [path for path in files if path.stem in request.tasks]
        experiments = [path for path in experiments if path.stem in request.tasks]
        if not files:
            asked = ",".join(request.tasks)
            raise RequestError(f"tasks={asked}: path={request.path} has no results of these.")
    return files, experiments


def _nothing(path: Path, experiments: Sequence[Path]) -> str:
    there = (
        f"there are only {len(experiments)} results of experiments, which are not baselines"
        if experiments
        else "there are no results in mteb's layout"
    )
    return (
        f"path={path}: {there}. Give a folder with {_LAYOUT}, its subfolder results, or the "
        "folder of one model or one revision."
    )


def _model_of(revision: Path) -> str:
    """Return the name of a revision's model, according to the layout."""
    return revision.parent.name.replace("__", "/")


def _import_file(path: Path, base: Path, results: Results, replaces: bool) -> Outcome:
    """Import one file.

    Raises:
        _UnusableError: it cannot be read, or differs from what was imported before.
    """
    digest = _digest(path)
    result = _read(path)
    entry = registry().tasks.get(result.task_name)
    if entry is None:
        raise _UnusableError(f"mteb has no task {result.task_name}")
    there = _parts(result.scores)
    for split, subsets in there.items():
        if twice := [subset for subset, times in Counter(subsets).items() if times > 1]:
            raise _UnusableError(f"its split {split} has {', '.join(twice)} twice")
    wanted = {split: _subsets(entry) for split in splits_of(entry, _protocol().splits, None)}
    asked = {
        split: [one for one in entries if one["hf_subset"] in wanted[split]]
        for split, entries in result.scores.items()
        if split in wanted
    }
    if not any(asked.values()):
        return "unused"
    scores = {split: _with_main_score(split, entries, entry) for split, entries in asked.items()}
    scores = {split: entries for split, entries in scores.items() if entries}
    if not scores:
        raise _UnusableError(f"it has no main score; mteb's is {entry.main_score}")
    cell = Cell(_model_of(path.parent), path.parent.name, NO_REPAIR, entry.name, _protocol())
    if results.files(cell).result.exists():
        source = results.provenance(cell).get("source")
        if isinstance(source, Mapping) and source.get("sha256") == digest:
            return "known"
        if not replaces:
            raise _UnusableError(
                "it differs from what was imported before, which is kept; replace=true takes it "
                "in its place"
            )
    meta = _registered(cell.model)
    record: dict[str, Any] = {
        "cell": str(cell),
        "imported": _origin(cell.revision, meta),
        "model": cell.model,
        "revision": cell.revision,
        "policy": cell.repair.canonical,
        "protocol": cell.protocol.record,
        "task_type": entry.kind,
        "window": None,
        "source": {"path": str(path.relative_to(base)), "sha256": digest},
        "metric": _metric(scores, entry),
        "metric_of_mteb": entry.main_score,
        "kept": _parts(scores),
        "left_out": _without(there, wanted),
        "missing": _without(wanted, _parts(scores)),
        "registry": _said_by_registry(meta, entry),
        "versions": {"mteb": result.mteb_version},
        "imported_by": {"lcbench": __version__},
    }
    kept = result.model_copy(update={"scores": scores})
    results.write(cell, Finished(kept.to_disk, _model_meta(path, cell), record, None))
    return "taken"


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise _UnusableError(f"it cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> TaskResult:
    from mteb.results import TaskResult

    try:
        with warnings.catch_warnings():
            # Warnings about a missing main score; the outcome is reported for the file.
            warnings.simplefilter("ignore")
            return TaskResult.from_disk(path)
    except Exception as error:
        # mteb converts old formats, and may raise any error for other content.
        reason = " ".join(str(error).split())[:200]
        raise _UnusableError(f"it cannot be read: {type(error).__name__}: {reason}") from error


def _subsets(entry: TaskEntry) -> list[str]:
    # The score of an aggregate has one name, whatever the subsets of its parts.
    return ["default"] if entry.parts else list(entry.subsets)


def _parts(scores: Scores) -> dict[str, list[str]]:
    return {split: [one["hf_subset"] for one in entries] for split, entries in scores.items()}


def _without(
    parts: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the splits and subsets that are missing from others."""
    rest = {
        split: [subset for subset in subsets if subset not in others.get(split, ())]
        for split, subsets in parts.items()
    }
    return {split: subsets for split, subsets in rest.items() if subsets}


def _with_main_score(
    split: str, entries: Sequence[Mapping[str, Any]], task: TaskEntry
) -> list[dict[str, Any]]:
    """Return the entries with a main score, or with what was the main score at the time.

    Raises:
        _UnusableError: one is not a possible value of its metric.
    """
    former = _FORMER_MAIN_SCORE.get(task.kind, task.main_score)
    lowest = lowest_score(task.main_score)
    complete = []
    for entry in entries:
        score = entry["main_score"]
        score = entry.get(former) if score is None else score
        if score is None:
            continue
        if not is_possible(score, lowest) or score != score:
            raise _UnusableError(
                f"its split {split}, subset {entry['hf_subset']}: main_score is "
                f"{_shortened(score)}, not a number from {lowest} to 1 ({task.main_score})"
            )
        complete.append({**entry, "main_score": score})
    return complete


def _metric(scores: Scores, task: TaskEntry) -> str | None:
    """Return the metric of the main scores, judged by their values; None if unknown."""
    entries = [entry for of_split in scores.values() for entry in of_split]
    names = [
        name
        for name in entries[0]
        if name != "main_score" and all(entry.get(name) == entry["main_score"] for entry in entries)
    ]
    return task.main_score if task.main_score in names else min(names, default=None)


def _registered(model: str) -> ModelMeta | None:
    from mteb.models.model_implementations import MODEL_REGISTRY

    return MODEL_REGISTRY.get(model)


def _origin(revision: str, meta: ModelMeta | None) -> str:
    """Return the kind of a revision; see `Results.read`."""
    if revision == "external":
        return "external"
    if revision == "no_revision_available":
        return "unnamed"
    return "pinned" if meta is not None and meta.revision == revision else "revision"


def _said_by_registry(meta: ModelMeta | None, task: TaskEntry) -> dict[str, Any] | None:
    """Return what mteb's registry states for the model, as a run of mteb would have used it."""
    if meta is None:
        return None
    prompts = meta.loader_kwargs.get("model_prompts") or {}
    # For the task, its type or all tasks, and for one role or both.
    owners, roles = (task.name, task.kind), ("query", "document")
    names = {*owners, *roles, *(f"{owner}-{role}" for owner in owners for role in roles)}
    return {
        "revision": meta.revision,
        "use_instructions": meta.use_instructions,
        "max_tokens": meta.max_tokens,
        "prompts": {str(key): text for key, text in prompts.items() if str(key) in names},
    }


def _model_meta(path: Path, cell: Cell) -> dict[str, Any]:
    """Return mteb's description of the model, based on the source's if there is one."""
    from mteb.models.model_meta import ModelMeta

    try:
        content = json.loads(path.with_name(_META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    empty = ModelMeta.create_empty().to_dict()
    own = content if isinstance(content, dict) else {}
    # Under another name mteb would not find the model.
    return {**empty, **own, "name": cell.model, "revision": cell.revision}


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:20]}…"
