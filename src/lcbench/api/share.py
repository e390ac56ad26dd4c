"""Shares results: as a section of a model card, and as packs for mteb's results repository."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lcbench.errors import NoResultsError, RequestError

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.settings.share import CardSettings, PackSettings, SharedResults

# Values of a protocol whose results are comparable with those of mteb's repository.
_OF_MTEB = {"prompts": "registry", "dtype": "float32", "window": None, "dimensions": None}


def card_asked(settings: CardSettings, warn: Callable[[str], None]) -> str:
    """Return the text of a model card with the results that are asked for.

    Args:
        settings: of the card; if its file exists, that is the card.
        warn: receives a line about each file that is left out.

    Raises:
        RequestError: there are no such results, or the card cannot be read.
    """
    from lcbench.reporting.card import card_text, read_card, section_of
    from lcbench.reporting.findings import gather
    from lcbench.reporting.select import policies_named, select_folder
    from lcbench.results.folder import Results
    from lcbench.results.rows import IMPORTED_GROUP
    from lcbench.settings.sources import shipped_sources

    asked = settings.results
    existing = None if settings.out is None else read_card(settings.out)
    folder = Results(asked.results_dir)
    selected = select_folder(folder, asked.tasks, None, warn, asked.models, shipped_sources())
    tables = [table for table in selected.tables if table.group != IMPORTED_GROUP]
    scores = selected.scores[selected.scores["imported"].isna()]
    if not tables:
        raise NoResultsError(f"results_dir={asked.results_dir} has imported results only.")
    policies = policies_named(asked.repairs or (), scores)
    found = gather(tables, scores, settings.resamples, settings.seed, None)
    return card_text(section_of(found, scores, policies), existing)


@dataclass(frozen=True)
class Packed:
    """A pack that was written.

    Attributes:
        files: number of files.
        cells: number of results.
        remarks: lines on what the results repository of mteb will not accept as it is.
    """

    files: int
    cells: int
    remarks: tuple[str, ...]


def pack_asked(settings: PackSettings, warn: Callable[[str], None]) -> Packed:
    """Write a pack of results.

    Args:
        settings: of the pack.
        warn: receives a line about each file that is left out.

    Raises:
        RequestError: there are no such results, or the folder exists.
        StorageError: the folder cannot be written.
    """
    from lcbench.results.folder import Results
    from lcbench.results.pack import placed, write_pack
    from lcbench.tasks.suites import column_of, shipped_suites

    asked = settings.results
    results = Results(asked.results_dir)
    scores = results.read(partial(column_of, suites=shipped_suites()), warn)
    scores = _chosen(scores, asked, settings.protocols)
    whole = [
        own and protocol.get("limit") is None
        for own, protocol in zip(scores["imported"].isna(), scores["protocol"], strict=True)
    ]
    if not all(whole):
        warn("imported results and quick looks (limit=) are not packed.")
    scores = scores[whole]
    if scores.empty:
        raise NoResultsError(f"results_dir={asked.results_dir} has no results to pack.")
    cells = sorted(set(scores["files"]), key=lambda cell: cell.result)
    files = placed(results.folder, cells)
    write_pack(files, settings.folder)
    return Packed(len(files), len(cells), tuple(_remarks(scores)))


def _chosen(
    scores: pd.DataFrame, asked: SharedResults, protocols: tuple[str, ...] | None
) -> pd.DataFrame:
    """Return the scores of the models, repairs, tasks and protocols that are asked for.

    Raises:
        RequestError: there are none of one of these.
    """
    from lcbench.repair.repair import NO_REPAIR
    from lcbench.reporting.select import of_models, policies_named

    if asked.tasks is not None:
        scores = scores[scores["task"].isin([task.name for task in asked.tasks])]
    if protocols is not None:
        places: list[Any] = [
            cell.result.relative_to(asked.results_dir).parts[0] for cell in scores["files"]
        ]
        for name in protocols:
            if name not in places:
                there = ", ".join(dict.fromkeys(places))
                raise RequestError(f"protocols={name}: there are results under {there} only.")
        scores = scores[[place in protocols for place in places]]
    if not scores.empty:
        scores = of_models(scores, asked.models)
    if asked.repairs is not None and not scores.empty:
        named = policies_named(asked.repairs, scores)
        scores = scores[scores["policy"].isin([NO_REPAIR.canonical, *named])]
    return scores


def _remarks(scores: pd.DataFrame) -> list[str]:
    """Return what mteb's results repository will not accept as it is, a line each."""
    from lcbench.hub.cache import is_commit
    from lcbench.tasks.registry import registry

    lines = []
    known = registry().tasks
    if others := sorted({task for task in scores["task"] if task not in known}):
        lines.append(f"tasks that are not mteb's: {', '.join(others)}")
    local = {
        f"{model} ({revision})"
        for model, revision in zip(scores["model"], scores["revision"], strict=True)
        if not is_commit(str(revision))
    }
    if local:
        lines.append(f"models without a commit of the hub: {', '.join(sorted(local))}")
    differing = {
        key
        for protocol in scores["protocol"]
        for key, value in _OF_MTEB.items()
        if protocol.get(key) != value
    }
    if differing:
        lines.append(
            f"protocols whose {' and '.join(sorted(differing))} differ from mteb's: run with "
            "protocol=leaderboard"
        )
    return lines
