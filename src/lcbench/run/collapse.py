"""Measures length collapse of models under repairs, and makes figures of the paper.

A measurement is of a cell (model × repair × task), of which nothing is scored; a figure is of a
model and a task. Both are claimed and kept like cells: what exists is not made again, several
processes share the work, and texts in the store are not encoded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.encode import arithmetic
from lcbench.encode.store.shelf import Store
from lcbench.hub.models import LocatedModel
from lcbench.hub.windows import window_of
from lcbench.measures import figures, files
from lcbench.measures.figures import Material
from lcbench.plan.layout import Grid
from lcbench.plan.measurements import Unit
from lcbench.repair.repair import Repair
from lcbench.results import provenance
from lcbench.run import checks
from lcbench.run.claims import Claims
from lcbench.run.engines import devices_of_process, engine_of, load_for, prompts_of, proofs_of
from lcbench.run.figures import material_of
from lcbench.run.measuring import data_of, load_texts, reason_for
from lcbench.run.reader import EmbeddingsReader, InsideReader, Reader, Watch, subject_of
from lcbench.run.runner import RunOptions
from lcbench.system import hardware
from lcbench.system.files import check_writable
from lcbench.system.hardware import device_of
from lcbench.system.imports import import_libraries
from lcbench.system.observer import Observer
from lcbench.system.quiet import quiet_libraries
from lcbench.system.signals import Stop, Terminated
from lcbench.system.words import clock
from lcbench.tasks.source import searches

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.hub.judgments import Judgments
    from lcbench.measures.asked import Asked
    from lcbench.measures.collapse import Options
    from lcbench.measures.figures import Number
    from lcbench.measures.inside import InsideOptions

    Make = Callable[[Unit], files.Made]
    Maker = Callable[["_Loaded", "_Texts", Reader], Make]

# Between checks of measurements that other processes make.
_POLL_SECONDS = 1.0


@dataclass
class Measured:
    """Outcome of a request.

    Attributes:
        done: measurements and figures that exist now, in the order of the request.
        failed: those that could not be made, each with the reason.
    """

    done: list[Unit] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def measure_all(
    grid: Grid,
    results_dir: Path,
    asked: Asked,
    options: RunOptions,
    observer: Observer,
    units: Sequence[Unit],
    stop: Stop | None = None,
) -> Measured:
    """Make the measurements and figures that do not exist yet.

    Args:
        grid: models, repairs and tasks.
        results_dir: results folder.
        asked: what is measured.
        options: options of the run.
        observer: receives progress.
        units: measurements and figures of the grid (`units_of`).
        stop: signals when to end; None: only exceptions do.

    Raises:
        RequestError: a dataset is missing or unsuitable, or the folder cannot be written.
        StorageError: a disk is full; finished measurements are kept.
        Terminated: a signal asked for the end; finished measurements are kept.
    """
    done = Measured()
    left = [unit for unit in units if unit.read() is None]
    if left:
        results_dir.mkdir(parents=True, exist_ok=True)
        check_writable(results_dir)
        stop = Stop() if stop is None else stop
        with closing(_Measurer(grid, asked, options, observer, stop)) as measurer:
            done.failed = measurer.run(left)
    done.done = [unit for unit in units if unit.read() is not None]
    return done


@dataclass(frozen=True)
class _Loaded:
    """A loaded model, its engine, and the proofs of the repairs."""

    located: LocatedModel
    model: SentenceTransformer
    facts: provenance.ModelFacts
    engine: Engine
    proofs: Mapping[Repair, dict[str, Any] | None]


@dataclass(frozen=True)
class _Texts:
    """A task, its texts without empty ones, its judgments, and the material of figures."""

    name: str
    task: AbsTask
    texts: list[str]
    judgments: Judgments | None
    material: Material


class _Measurer:
    """Makes measurements, model by model and task by task."""

    def __init__(
        self, grid: Grid, asked: Asked, options: RunOptions, observer: Observer, stop: Stop
    ) -> None:
        self._grid = grid
        self._asked = asked
        self._options = options
        self._observer = observer
        self._stop = stop
        self._watch = Watch(observer)
        self._dtype = grid.cells[0].protocol.dtype
        self._store = Store(options.store.folder, options.store.max_bytes, observer.warn)
        self._claims = Claims()
        self._texts: dict[str, _Texts] = {}
        # The last model that was traced.
        self._copied: tuple[LocatedModel, SentenceTransformer] | None = None
        self._failed: dict[str, str] = {}

    def close(self) -> None:
        try:
            self._claims.close()
        finally:
            self._store.close()

    def run(self, left: Collection[Unit]) -> dict[str, str]:
        """Make units; return those that could not be made, each with the reason."""
        self._prepare(left)
        for model, cells in self._grid.cells_of.items():
            own = {(cell.model, cell.revision, cell.protocol) for cell in cells}
            mine = [
                unit
                for unit in left
                if (unit.cell.model, unit.cell.revision, unit.cell.protocol) in own
            ]
            if mine:
                self._measure_model(model, mine)
        return self._failed

    def _prepare(self, left: Collection[Unit]) -> None:
        """Fetch missing data, and import the libraries."""
        options, observer = self._options, self._observer
        parts = [self._grid.parts[name] for name in dict.fromkeys(unit.cell.task for unit in left)]
        checks.fetch_missing(parts, options.mirror, observer, offline=options.offline)
        with observer.doing("loading libraries"):
            quiet_libraries()
            arithmetic.pin(self._dtype, device_of(options.engine.device))
            import_libraries("mteb", "sentence_transformers")

    def _measure_model(self, model: LocatedModel, units: Sequence[Unit]) -> None:
        """Make the units of a model, task by task."""
        try:
            loaded = self._load(model, units)
        # Another model may be measured all the same.
        except Exception as error:
            self._failed |= dict.fromkeys(map(str, units), reason_for(error))
            return
        with closing(loaded.engine):
            for task in dict.fromkeys(unit.cell.task for unit in units):
                mine = [unit for unit in units if unit.cell.task == task]
                for group, maker in self._groups(mine):
                    with self._noting(group):
                        self._make_each(group, loaded, maker)

    def _groups(self, units: Sequence[Unit]) -> Iterator[tuple[list[Unit], Maker]]:
        """Yield units of a model and task that fail together, with their maker."""
        asked = self._asked
        if asked.embeddings is not None:
            maker = partial(self._embeddings_maker, asked.embeddings)
            yield [unit for unit in units if unit.kind == "embeddings"], maker
        if asked.inside is not None:
            yield (
                [unit for unit in units if unit.kind == "inside"],
                partial(self._inside_maker, asked.inside),
            )
        for unit in units:
            if unit.number is not None:
                yield [unit], partial(self._figure_maker, unit.number)

    def _load(self, model: LocatedModel, units: Sequence[Unit]) -> _Loaded:
        options, protocol = self._options, units[0].cell.protocol
        with self._observer.doing(f"loading {model.name}"):
            devices = devices_of_process(options.engine)
            repairs = [unit.cell.repair for unit in units]
            if any(unit.kind == "figure" for unit in units):
                repairs += [cell.repair for cell in self._grid.cells_of[model]]
            loaded, notes = load_for(
                model,
                options.engine,
                dtype=self._dtype,
                device=devices[0],
                observer=self._observer,
                prompts=protocol.prompts,
                repairs=repairs,
            )
            proofs = proofs_of(loaded, repairs)
            facts = provenance.model_facts(model, loaded)
        engine = engine_of(
            model,
            loaded,
            facts,
            options.engine,
            self._store,
            dtype=self._dtype,
            devices=devices,
            prompt_of=prompts_of(model, loaded, protocol.prompts, self._observer),
            on_progress=self._watch.on_progress,
            cores_left=hardware.cores,
            notes=notes,
        )
        return _Loaded(model, loaded, facts, engine, proofs)

    @contextmanager
    def _noting(self, units: Sequence[Unit]) -> Iterator[None]:
        """Note why units could not be made."""
        try:
            yield
        except Exception as error:
            reason = reason_for(error)
            missing = [str(unit) for unit in units if unit.read() is None]
            self._failed |= dict.fromkeys(missing, reason)

    def _make_each(
        self,
        units: Sequence[Unit],
        loaded: _Loaded,
        maker: Maker,
    ) -> None:
        """Make each unit whose file does not exist yet, while this process holds its claim.

        Args:
            units: units of one kind, model and task.
            loaded: the model.
            maker: prepares what they share, once one of them has to be made.
        """
        make: Make | None = None
        waiting = list(units)
        while waiting:
            later = []
            for unit in waiting:
                if unit.read() is not None:
                    continue
                if self._stop.is_asked:
                    raise Terminated("stopped by a signal")
                unit.path.parent.mkdir(parents=True, exist_ok=True)
                claim = self._claims.take(unit.path.parent, unit.path.stem, 0)
                if claim is None:
                    later.append(unit)
                    continue
                began = time.monotonic()
                try:
                    make = make or self._prepared(maker, loaded, unit.cell.task)
                    # A repair that does not suit a model is no obstacle to others.
                    with self._noting([unit]):
                        made = make(unit)
                        if self._claims.holds(claim):
                            files.write(unit.path, made)
                finally:
                    # Another process need not wait for the end of this one to try what failed.
                    self._claims.release(claim)
                if str(unit) in self._failed:
                    continue
                self._stop.progressed = True
                what = "made" if unit.kind == "figure" else "measured"
                self._observer.say(f"{unit}: {what} in {clock(time.monotonic() - began)}", dim=True)
            if len(later) == len(waiting):
                time.sleep(_POLL_SECONDS)
            waiting = later

    def _prepared(self, maker: Maker, loaded: _Loaded, task: str) -> Make:
        of_task = self._texts_of(loaded.located, task)
        return maker(loaded, of_task, self._reader(loaded, of_task))

    def _embeddings_maker(
        self, options: Options, loaded: _Loaded, of_task: _Texts, reader: Reader
    ) -> Make:
        with self._observer.doing(f"choosing texts of {of_task.name}"):
            measuring = EmbeddingsReader(
                reader,
                of_task.texts,
                options,
                of_task.judgments,
                "" if of_task.judgments else "it has no queries with relevant documents",
            )

        def make(unit: Unit) -> files.Measurement:
            began = time.monotonic()
            found, fitted = measuring.measure(unit.cell.repair)
            return files.Measurement(
                **self._identity(unit),
                window=window_of(loaded.model),
                options=options,
                texts=measuring.prepared.digest,
                collapse=found,
                record={
                    "prompt": reader.prompt,
                    "query_prompt": reader.query_prompt,
                    "texts": len(measuring.prepared.texts),
                    "seconds": time.monotonic() - began,
                    "arithmetic": loaded.engine.arithmetic(),
                    **({} if fitted is None else {"correction": fitted}),
                    **self._record(loaded, unit),
                },
            )

        return make

    def _inside_maker(
        self, options: InsideOptions, loaded: _Loaded, of_task: _Texts, reader: Reader
    ) -> Make:
        measuring = InsideReader(reader, of_task.texts, options, self._observer)

        def make(unit: Unit) -> files.InsideMeasurement:
            began = time.monotonic()
            found = measuring.measure(unit.cell.repair)
            return files.InsideMeasurement(
                **self._identity(unit),
                window=reader.window,
                options=options,
                inside=found,
                record={
                    "prompt": reader.prompt,
                    "seconds": time.monotonic() - began,
                    **self._record(loaded, unit),
                },
            )

        return make

    def _figure_maker(
        self, number: Number, loaded: _Loaded, of_task: _Texts, reader: Reader
    ) -> Make:
        cells, options = self._grid.cells_of[loaded.located], self._asked.figure_options
        repairs = list(
            dict.fromkeys(cell.repair.encoding for cell in cells if cell.task == of_task.name)
        )

        def make(unit: Unit) -> files.FigureMeasurement:
            began = time.monotonic()
            with self._observer.doing(str(unit)):
                figure = figures.make(
                    number,
                    subject_of(reader, repairs, number),
                    of_task.material,
                    options,
                    model=unit.cell.model,
                    task=unit.cell.task,
                )
            return files.FigureMeasurement(
                **self._identity(unit),
                window=reader.window,
                options=options,
                repairs=tuple(repair.canonical for repair in repairs),
                figure=figure,
                record={"seconds": time.monotonic() - began, **self._record(loaded, unit)},
            )

        return make

    def _reader(self, loaded: _Loaded, of_task: _Texts) -> Reader:
        from mteb.types import PromptType

        from lcbench.encode.encoder import Encoder

        metadata, engine = of_task.task.metadata, loaded.engine
        is_search = searches(metadata.type)

        def encoder_of(repair: Repair) -> Encoder:
            return Encoder(engine.at(repair), provenance.model_meta(loaded.facts, repair))

        return Reader(
            name=loaded.located.name.rpartition("/")[2],
            loaded=loaded.model,
            encoder_of=encoder_of,
            copy=lambda: self._copy(loaded.located, loaded.model),
            role="document" if is_search else None,
            prompt=engine.prompt_of(metadata, PromptType.document if is_search else None),
            query_prompt=engine.prompt_of(metadata, PromptType.query) if is_search else "",
            watch=self._watch,
        )

    def _identity(self, unit: Unit) -> dict[str, Any]:
        """Return the fields of `files.Identified` that a unit determines."""
        cell = unit.cell
        return {
            "model": cell.model,
            "revision": cell.revision,
            "policy": cell.repair.canonical,
            "task": cell.task,
            "protocol": cell.protocol.key,
            "data": data_of(cell, self._options.mirror),
        }

    def _record(self, loaded: _Loaded, unit: Unit) -> dict[str, Any]:
        """Return what the record of any kind of measurement has."""
        return {
            "protocol": unit.cell.protocol.record,
            "model_digest": loaded.facts.digest,
            "pooling": loaded.facts.pooling,
            "proof": loaded.proofs[unit.cell.repair.encoding],
            **provenance.environment(str(loaded.model.device)),
        }

    def _texts_of(self, model: LocatedModel, name: str) -> _Texts:
        from lcbench.hub.judgments import judgments_in

        options, part = self._options, self._grid.parts[name].at(model.shape.window)
        if name not in self._texts or part.source.depends_on_window(name):
            with self._observer.doing(f"loading the texts of {name}"):
                task, texts = load_texts(
                    part, options.mirror, unverified_data=options.unverified_data
                )
                judgments = judgments_in(task)
                whole = [text for text in texts if text.strip()]
                material = Material(())
                if self._asked.figures:
                    material = material_of(task, whole, part.splits)
                task.unload_data()
            if len(whole) < len(texts):
                self._observer.say(
                    f"{name}: {len(texts) - len(whole)} empty texts are left out", dim=True
                )
            self._texts[name] = _Texts(name, task, whole, judgments, material)
        return self._texts[name]

    def _copy(self, model: LocatedModel, loaded: SentenceTransformer) -> SentenceTransformer:
        """Return a copy of a model to trace, since the engine's own is under repairs."""
        from lcbench.encode.load import load

        if self._copied is None or self._copied[0] != model:
            dtype = arithmetic.weights_dtype(self._dtype)
            asked = self._options.engine.attention
            plain = asked if asked in ("eager", "sdpa") else None
            copy = load(model, device=str(loaded.device), dtype=dtype, attention=plain)
            self._copied = model, copy
        return self._copied[1]
