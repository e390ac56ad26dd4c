"""Carries out a request, for the command line and as `lcbench.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from lcbench.errors import LcbenchError, MissingError, RequestError

if TYPE_CHECKING:
    from lcbench.api.results import Results
    from lcbench.plan.layout import Grid
    from lcbench.plan.manifest import Manifest
    from lcbench.run.runner import RunOptions
    from lcbench.run.sweep import Outcome
    from lcbench.run.tracking import Tracking
    from lcbench.settings.schema import Settings
    from lcbench.system.observer import Observer
    from lcbench.system.signals import Stop

# A name, a path, or a path with a map of its columns.
Tasks = str | PathLike[str] | Mapping[str, Any]
# Keys of the command line only: where a run takes place.
_OF_COMMANDS = ("launch", "manifest", "element")


def carry_out(
    settings: Settings,
    observer: Observer,
    *,
    stop: Stop | None = None,
    frozen: Manifest | None = None,
    element: int | None = None,
    begun: Callable[[Manifest], None] | None = None,
    track: str | None = None,
) -> Outcome:
    """Run the unfinished cells of a request; see `sweep.run`.

    With `track`, scores and tables are also sent to an experiment tracker.
    """
    from lcbench.plan import elements
    from lcbench.plan.layout import grid_of
    from lcbench.results.folder import Results
    from lcbench.results.labels import add_labels
    from lcbench.run import sweep
    from lcbench.run.tracking import Tracking
    from lcbench.settings.frozen import freeze
    from lcbench.system.trackers import check_tracker

    if track is not None:
        check_tracker(track)
    results = Results(settings.results_dir)
    with observer.doing("looking for models and tasks"):
        grid = grid_of(settings, observer)
    if labels := labels_of(grid):
        add_labels(results.folder, labels)
    name = settings.label if element is None else f"{settings.label}-element-{element}"
    with Tracking(track, name, freeze(settings), observer) as tracking:
        outcome = sweep.run(
            sweep.Sweep(
                grid,
                results,
                register=partial(elements.freeze, settings, results.folder),
                frozen=frozen,
                element=element,
                begun=begun,
                done=partial(tracking.done, results=results),
            ),
            options_of(settings),
            observer,
            stop,
        )
        if track is not None:
            _track_tables(tracking, settings, outcome)
    return outcome


def _track_tables(tracking: Tracking, settings: Settings, outcome: Outcome) -> None:
    """Send the scores of a run, and their means as in Table 1, to its tracker."""
    from lcbench.api.frames import frame_of_tables, table1
    from lcbench.api.report import request_of_run
    from lcbench.reporting.select import select_run
    from lcbench.results.folder import Results

    if outcome.failed or outcome.refused:
        tracking.fail()
    request = request_of_run(settings, outcome.cells)
    selected = select_run(request, Results(settings.results_dir), None, lambda _: None)
    if selected is not None:
        tracking.table("scores", frame_of_tables(selected.tables))
        tracking.table("table1", table1(selected.tables).reset_index())


def options_of(settings: Settings) -> RunOptions:
    """Return the options of a request that change no score."""
    from lcbench.run.runner import RunOptions

    return RunOptions(
        engine=settings.engine,
        store=settings.store,
        mirror=settings.mirror,
        unverified_data=settings.unverified_data,
        hub=settings.hub,
        offline=settings.offline,
        retries=settings.retries,
        cell_minutes=settings.cell_minutes,
        leaves_out=settings.leave_out_unsuited,
    )


def labels_of(grid: Grid) -> dict[tuple[str, str], str]:
    """Return the labels that a request gives to models, by name and revision."""
    return {
        (one.name, one.revision): one.settings.label
        for one in grid.cells_of
        if one.settings.label is not None
    }


def evaluate(
    model: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    tasks: Tasks | Sequence[Tasks] | None = None,
    tau: Any = None,
    *,
    extend: Any = None,
    gain: Any = None,
    attend: Any = None,
    chunks: Any = None,
    correct: Any = None,
    limit: int | None = None,
    window: int | None = None,
    protocol: str | None = None,
    subsets: str | Sequence[str] | None = None,
    device: str | None = None,
    results_dir: str | PathLike[str] | None = None,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    config_dir: str | PathLike[str] | None = None,
    progress: bool | Observer = True,
    **keys: Any,
) -> Results:
    """Score a model under repairs, always together with its baseline (τ = 1).

    It does the same as `python -m lcbench model=… tau=…` and writes the same files. Finished cells
    are read from `results_dir`, so a second call computes only what is new, and an interrupted call
    can be resumed.

    Args:
        model: a config (`"minilm"`, the default), a name on the hub (`"BAAI/bge-m3"`), a folder of
            a model, or a list of these.
        tasks: names of mteb's tasks, of suites (`"docs"`, `"paper"`) or of mteb's benchmarks; by
            default the suite `docs`, which needs no network. Or texts of your own: files and
            folders (`"./letters.jsonl"`, `Path("letters")`), or a dict with a path and columns
            (`{"path": "a.csv", "query": "q", "text": "body"}`).
        tau: a temperature (by default 0.8), a policy as a dict (`{"query": 0.8, "document": 1.0}`),
            or a list of these. With another part of a repair by default 1.
        extend: a context extension (`{"pi": 4096}`, `{"yarn": 4096}`), None for none, or a list of
            these. Each value is combined with each value of the other parts.
        gain: factors of LayerNorms or feed-forward networks (`{"layernorm": 1.1}`, `{"ffn": 0.9}`),
            None for none, or a list of these.
        attend: a change of attention weights after the softmax (`{"attnscale": 0.2}`,
            `"calibrate"`), None for none, or a list of these.
        chunks: chunks in which documents are read (`"mean"`, `{"mean": 256}`, `{"late": 128}`,
            `{"max": 256}`), None for none, or a list of these.
        correct: a correction of the embeddings (`"centre"`, `{"abtt": 3}`, `{"whiten": 128}`), None
            for none, or a list of these.
        limit: number of queries, texts or pairs of each task that are scored, drawn at random, for
            a quick look. These results count as another dataset and are never mixed with those of
            whole tasks.
        window: maximum number of tokens that the model reads of a text; by default the model's own.
        protocol: `"paper"`, `"model"` (with the model's own prompts) or `"leaderboard"`.
        subsets: languages or subsets that tasks are restricted to.
        device: `"cpu"`, `"cuda"`, `"cuda:1"` …; by default a GPU if there is one.
        results_dir: folder of results; by default `results/runs`.
        mirror: folder that is searched for models and datasets first.
        offline: whether the network must not be used.
        config_dir: a folder of your own configs, as for `--config-dir`: with `model/mine.yaml` in
            it, `model="mine"` is a config.
        progress: whether to print progress; or an `lcbench.system.observer.Observer` that receives
            it.
        keys: any other key of `python -m lcbench` (`python -m lcbench --help` lists them), by its
            last part if that is unambiguous (`pooling="cls"` for `model.pooling=cls`), as a dict
            (`docs={"documents": 100}`), or by its full name in an unpacked dict
            (`**{"engine.scoring": 1}`).

    Returns:
        The scores, and the items that they are computed from, as data frames; a notebook shows them
        as a table. `.failed` lists cells that failed, with the reasons.

    Raises:
        RequestError: the request is invalid, or something that it needs is missing; the message is
            that of the command line. It is a `ValueError`.
        LcbenchError: no cell could be finished, or a disk is full.

    Examples:
        >>> results = lcbench.evaluate("minilm", "DocstringRetrieval", tau=[0.9, 0.8])
        >>> results.scores[["task", "tau", "score", "improvement"]]
        >>> results.by_length()
        >>> results.report()
    """
    from lcbench.api.compose import compose_settings, composed
    from lcbench.api.explain import prefetch_command
    from lcbench.api.keywords import words_of
    from lcbench.hub import cache
    from lcbench.settings.values import track_of
    from lcbench.system.observer import observer_of

    observer = observer_of(progress)
    if named := [key for key in keys if key.partition(".")[0] in _OF_COMMANDS]:
        raise RequestError(
            f"{', '.join(named)}: for commands, not for Python. `python -m lcbench` runs frozen "
            "sweeps, and on a cluster; lcbench.load(results_dir) reads their results."
        )
    several = isinstance(model, Sequence) and not isinstance(model, str)
    keywords = {
        "models" if several else "model": model,
        "tasks": tasks,
        "tau": tau,
        "extend": extend,
        "gain": gain,
        "attend": attend,
        "chunks": chunks,
        "correct": correct,
        "limit": limit,
        "window": window,
        "protocol": protocol,
        "subsets": subsets,
        "device": device,
        "results_dir": results_dir,
        "mirror": mirror,
        "offline": offline,
    }
    words = words_of("config", {**keywords, **keys})
    with composed("config", words, config_dir) as config:
        settings = compose_settings(config)
        track = track_of(config["track"])
    if settings.engine.devices is not None and not settings.engine.is_spread:
        raise RequestError(
            "engine.devices: for commands, not for Python; device=cuda uses all GPUs from one "
            "process."
        )
    with cache.kept():
        cache.guard_token()
        try:
            outcome = carry_out(settings, observer, track=track)
        except MissingError as error:
            error.command = prefetch_command(
                words, () if config_dir is None else [fspath(config_dir)], error.request
            )
            raise
    return _results_of(settings, outcome, observer)


def _results_of(settings: Settings, outcome: Outcome, observer: Observer) -> Results:
    """Return the results of a run, and warn of models and cells without results.

    Raises:
        LcbenchError: there are no results.
    """
    from lcbench.api.report import request_of_run
    from lcbench.api.results import Results
    from lcbench.reporting.select import select_run
    from lcbench.results.folder import Results as ResultFiles

    failed: Mapping[str, str] = {str(cell): reason for cell, reason in outcome.failed.items()}
    wrong = [f"{name} was refused: {reason}" for name, reason in outcome.refused.items()]
    wrong += [f"{cell} failed: {reason}" for cell, reason in failed.items()]
    request = request_of_run(settings, outcome.cells)
    selected = select_run(request, ResultFiles(settings.results_dir), None, observer.warn)
    if selected is None:
        raise (RequestError if outcome.refused else LcbenchError)("\n".join(wrong))
    for line in wrong:
        observer.warn(line)
    return Results(settings.results_dir, selected, failed)
