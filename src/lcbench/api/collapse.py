"""`lcbench.collapse`: whether a model's embeddings of long texts crowd together, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import LcbenchError, RequestError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from omegaconf import DictConfig

    from lcbench.measures.figures import PaperFigure
    from lcbench.measures.files import InsideMeasurement, Measurement
    from lcbench.plan.manifest import Manifest
    from lcbench.results.cell import Cell
    from lcbench.settings.collapse import CollapseSettings
    from lcbench.system.observer import Observer
    from lcbench.system.signals import Stop

# Keys that may be given with a manifest, besides those of a sweep.
_WITH_MANIFEST = ("fail_if", "report_dir")


@dataclass(frozen=True, repr=False)
class Collapses:
    """Measurements of collapse, as the functions and the command return them.

    Attributes:
        measurements: of embeddings, one for each model, temperature and task, in the order of the
            request.
        inside: the same of what happens inside models.
        failed: what could not be measured or drawn, each with the reason.
        figures: of the paper, by number, for each model and task.
        notes: what whoever reads the numbers has to know.
        others: measurements of other models and temperatures that the results folder has of the
            same texts, with equal options; the command's report shows them as well.
    """

    measurements: tuple[Measurement, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    figures: tuple[PaperFigure, ...] = ()
    inside: tuple[InsideMeasurement, ...] = ()
    others: tuple[Measurement, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything was measured or drawn."""
        return bool(self.measurements or self.inside or self.figures)

    @property
    def collapses(self) -> bool:
        """Whether any of the measured models collapses."""
        from lcbench.reporting.collapse import answer_of

        return any(answer_of(one) == "yes" for one in self.measurements)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name, with exact values: `tables["collapse"]`, `tables["lengths"]` …"""
        import io

        import pandas as pd

        from lcbench.reporting.formats import csv
        from lcbench.reporting.tables.collapse import tables_of
        from lcbench.reporting.tables.inside import head_table, inside_tables

        tables = (
            *tables_of(self.measurements),
            *inside_tables(self.inside),
            *head_table(self.inside),
        )
        return {table.name: pd.read_csv(io.StringIO(csv(table))) for table in tables}

    @property
    def headlines(self) -> tuple[str, ...]:
        """Sentences on each measurement, the baseline of each model first, then on each figure."""
        from lcbench.reporting.collapse import headlines_of
        from lcbench.reporting.figures.paper import sentence_of
        from lcbench.reporting.tables.inside import inside_headlines

        return (
            *headlines_of(self.measurements),
            *inside_headlines(self.inside),
            *map(sentence_of, self.figures),
        )

    def report(self, folder: str | PathLike[str]) -> Path:
        """Write tables, figures and a page, and return the page.

        Raises:
            StorageError: the folder cannot be written.
        """
        from lcbench.reporting.collapse import PAGE, report

        report(self.measurements, Path(folder), self.figures, self.inside)
        return Path(folder) / PAGE

    def __repr__(self) -> str:
        return "\n".join(self.headlines) or "no measurements"


def measure_asked(
    config: DictConfig,
    settings: CollapseSettings,
    observer: Observer,
    stop: Stop | None = None,
) -> Collapses:
    """Make the measurements that a composed config of `collapse` asks for.

    Args:
        config: the config.
        settings: what was read of it.
        observer: receives progress.
        stop: signals when to end; None: only exceptions do.

    Raises:
        RequestError: the request is wrong, or needs data that is missing.
        StorageError: a disk is full; finished measurements are kept.
    """
    if settings.embeddings is not None and settings.lengths is not None:
        return _of_matrix(settings.embeddings, settings.lengths, settings)
    from lcbench.api.compose import compose_settings, thawed
    from lcbench.api.evaluate import labels_of, options_of
    from lcbench.measures import files
    from lcbench.measures.figures import FigureOptions
    from lcbench.plan import measurements as measurements_of
    from lcbench.plan.layout import grid_of
    from lcbench.results.folder import Results
    from lcbench.results.labels import add_labels, read_labels
    from lcbench.run.collapse import Asked, measure_all
    from lcbench.run.measuring import paths_of
    from lcbench.run.sweep import check_same_cells

    frozen = frozen_of(settings)
    results_dir, options = settings.results_dir, settings.options
    if frozen is None:
        asked = compose_settings(config, "collapse")
    else:
        results_dir, options = frozen.results_dir, measurements_of.options_of(frozen)
        asked = thawed(frozen, config, "collapse", _WITH_MANIFEST)
    Results(results_dir).check_writable()
    with observer.doing("looking for models and tasks"):
        grid = grid_of(asked, observer)
    cells: Sequence[Cell] = grid.cells
    if frozen is not None:
        paths = paths_of(cells, results_dir, options, asked.mirror)
        check_same_cells(frozen, measurements_of.lines_of(paths, results_dir))
        element = settings.run.element
        if element is not None and element >= frozen.elements:
            raise RequestError(
                f"element={element}: the plan has elements 0 to {frozen.elements - 1}."
            )
        cells = [
            cell
            for cell, line in zip(cells, frozen.lines, strict=True)
            if element in (None, line.element)
        ]
    done = measure_all(
        grid,
        results_dir,
        Asked(
            options if settings.measures_embeddings else None,
            settings.inside,
            settings.figures,
            FigureOptions(settings.figure_texts, options.resamples, options.seed),
        ),
        options_of(asked),
        observer,
        cells,
        stop,
    )
    if labels := labels_of(grid):
        add_labels(results_dir, labels)
    measurements = _read(results_dir, done.paths)
    return Collapses(
        measurements,
        done.failed | done.unmade,
        figures=tuple(done.figures),
        inside=tuple(
            files.labelled(inside, read_labels(results_dir))
            for path in done.inside
            if (inside := files.read_inside(path)) is not None
        ),
        others=_newest(_read(results_dir, files.of_same_texts(done.paths)), measurements),
    )


def plan_asked(config: DictConfig, settings: CollapseSettings, observer: Observer) -> Manifest:
    """Freeze the measurements that a composed config of `collapse` asks for into a manifest.

    Args:
        config: the config.
        settings: what was read of it.
        observer: receives progress.

    Raises:
        RequestError: the request is wrong, or needs data that is missing.
        StorageError: the manifest cannot be written.
    """
    from lcbench.api.compose import compose_settings
    from lcbench.plan.layout import grid_of
    from lcbench.plan.measurements import freeze_measurements
    from lcbench.results.folder import Results
    from lcbench.run.measuring import paths_of

    asked = compose_settings(config, "collapse")
    Results(settings.results_dir).check_writable()
    with observer.doing("looking for models and tasks"):
        grid = grid_of(asked, observer)
    paths = paths_of(grid.cells, settings.results_dir, settings.options, asked.mirror)
    return freeze_measurements(asked, settings.options, paths, settings.run.launch)


def frozen_of(settings: CollapseSettings) -> Manifest | None:
    """Return the manifest that the settings name; None: there is none.

    Raises:
        RequestError: it cannot be read.
    """
    from lcbench.plan import manifest

    if settings.run.manifest is None:
        return None
    return manifest.read(manifest.find(settings.run.manifest, settings.results_dir))


def comparable_in(results_dir: Path) -> tuple[tuple[Measurement, ...], int]:
    """Return the measurements of a folder that can be compared with the last one.

    These are the ones under the same protocol and with equal options, of any model, temperature
    and texts.

    Returns:
        The measurements, and how many others the folder has.
    """
    from lcbench.measures import files

    found = _read(results_dir, files.everything(results_dir))
    if not found:
        return (), 0
    last = found[0]
    alike = [one for one in found if (one.protocol, one.options) == (last.protocol, last.options)]
    newest = _newest(alike)
    return newest, len(found) - len(newest)


def finished_of(frozen: Manifest) -> tuple[Measurement, ...]:
    """Return the finished measurements of a manifest, then others of the same texts.

    Returns:
        None of a sweep of scores.

    Raises:
        RequestError: none is finished.
    """
    from lcbench.measures import files

    if not frozen.measures:
        return ()
    folder = frozen.results_dir
    paths = [folder / line.folder / f"{line.task}.json" for line in frozen.lines]
    found = _read(folder, paths)
    if not found:
        raise RequestError(
            f"manifest={frozen.folder}: none of its {len(paths)} measurements is finished."
        )
    return (*found, *_newest(_read(folder, files.of_same_texts(paths)), found))


def _read(results_dir: Path, paths: Sequence[Path]) -> tuple[Measurement, ...]:
    """Return the measurements in files, with the labels that the results folder has."""
    from lcbench.measures import files
    from lcbench.results.labels import read_labels

    labels = read_labels(results_dir)
    return tuple(
        files.labelled(found, labels) for path in paths if (found := files.read(path)) is not None
    )


def _newest(
    found: Sequence[Measurement], known: Sequence[Measurement] = ()
) -> tuple[Measurement, ...]:
    """Return the first of each model, temperature and task, but for those that are known."""

    def key(one: Measurement) -> tuple[str, ...]:
        return one.model, one.revision, one.policy, one.task

    there = set(map(key, known))
    kept: dict[tuple[str, ...], Measurement] = {}
    for one in found:
        kept.setdefault(key(one), one)
    return tuple(one for name, one in kept.items() if name not in there)


def collapse(
    model: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    tasks: str | Sequence[str] | None = None,
    tau: Any = None,
    *,
    texts: Sequence[str] | None = None,
    results_dir: str | PathLike[str] | None = None,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    progress: bool | Observer = True,
    **keys: Any,
) -> Collapses:
    """Measure whether a model's embeddings of long texts crowd together, and why.

    The same as `python -m lcbench collapse`, with the same files. With `texts`, they are measured
    at once and nothing is kept.

    Args:
        model: a config (`"minilm"`, the default), a name on the hub, a folder of a model, or a list
            of these; with `texts` also a loaded `SentenceTransformer`.
        tasks: a task, or several, whose texts are measured; by default docstrings of installed
            libraries, which need no network.
        tau: temperatures that are compared with the baseline; by default 0.8.
        texts: your own texts, of many sentences each.
        results_dir: where measurements are kept; by default `results/runs`.
        mirror: a folder in which models and datasets are looked for first.
        offline: whether the network may not be used.
        progress: as in `lcbench.evaluate`.
        keys: any other key of `python -m lcbench collapse`: `measures`, `figures`, `bins` …

    Returns:
        The measurements; printed, they say whether the model collapses.

    Raises:
        RequestError: what is asked for cannot be measured, or is not here.

    Examples:
        >>> lcbench.collapse("minilm")
        >>> lcbench.collapse(SentenceTransformer("…"), texts=my_texts).tables["collapse"]
        >>> lcbench.collapse("minilm", measures=["attention", "signal"]).tables["attention"]
        >>> lcbench.collapse("minilm", figures=["1c", "3"]).report("collapse-report")
    """
    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.hub import cache
    from lcbench.settings.collapse import read_collapse
    from lcbench.system.observer import observer_of

    observer = observer_of(progress)
    is_text = isinstance(texts, str) or not isinstance(texts, Iterable)
    if texts is not None and (is_text or not all(isinstance(one, str) for one in texts)):
        raise RequestError("texts= is not a list of texts.")
    loaded = None
    if model is not None and not isinstance(model, str | PathLike | Sequence):
        if texts is None:
            raise RequestError(
                "a loaded model is measured on texts=[…]; a task needs the model's name or folder"
            )
        if not hasattr(model, "encode"):
            raise RequestError(f"{type(model).__name__} is not a loaded SentenceTransformer.")
        loaded, model = model, None
    several = isinstance(model, Sequence) and not isinstance(model, str)
    keywords = {
        "models" if several else "model": model,
        "tasks": tasks,
        "tau": tau,
        "results_dir": results_dir,
        "mirror": mirror,
        "offline": offline,
    }
    words = words_of("collapse", {**keywords, **keys})
    with cache.kept(), composed("collapse", words) as config:
        cache.guard_token()
        settings = read_collapse(config)
        if texts is not None:
            return _of_texts(config, settings, loaded, texts, observer)
        found = measure_asked(config, settings, observer)
    if found.failed and not found:
        raise LcbenchError("\n".join(f"{name}: {why}" for name, why in found.failed.items()))
    for name, reason in found.failed.items():
        observer.warn(f"{name} could not be measured: {reason}")
    return found


def _of_texts(
    config: DictConfig,
    settings: CollapseSettings,
    loaded: Any,
    texts: Sequence[str],
    observer: Observer,
) -> Collapses:
    """Measure texts that are here, with a model that is loaded or that the config names."""
    from lcbench.api.compose import compose_settings
    from lcbench.encode.load import load
    from lcbench.hub.models import locate
    from lcbench.hub.windows import window_of
    from lcbench.measures.collapse import Embeddings, measure, prepare
    from lcbench.measures.figures import FigureOptions, Material, Subject, make
    from lcbench.measures.files import InsideMeasurement, Measurement
    from lcbench.measures.inside import choose
    from lcbench.measures.look import Traced, measure_inside
    from lcbench.run.figures import word_vectors
    from lcbench.run.measuring import WINDOW_WITHOUT_LIMIT, counter_of
    from lcbench.system.quiet import quiet_libraries
    from lcbench.tempscale.inject import Injection

    asked = compose_settings(config, "collapse")
    name, revision = "the model", ""
    if loaded is None:
        quiet_libraries()
        located = locate(asked.models[0], mirror=asked.mirror, offline=asked.offline)
        loaded = load(located, device="cpu", dtype="float32")
        name, revision = located.name, located.revision
    window = window_of(loaded) or WINDOW_WITHOUT_LIMIT
    room = window - loaded.tokenizer.num_special_tokens_to_add()
    task = f"{len(texts):,} texts"
    identity: dict[str, Any] = {
        "model": name,
        "revision": revision,
        "task": task,
        "window": window,
        "protocol": "",
        "data": "",
        "record": {},
    }
    found = []
    repairs = {str(repair): repair for repair in asked.repairs}

    def embed(repair: str, some: Sequence[str]) -> NDArray[np.float32]:
        # Texts are documents, which a policy by role knows.
        policy = repairs[repair].policy.for_role("document")
        with nullcontext() if policy.is_baseline else Injection(loaded, policy):
            embeddings: NDArray[np.float32] = loaded.encode(list(some), show_progress_bar=False)
        return embeddings

    if settings.measures_embeddings:
        prepared = prepare(texts, counter_of(loaded), room, settings.options)
    baseline: Embeddings | None = None
    for shown, repair in repairs.items() if settings.measures_embeddings else ():
        with observer.doing(f"encoding {len(prepared.texts):,} texts, {repair}"):
            embeddings = Embeddings(prepared, partial(embed, shown))
        baseline = baseline or embeddings
        compared = None if repair.is_baseline else baseline
        found.append(
            Measurement(
                **identity,
                policy=repair.canonical,
                options=settings.options,
                texts=prepared.digest,
                collapse=measure(prepared, embeddings, compared),
            )
        )
    inside = []
    if settings.inside is not None:
        chosen = choose(texts, counter_of(loaded), window, room, settings.inside)
        for shown, repair in repairs.items():
            with observer.doing(f"looking inside at {len(chosen.texts):,} texts, {shown}"):
                looked = measure_inside(
                    loaded, chosen, repair.policy, settings.inside, role="document"
                )
            inside.append(
                InsideMeasurement(
                    **identity,
                    policy=repair.canonical,
                    options=settings.inside,
                    inside=looked,
                )
            )
    subject = Subject(
        repairs=tuple(repairs),
        embed=embed,
        word_vectors=partial(word_vectors, loaded),
        count_tokens=counter_of(loaded),
        room=room,
        window=window,
        traced=Traced(
            loaded,
            {shown: repair.policy for shown, repair in repairs.items()},
            window,
            "document",
        ),
    )
    how = FigureOptions(settings.figure_texts, settings.options.resamples, settings.options.seed)
    material = Material(tuple(dict.fromkeys(texts)))
    with observer.doing("figures of the paper"):
        figures = tuple(
            make(number, subject, material, how, model=name, task=task)
            for number in settings.figures
        )
    return Collapses(tuple(found), figures=figures, inside=tuple(inside))


def _of_matrix(embeddings: Path, lengths: Path, settings: CollapseSettings) -> Collapses:
    """Measure a matrix of embeddings, which nothing is known of but the lengths of its texts."""
    from lcbench.measures.collapse import measure_matrix
    from lcbench.measures.files import Measurement

    rows, sizes = _array("embeddings", embeddings), _array("lengths", lengths)
    try:
        found = measure_matrix(rows, sizes, settings.options)
    except RequestError as error:
        raise RequestError(f"embeddings={embeddings} lengths={lengths}: {error}") from error
    return Collapses(
        (
            Measurement(
                model=embeddings.stem,
                revision="",
                policy="",
                task=f"{len(rows):,} texts",
                protocol="",
                data="",
                window=None,
                options=settings.options,
                texts="",
                collapse=found,
                record={},
            ),
        ),
        notes=(
            "of a matrix nothing is known of the texts' sentences: averaging is that of "
            "independent parts, so that a collapse can be seen but not excluded",
        ),
    )


def _array(key: str, path: Path) -> NDArray[Any]:
    """Return the array in a file.

    Raises:
        RequestError: there is none, or it holds objects, which may run code.
    """
    import numpy as np

    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{key}={path} cannot be read ({error}): write it with numpy.save, as numbers"
        ) from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise RequestError(
            f"{key}={path} holds no single array of numbers: write it with numpy.save"
        )
    return found
