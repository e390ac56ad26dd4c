"""Shares results: as a section of a model card, and as packs for mteb's results repository."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import NoResultsError, RequestError

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.settings.share import CardSettings, PackSettings, SharedResults

# Values of a protocol whose results are comparable with those of mteb's repository.
_OF_MTEB = {
    **{"prompts": "registry", "dtype": "float32", "window": None, "dimensions": None},
    **{"pooling": None, "special_tokens": None},
}


def card_asked(settings: CardSettings, warn: Callable[[str], None]) -> str:
    """Return the text of a model card with the results that are asked for, and write it on request.

    Args:
        settings: of the card; if its file exists, that is the card.
        warn: receives a line about each file that is left out.

    Raises:
        RequestError: there are no such results, or the card cannot be read.
        StorageError: the card cannot be written.
    """
    from lcbench.reporting.card import card_text, read_card, section_of
    from lcbench.reporting.findings import gather
    from lcbench.reporting.select import policies_named, select_folder
    from lcbench.results.folder import Results
    from lcbench.results.rows import IMPORTED_GROUP
    from lcbench.settings.sources import shipped_sources
    from lcbench.system.files import write_atomically

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
    text = card_text(section_of(found, scores, policies), existing)
    if settings.out is not None:
        write_atomically(settings.out, text)
    return text


@dataclass(frozen=True)
class Packed:
    """A pack of results that was written or checked.

    Attributes:
        folder: folder of the pack.
        files: number of files.
        cells: number of results that were packed; 0 for a pack that was checked.
        remarks: lines on what the results repository of mteb will not accept as it is.
        wrong: lines on files of a checked pack that are missing, changed or not listed.
    """

    folder: Path
    files: int
    cells: int = 0
    remarks: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def pack_asked(settings: PackSettings, warn: Callable[[str], None]) -> Packed:
    """Write a pack of results, or check one.

    Args:
        settings: of the pack.
        warn: receives a line about each file that is left out.

    Raises:
        RequestError: there are no such results, the folder to write exists, or that to check is no
            pack.
        StorageError: the folder cannot be written.
    """
    from lcbench.results.folder import Results
    from lcbench.results.pack import check_pack, placed, write_pack
    from lcbench.tasks.suites import column_of, shipped_suites

    if settings.checks:
        count, wrong = check_pack(settings.folder)
        return Packed(settings.folder, count, wrong=tuple(wrong))
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
    if settings.folder.absolute().is_relative_to(results.folder.absolute()):
        raise RequestError(
            f"out={settings.folder} is in results_dir={asked.results_dir}, whose reports would "
            "read the pack too; choose another folder."
        )
    write_pack(files, settings.folder)
    return Packed(settings.folder, len(files), len(cells), tuple(_remarks(scores, results.folder)))


def card(
    results_dir: str | PathLike[str] = "results/runs",
    *,
    models: str | Sequence[str] | None = None,
    repairs: Any = None,
    tasks: Any = None,
    out: str | PathLike[str] | None = None,
    config_dir: str | PathLike[str] | None = None,
    **keys: Any,
) -> str:
    """Return a model card with a model's results, with the hub's metadata for evaluation results.

    The same as `python -m lcbench card results_dir=… models=… repairs=…`. No model is loaded.

    Args:
        results_dir: folder of results.
        models: the model, by name; by default the only one with results.
        repairs: the repair that the card's model has: `0.9`, `"centre"`,
            `{"tau": 0.8, "correct": "centre"}`; 1: none. By default the best one tried.
        tasks: tasks of the card; by default all with a result.
        out: card to write. Of a card that exists, only this section and the metadata of these tasks
            are replaced.
        config_dir: a folder of your own configs, as for `--config-dir`.
        keys: any other key of `python -m lcbench card`: `resamples`, `seed`.

    Returns:
        The card, whether or not it was written.

    Raises:
        RequestError: there are no such results, or the existing card cannot be read.
        StorageError: the card cannot be written.

    Examples:
        >>> print(lcbench.card("results/runs", models="minilm", repairs=0.9))
    """
    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.settings.share import read_card
    from lcbench.system.observer import Observer

    own = {"results_dir": results_dir, "models": models, "repairs": repairs, "tasks": tasks}
    words = words_of("card", {**own, "out": out, **keys})
    with composed("card", words, config_dir) as config:
        return card_asked(read_card(config), Observer().warn)


def pack(
    out: str | PathLike[str] | None = None,
    results_dir: str | PathLike[str] = "results/runs",
    *,
    models: str | Sequence[str] | None = None,
    repairs: Any = None,
    tasks: Any = None,
    check: str | PathLike[str] | None = None,
    config_dir: str | PathLike[str] | None = None,
    **keys: Any,
) -> Packed:
    """Copy results into the layout of mteb's results repository with digests, or check a copy.

    The same as `python -m lcbench pack out=… results_dir=…` and `python -m lcbench pack check=…`.

    Args:
        out: folder to write; it must not exist yet.
        results_dir: folder of results.
        models: models to pack; by default all.
        repairs: repairs to pack besides the baseline; by default all.
        tasks: tasks to pack; by default all.
        check: a packed folder to check instead.
        config_dir: a folder of your own configs, as for `--config-dir`.
        keys: any other key of `python -m lcbench pack`: `protocols`.

    Returns:
        The pack, with lines on what mteb's results repository will not accept (`remarks`) or, for a
        check, on files that are missing, changed or not listed (`wrong`).

    Raises:
        RequestError: there are no such results, `out` exists, or `check` is not a pack.
        StorageError: `out` cannot be written.

    Examples:
        >>> lcbench.pack("my-pack").remarks
        >>> lcbench.pack(check="my-pack").wrong
    """
    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.settings.share import read_pack
    from lcbench.system.observer import Observer

    own = {"out": out, "results_dir": results_dir, "models": models, "repairs": repairs}
    words = words_of("pack", {**own, "tasks": tasks, "check": check, **keys})
    with composed("pack", words, config_dir) as config:
        return pack_asked(read_pack(config), Observer().warn)


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


def _remarks(scores: pd.DataFrame, folder: Path) -> list[str]:
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
    for model, of_model in scores.groupby("model"):
        keys = sorted({file.result.relative_to(folder).parts[0] for file in of_model["files"]})
        if len(keys) > 1:
            lines.append(
                f"results of one model under {len(keys)} protocols ({model}: {', '.join(keys)}): "
                "protocols= takes one"
            )
    return lines
