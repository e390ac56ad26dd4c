"""`lcbench.collapse`: whether a model's embeddings of long texts crowd together, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.api.collapses import Collapses
from lcbench.errors import InjectionError, LcbenchError, RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from omegaconf import DictConfig

    from lcbench.measures.collapse import Options
    from lcbench.plan.manifest import Manifest
    from lcbench.repair.repair import Repair
    from lcbench.settings.collapse import CollapseSettings
    from lcbench.system.observer import Observer
    from lcbench.system.signals import Stop

# Keys that may be given with a manifest, besides those of a sweep.
_WITH_MANIFEST = ("fail_if", "report_dir")


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
    options = settings.asked.embeddings
    if settings.embeddings is not None and settings.lengths is not None and options is not None:
        return _of_matrix(settings.embeddings, settings.lengths, options)
    from lcbench.api.compose import compose_settings, thawed
    from lcbench.api.evaluate import labels_of, options_of
    from lcbench.api.measured import others_of, read_all
    from lcbench.plan import measurements as measurements_of
    from lcbench.plan.layout import grid_of
    from lcbench.results.folder import Results
    from lcbench.results.labels import add_labels
    from lcbench.run.collapse import measure_all
    from lcbench.run.measuring import units_of
    from lcbench.run.sweep import check_same_cells

    frozen = frozen_of(settings)
    results_dir, asked = settings.results_dir, settings.asked
    if frozen is None:
        request = compose_settings(config, "collapse")
    else:
        results_dir, asked = frozen.results_dir, measurements_of.asked_of(frozen)
        request = thawed(frozen, config, "collapse", _WITH_MANIFEST)
    Results(results_dir).check_writable()
    with observer.doing("looking for models and tasks"):
        grid = grid_of(request, observer)
    units = units_of(grid, results_dir, asked, request.mirror)
    if frozen is not None:
        check_same_cells(frozen, measurements_of.lines_of(units, results_dir))
        element = settings.run.element
        if element is not None and element >= frozen.elements:
            raise RequestError(
                f"element={element}: the plan has elements 0 to {frozen.elements - 1}."
            )
        units = [
            unit
            for unit, line in zip(units, frozen.lines, strict=True)
            if element in (None, line.element)
        ]
    done = measure_all(grid, results_dir, asked, options_of(request), observer, units, stop)
    if labels := labels_of(grid):
        add_labels(results_dir, labels)
    paths = [unit.path for unit in done.done]
    found = read_all(results_dir, paths)
    return Collapses.of(found, others_of(results_dir, paths).but_for(found), done.failed)


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
    from lcbench.run.measuring import units_of

    request = compose_settings(config, "collapse")
    Results(settings.results_dir).check_writable()
    with observer.doing("looking for models and tasks"):
        grid = grid_of(request, observer)
    units = units_of(grid, settings.results_dir, settings.asked, request.mirror)
    return freeze_measurements(request, settings.asked, units, settings.run.launch)


def frozen_of(settings: CollapseSettings) -> Manifest | None:
    """Return the manifest that the settings name; None: there is none.

    Raises:
        RequestError: it cannot be read.
    """
    from lcbench.plan import manifest

    if settings.run.manifest is None:
        return None
    return manifest.read(manifest.find(settings.run.manifest, settings.results_dir))


def collapse(
    model: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    tasks: str | Sequence[str] | None = None,
    tau: Any = None,
    *,
    texts: Iterable[str] | None = None,
    results_dir: str | PathLike[str] | None = None,
    mirror: str | PathLike[str] | None = None,
    offline: bool | None = None,
    config_dir: str | PathLike[str] | None = None,
    progress: bool | Observer = True,
    **keys: Any,
) -> Collapses:
    """Measure whether a model's embeddings of long texts crowd together, and why.

    The same as `python -m lcbench collapse`, with the same files. With `texts`, they are measured
    at once and nothing is kept; a model of your own reads them with its prompt for documents.

    Args:
        model: a config (`"minilm"`, the default), a name on the hub, a folder of a model, or a list
            of these; with `texts` one of them, or a loaded `SentenceTransformer`.
        tasks: a task, or several, whose texts are measured; by default docstrings of installed
            libraries, which need no network.
        tau: temperatures that are compared with the baseline; by default 0.8.
        texts: your own texts, of many sentences each, instead of `tasks`.
        results_dir: where measurements are kept; by default `results/runs`.
        mirror: a folder in which models and datasets are looked for first.
        offline: whether the network may not be used.
        config_dir: a folder of your own configs, as for `--config-dir`.
        progress: as in `lcbench.evaluate`.
        keys: any other key of `python -m lcbench collapse`: `correct`, `repairs`, `measures`,
            `figures`, `bins` …

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
    if texts is not None:
        is_one = isinstance(texts, str) or not isinstance(texts, Iterable)
        texts = () if is_one else tuple(texts)
        if is_one or not all(isinstance(one, str) for one in texts):
            raise RequestError("texts= is not a list of texts.")
    if texts is not None and tasks is not None:
        raise RequestError("texts= and tasks=: give one of them.")
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
    if several and texts is not None:
        raise RequestError("texts= are measured with one model: call this once for each.")
    keywords = {
        "models" if several else "model": model,
        "tasks": tasks,
        "tau": tau,
        "results_dir": results_dir,
        "mirror": mirror,
        "offline": offline,
    }
    words = words_of("collapse", {**keywords, **keys})
    if loaded is not None:
        _refuse_model_keys(words)
    with cache.kept(), composed("collapse", words, config_dir) as config:
        cache.guard_token()
        settings = read_collapse(config)
        if texts is not None:
            found = _of_texts(config, settings, loaded, texts, observer)
        else:
            found = measure_asked(config, settings, observer)
    if found.failed and not found:
        raise LcbenchError("\n".join(f"{name}: {why}" for name, why in found.failed.items()))
    for name, reason in found.failed.items():
        observer.warn(f"{name} could not be measured: {reason}")
    return found


def _refuse_model_keys(words: Sequence[str]) -> None:
    """Refuse keys that say how a model is loaded, next to a loaded one.

    Raises:
        RequestError: naming the first.
    """
    for word in words:
        key = word.partition("=")[0]
        if key.partition(".")[0] in ("model", "models", "protocol"):
            raise RequestError(
                f"{word}: the model is loaded already. Name its folder instead, or set this on the "
                "model itself (max_seq_length, prompts)."
            )


def _of_texts(
    config: DictConfig,
    settings: CollapseSettings,
    loaded: Any,
    texts: Sequence[str],
    observer: Observer,
) -> Collapses:
    """Measure given texts, with a loaded model or the one that the config names."""
    from lcbench.api.compose import compose_settings
    from lcbench.encode.arithmetic import weights_dtype
    from lcbench.encode.load import load
    from lcbench.encode.prompts import describe_prompts, prompts_by_role
    from lcbench.hub.models import locate
    from lcbench.measures.figures import Material, make
    from lcbench.measures.files import InsideMeasurement, Measurement
    from lcbench.run.engines import devices_of_process
    from lcbench.run.measuring import check_repairs
    from lcbench.run.reader import EmbeddingsReader, InsideReader, reader_of, subject_of
    from lcbench.system.quiet import quiet_libraries
    from lcbench.tempscale.inject import refuse_injected
    from lcbench.tempscale.transformer import shape_of

    request, asked = compose_settings(config, "collapse"), settings.asked
    name, revision, prompts = "the model", "", "model"
    if loaded is not None:
        # Otherwise its temperature would be measured as the baseline.
        refuse_injected(loaded)
    else:
        quiet_libraries()
        located = locate(request.models[0], mirror=request.mirror, offline=request.offline)
        protocol = request.protocol.of(located.settings, has_prompts=located.has_prompts)
        name, revision, prompts = located.name, located.revision, protocol.prompts
        if prompts == "registry":
            raise RequestError(
                "protocol.prompts=registry: mteb's prompts are of tasks, and texts= are of none."
            )
        loaded = load(
            located,
            device=devices_of_process(request.engine)[0],
            dtype=weights_dtype(protocol.dtype),
        )
        if line := describe_prompts(prompts, name, loaded):
            observer.say(line, dim=True)
    own_prompts = prompts_by_role(loaded) if prompts == "model" else {}
    task = f"{len(texts):,} texts"
    repairs = [
        repair if repair.encoding.is_baseline else repair.resolve(shape_of(loaded))
        for repair in request.repairs
    ]
    check_repairs(repairs)
    encodings = list(dict.fromkeys(repair.encoding for repair in repairs))
    found, inside, figures = [], [], []
    failed: dict[str, str] = {}

    def identity(repair: Repair) -> dict[str, Any]:
        return {
            "model": name,
            "revision": revision,
            "policy": repair.canonical,
            "task": task,
            "window": reader.window,
            "protocol": "",
            "data": "",
        }

    with reader_of(loaded, name, observer, own_prompts) as reader:
        if asked.embeddings is not None:
            measuring = EmbeddingsReader(reader, texts, asked.embeddings)
            for repair in dict.fromkeys(repairs):
                measured, fitted = measuring.measure(repair)
                found.append(
                    Measurement(
                        **identity(repair),
                        record={} if fitted is None else {"correction": fitted},
                        options=asked.embeddings,
                        texts=measuring.prepared.digest,
                        collapse=measured,
                    )
                )
        material = Material(tuple(dict.fromkeys(texts)))
        for number in asked.figures:
            with observer.doing(f"Figure {number}"):
                subject = subject_of(reader, encodings, number)
                figures.append(
                    make(number, subject, material, asked.figure_options, model=name, task=task)
                )
        if asked.inside is not None:
            looking = InsideReader(reader, texts, asked.inside, observer)
            for repair in dict.fromkeys(one.of_model for one in repairs):
                try:
                    looked = looking.measure(repair)
                # Another repair may suit the model.
                except InjectionError as error:
                    failed[f"{name}, {repair}, inside"] = str(error)
                    continue
                inside.append(
                    InsideMeasurement(
                        **identity(repair), record={}, options=asked.inside, inside=looked
                    )
                )
    return Collapses(tuple(found), failed, figures=tuple(figures), inside=tuple(inside))


def _of_matrix(embeddings: Path, lengths: Path, options: Options) -> Collapses:
    """Measure a matrix of embeddings, of whose texts only the lengths are known."""
    from lcbench.measures.collapse import measure_matrix
    from lcbench.measures.files import Measurement

    rows, sizes = _array("embeddings", embeddings), _array("lengths", lengths)
    try:
        found = measure_matrix(rows, sizes, options)
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
                options=options,
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
