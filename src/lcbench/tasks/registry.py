"""The metadata of mteb's tasks and benchmarks, cached in a file so that mteb need not be imported.

mteb takes four seconds to import, too long for a wrong name, a finished sweep or a listing. The
file is made from mteb itself, once per version.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lcbench.system.imports import import_libraries
from lcbench.system.json_cache import JsonCache

# Raise it when the layout changes, so that older files are ignored.
_FORMAT = 3
# How a protocol chooses splits (`splits_of`). It is part of the keys of results.
SPLITS_RULE = "test"


@dataclass(frozen=True)
class Drawing:
    """The samples that mteb draws from a task's data before encoding it.

    Attributes:
        train_split: split that a classification or regression is trained on; None: it has no
            training split.
        draws: number of samples drawn from it, one per experiment.
        per_label: texts of each label in a sample; None: samples ignore labels.
        per_draw: texts in a sample that ignores labels.
        most: most texts of a split and subset that are scored; None: all.
        share: share of a split's texts that is scored; None: all.
    """

    train_split: str | None = None
    draws: int = 1
    per_label: int | None = None
    per_draw: int | None = None
    most: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class TaskEntry:
    """A task's metadata from mteb.

    Attributes:
        name: of the task.
        kind: type of the task: `STS`, `Retrieval` …
        dataset: name of the repository on the hub; empty for an aggregate.
        revision: commit that the task reads.
        config: configuration of the dataset that it reads, if it names one.
        main_score: metric that is its score.
        splits: splits that mteb evaluates.
        subsets: languages, `eng-Latn`, by subset; one subset `default` if it is not divided.
        divided: whether it has subsets (in mteb: is multilingual).
        merged: whether all subsets are read at once from the dataset's default configuration.
        loading: loader of its data: `plain` (mteb's base class), `retrieval` (mteb's loader of
            retrieval and reranking tasks), or `own` (the task's own code).
        modalities: kinds of data: `text`, `image` …
        public: whether its data is public.
        superseded_by: task that mteb recommends instead.
        parts: for an aggregate, the tasks that it is the mean of.
        drawing: samples that mteb draws of its data.
    """

    name: str
    kind: str
    dataset: str
    revision: str
    config: str | None
    main_score: str
    splits: tuple[str, ...]
    subsets: Mapping[str, tuple[str, ...]]
    divided: bool
    merged: bool
    loading: str
    modalities: tuple[str, ...]
    public: bool
    superseded_by: str | None
    parts: tuple[str, ...]
    drawing: Drawing


@dataclass(frozen=True)
class TaskChoice:
    """A requested task, possibly restricted to a part.

    Attributes:
        name: name of the task.
        subsets: requested subsets; None: as in the protocol.
        splits: requested splits; None: as in the protocol.
    """

    name: str
    subsets: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Registry:
    """mteb's tasks and benchmarks.

    Attributes:
        tasks: by name.
        benchmarks: tasks of each, with their subsets and splits, by name.
        aliases: other names of benchmarks.
        languages: three-letter codes by two-letter codes (ISO 639).
    """

    tasks: Mapping[str, TaskEntry]
    benchmarks: Mapping[str, tuple[TaskChoice, ...]]
    aliases: Mapping[str, str]
    languages: Mapping[str, str]

    def benchmark(self, name: str) -> tuple[TaskChoice, ...] | None:
        """Return the tasks of a benchmark, or None if there is none of that name."""
        return self.benchmarks.get(self.aliases.get(name, name))

    def reading(self, dataset: str) -> tuple[TaskEntry, ...]:
        """Return the tasks that read a dataset, at any revision."""
        return tuple(entry for entry in self.tasks.values() if entry.dataset == dataset)


@lru_cache(maxsize=1)
def registry() -> Registry:
    """Return the installed mteb's metadata; imports mteb only once after an upgrade."""
    cache = JsonCache(f"mteb-{version('mteb')}-{_FORMAT}.json")
    known = cache.read(_from_json)
    if known is None:
        known = _ask_mteb()
        cache.write(asdict(known))
    return known


def _from_json(content: Mapping[str, Any]) -> Registry:
    return Registry(
        tasks={name: _entry(entry) for name, entry in content["tasks"].items()},
        benchmarks={
            name: tuple(_choice(choice) for choice in choices)
            for name, choices in content["benchmarks"].items()
        },
        aliases=content["aliases"],
        languages=content["languages"],
    )


def _entry(content: Mapping[str, Any]) -> TaskEntry:
    lists = ("splits", "modalities", "parts")
    subsets = {name: tuple(languages) for name, languages in content["subsets"].items()}
    return TaskEntry(
        **{
            **content,
            **{key: tuple(content[key]) for key in lists},
            "subsets": subsets,
            "drawing": Drawing(**content["drawing"]),
        }
    )


def _choice(content: Mapping[str, Any]) -> TaskChoice:
    subsets, splits = content["subsets"], content["splits"]
    return TaskChoice(
        content["name"],
        None if subsets is None else tuple(subsets),
        None if splits is None else tuple(splits),
    )


def _ask_mteb() -> Registry:
    with warnings.catch_warnings():
        # A warning for every task that is in beta.
        warnings.simplefilter("ignore")
        import_libraries("mteb")
        import mteb
        from mteb.abstasks.aggregated_task import AbsTaskAggregate
        from mteb.get_tasks import TASK_LIST
        from mteb.languages import iso_mappings

        tasks = {}
        for kind in TASK_LIST:
            data: Any = kind.metadata
            aggregate = issubclass(kind, AbsTaskAggregate)
            tasks[data.name] = TaskEntry(
                name=data.name,
                kind=str(data.type),
                dataset="" if aggregate else str(data.dataset["path"]),
                revision="" if aggregate else str(data.revision),
                config=None if aggregate else _text_or_none(data.dataset.get("name")),
                main_score=data.main_score,
                splits=tuple(data.eval_splits),
                # Sorted, since an aggregate's are a set, whose order differs between processes.
                subsets={
                    subset: tuple(sorted(languages))
                    for subset, languages in data.hf_subsets_to_langscripts.items()
                },
                divided=data.is_multilingual,
                merged=bool(kind.fast_loading),
                loading=_loading(kind),
                modalities=tuple(sorted(data.modalities)),
                public=data.is_public is not False,
                superseded_by=data.superseded_by,
                parts=tuple(part.metadata.name for part in data.tasks) if aggregate else (),
                drawing=_drawing_of(kind),
            )
        found = mteb.get_benchmarks()
        benchmarks = {one.name: tuple(_choice_of(task) for task in one.tasks) for one in found}
        aliases = {alias: one.name for one in found for alias in one.aliases or ()}
        codes = Path(iso_mappings.__file__).with_name("iso_639_1_to_3.json")
        languages = json.loads(codes.read_text(encoding="utf-8"))
    return Registry(tasks, benchmarks, aliases, languages)


def _loading(kind: type) -> str:
    owner = next(base for base in kind.__mro__ if "load_data" in vars(base))
    # The reranking base class delegates to that of retrieval.
    known = {"AbsTask": "plain", "AbsTaskRetrieval": "retrieval", "AbsTaskReranking": "retrieval"}
    return known.get(owner.__name__, "own")


def _drawing_of(kind: Any) -> Drawing:
    """Return the samples that a task's class draws (`_evaluate_subset` of mteb's classes)."""
    from mteb.abstasks import (
        AbsTaskClassification,
        AbsTaskClustering,
        AbsTaskMultilabelClassification,
        AbsTaskRegression,
    )

    if issubclass(kind, AbsTaskClustering):
        share = "max_fraction_of_documents_to_embed"
        # Two tasks remove this limit while they load their data.
        taken_off = share in kind.dataset_transform.__code__.co_names
        return Drawing(
            most=kind.max_document_to_embed, share=None if taken_off else getattr(kind, share)
        )
    if not issubclass(kind, AbsTaskClassification) or kind.is_cross_validation:
        return Drawing()
    by_label = not issubclass(kind, AbsTaskRegression)
    cut = issubclass(kind, AbsTaskMultilabelClassification)
    return Drawing(
        train_split=kind.train_split,
        draws=kind.n_experiments,
        per_label=kind.samples_per_label if by_label else None,
        per_draw=None if by_label else kind.n_samples,
        most=kind.max_eval_samples if cut else None,
    )


def _choice_of(task: Any) -> TaskChoice:
    """Return a benchmark's choice of a task, with its subsets and splits if restricted."""
    subsets, splits = tuple(task.hf_subsets), tuple(task.eval_splits)
    every = tuple(task.metadata.hf_subsets)
    return TaskChoice(
        task.metadata.name,
        None if set(subsets) == set(every) else tuple(one for one in every if one in set(subsets)),
        None if set(splits) == set(task.metadata.eval_splits) else splits,
    )


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def splits_of(entry: TaskEntry, rule: str, chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Return the splits of a task that are scored.

    Args:
        entry: the task.
        rule: `test`: the test split if the task has one, else all that mteb evaluates.
        chosen: a benchmark's splits, which take precedence over the rule.
    """
    if chosen is not None:
        return tuple(chosen)
    if rule == "test" and "test" in entry.splits:
        return ("test",)
    return entry.splits


def subsets_of(
    subsets: Mapping[str, Sequence[str]], asked: Iterable[str], languages: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the requested subsets of a task, in mteb's order.

    The name of a subset (`en`, `en-en`) selects it. Any other name is a language (`en`, `eng`),
    which selects the subsets whose languages are all requested: `en` selects `en-en` but not
    `en-de`.

    Args:
        subsets: languages of each subset of the task.
        asked: requested names of subsets or languages.
        languages: `Registry.languages`.
    """
    names = set(asked) & set(subsets)
    codes = {languages.get(one, one) for one in asked if one not in names}
    return tuple(
        subset
        for subset, scripts in subsets.items()
        if subset in names or {script.partition("-")[0] for script in scripts} <= codes
    )
