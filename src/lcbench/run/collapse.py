"""Measures length collapse of models under repairs: a measurement for each cell of a grid.

A cell is a model × repair × task, of which the texts are measured and nothing is scored. A
measurement is claimed and kept like a cell: one that is there is not made again, several processes
share the work, and a text that the store has is not encoded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.encode import arithmetic
from lcbench.encode.store.shelf import Store
from lcbench.errors import RequestError
from lcbench.hub.models import LocatedModel
from lcbench.hub.windows import window_of
from lcbench.measures import files
from lcbench.measures.collapse import Embeddings, Options, measure, prepare
from lcbench.measures.figures import (
    INNER,
    FigureOptions,
    Material,
    Number,
    PaperFigure,
    Subject,
    make,
)
from lcbench.measures.inside import InsideOptions, choose
from lcbench.plan.layout import Grid
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.results import provenance
from lcbench.results.cell import Cell
from lcbench.run import checks
from lcbench.run.claims import Claim, Claims
from lcbench.run.engines import engine_of, load_for, prompts_of, proofs_of
from lcbench.run.figures import check_figures, fits, material_of, word_vectors
from lcbench.run.measuring import (
    WINDOW_WITHOUT_LIMIT,
    counter_of,
    data_of,
    paths_of,
    prompt_of,
    reason_for,
    record_of,
    room_of,
)
from lcbench.run.runner import RunOptions
from lcbench.score.cell import has_queries
from lcbench.system import hardware
from lcbench.system.files import check_writable
from lcbench.system.hardware import device_of, devices_of
from lcbench.system.imports import import_libraries
from lcbench.system.observer import Observer
from lcbench.system.quiet import quiet_libraries
from lcbench.system.signals import Stop, Terminated
from lcbench.system.words import clock

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.hub.judgments import Judgments
    from lcbench.tempscale.policy import Role

# Between looks at measurements that other processes make.
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Asked:
    """What is asked of each model, repair and task.

    Attributes:
        embeddings: whether embeddings crowd together; None: not asked.
        inside: what happens inside the model; None: not asked.
        figures: numbers of the paper's figures, of each model and task that they can be made of.
        figure_options: how figures are made.
    """

    embeddings: Options | None
    inside: InsideOptions | None
    figures: tuple[Number, ...]
    figure_options: FigureOptions


@dataclass
class Measured:
    """What came of a request.

    Attributes:
        paths: files of all measurements that are there now, in the order of the grid.
        inside: the same of measurements inside models.
        failed: what could not be measured, each with the reason.
        figures: of the paper, by model and task.
        unmade: figures that could not be made, each with the reason.
    """

    paths: list[Path] = field(default_factory=list)
    inside: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    figures: list[PaperFigure] = field(default_factory=list)
    unmade: dict[str, str] = field(default_factory=dict)


def measure_all(
    grid: Grid,
    results_dir: Path,
    asked: Asked,
    options: RunOptions,
    observer: Observer,
    cells: Collection[Cell] | None = None,
    stop: Stop | None = None,
) -> Measured:
    """Make the measurements of a grid that are not there yet, and figures of the paper.

    Args:
        grid: models, repairs and tasks.
        results_dir: results folder.
        asked: what is measured, and which figures.
        options: how, as for a run.
        observer: receives progress.
        cells: those of the grid that are measured; None: all.
        stop: signals when to end; None: only exceptions do.

    Raises:
        RequestError: a dataset is missing or unsuitable, a figure can be made of none of the tasks,
            or the folder cannot be written.
        StorageError: a disk is full; finished measurements are kept.
        Terminated: a signal asked for the end; finished measurements are kept.
    """
    check_figures(grid, asked.figures)
    cells = grid.cells if cells is None else [cell for cell in grid.cells if cell in cells]
    paths, inside_paths = (
        {} if of is None else paths_of(cells, results_dir, of, options.mirror)
        for of in (asked.embeddings, asked.inside)
    )
    left = {cell for cell, path in paths.items() if files.read(path) is None}
    left |= {cell for cell, path in inside_paths.items() if files.read_inside(path) is None}
    done = Measured()
    # A figure is of all temperatures, and its embeddings are kept in the store alone.
    todo = [cell for cell in cells if asked.figures or cell in left]
    if todo:
        results_dir.mkdir(parents=True, exist_ok=True)
        check_writable(results_dir)
        measurer = _Measurer(
            grid, paths, inside_paths, asked, options, observer, Stop() if stop is None else stop
        )
        with closing(measurer):
            done = measurer.run(todo)
    done.paths = [path for path in paths.values() if files.read(path) is not None]
    done.inside = [path for path in inside_paths.values() if files.read_inside(path) is not None]
    return done


class _Measurer:
    """Makes measurements, model by model and task by task."""

    def __init__(
        self,
        grid: Grid,
        paths: Mapping[Cell, Path],
        inside_paths: Mapping[Cell, Path],
        asked: Asked,
        options: RunOptions,
        observer: Observer,
        stop: Stop,
    ) -> None:
        self._grid = grid
        self._stop = stop
        self._material: dict[str, Material] = {}
        self._paths = paths
        self._inside_paths = inside_paths
        self._asked = asked
        self._options = options
        self._observer = observer
        self._dtype = grid.cells[0].protocol.dtype
        self._store = Store(options.store.folder, options.store.max_bytes, observer.warn)
        self._claims = Claims()
        # Of each task, read once.
        self._texts: dict[str, tuple[AbsTask, list[str], Judgments | None]] = {}
        # The last model that was looked into.
        self._copied: tuple[LocatedModel, SentenceTransformer] | None = None
        self._encoded = 0
        self._done = Measured()

    def close(self) -> None:
        try:
            self._claims.close()
        finally:
            self._store.close()

    def run(self, left: Sequence[Cell]) -> Measured:
        self._prepare(left)
        for model, cells in self._grid.cells_of.items():
            mine = [cell for cell in cells if cell in left]
            if mine:
                self._measure_model(model, mine)
        return self._done

    def _prepare(self, left: Sequence[Cell]) -> None:
        """Find the texts of all tasks, and fetch what is missing."""
        options, observer = self._options, self._observer
        names = list(dict.fromkeys(cell.task for cell in left))
        parts = [self._grid.parts[name] for name in names]
        checks.fetch_missing(parts, options.mirror, observer, offline=options.offline)
        with observer.doing("loading libraries and texts"):
            quiet_libraries()
            arithmetic.pin(self._dtype, device_of(options.engine.device))
            import_libraries("mteb", "sentence_transformers")

    def _measure_model(self, model: LocatedModel, cells: Sequence[Cell]) -> None:
        """Measure a model's cells, those of one task after another."""
        try:
            with self._observer.doing(f"loading {model.name}"):
                devices = devices_of(self._options.engine.device)
                loaded, notes = load_for(
                    model,
                    self._options.engine,
                    dtype=self._dtype,
                    device=devices[0],
                    observer=self._observer,
                )
                proofs = proofs_of(loaded, [cell.repair for cell in cells])
                facts = provenance.model_facts(model, loaded)
            prompt_of_task = prompts_of(model, loaded, cells[0].protocol.prompts, self._observer)
            engine = engine_of(
                model,
                loaded,
                facts,
                self._options.engine,
                self._store,
                dtype=self._dtype,
                devices=devices,
                prompt_of=prompt_of_task,
                on_progress=self._on_progress,
                cores_left=hardware.cores,
                notes=notes,
            )
        # Another model may be measured all the same.
        except Exception as error:
            self._done.failed |= dict.fromkeys(map(str, cells), reason_for(error))
            return
        with closing(engine):
            for task in dict.fromkeys(cell.task for cell in cells):
                mine = [cell for cell in cells if cell.task == task]
                if self._asked.embeddings is not None:
                    with self._noting(mine, self._paths, files.read):
                        self._measure_task(model, loaded, facts, engine, proofs, mine)
                if self._asked.inside is not None:
                    with self._noting(mine, self._inside_paths, files.read_inside, "inside"):
                        self._look_inside(model, loaded, facts, engine, proofs, mine)
                for number in self._asked.figures:
                    if fits(number, self._grid.parts[task].source.kind(task)):
                        self._make_figure(number, model, loaded, facts, engine, mine)

    @contextmanager
    def _noting(
        self,
        cells: Sequence[Cell],
        paths: Mapping[Cell, Path],
        read: Callable[[Path], object],
        what: str = "",
    ) -> Iterator[None]:
        """Note why cells could not be measured."""
        try:
            yield
        except Exception as error:
            reason = reason_for(error)
            missing = [cell for cell in cells if read(paths[cell]) is None]
            names = [f"{cell}, {what}" if what else str(cell) for cell in missing]
            self._done.failed |= dict.fromkeys(names, reason)

    def _make_each(
        self,
        cells: Sequence[Cell],
        paths: Mapping[Cell, Path],
        read: Callable[[Path], object],
        make: Callable[[Cell, Path, Claim], None],
    ) -> None:
        """Make each cell's file that is not there yet, while this process has its claim."""
        waiting = list(cells)
        while waiting:
            later = []
            for cell in waiting:
                path = paths[cell]
                if read(path) is not None:
                    continue
                if self._stop.is_asked:
                    raise Terminated("stopped by a signal")
                path.parent.mkdir(parents=True, exist_ok=True)
                claim = self._claims.take(path.parent, path.stem, 0)
                if claim is None:
                    later.append(cell)
                    continue
                began = time.monotonic()
                try:
                    make(cell, path, claim)
                finally:
                    # Another process need not wait for the end of this one to try what failed.
                    self._claims.release(claim)
                self._stop.progressed = True
                self._observer.say(
                    f"{cell.model.rpartition('/')[2]}, {cell.repair}, {cell.task}: measured in "
                    f"{clock(time.monotonic() - began)}",
                    dim=True,
                )
            if len(later) == len(waiting):
                time.sleep(_POLL_SECONDS)
            waiting = later

    def _measure_task(
        self,
        model: LocatedModel,
        loaded: SentenceTransformer,
        facts: provenance.ModelFacts,
        engine: Engine,
        proofs: Mapping[Repair, dict[str, Any] | None],
        cells: Sequence[Cell],
    ) -> None:
        from mteb.types import PromptType

        asked = self._asked.embeddings
        if asked is None or all(files.read(self._paths[cell]) is not None for cell in cells):
            return
        task, texts, judgments = self._texts_of(model, cells[0].task)
        role: Role | None = "document" if has_queries(task.metadata.type) else None
        prompt = prompt_of(engine, task)
        query_prompt = engine.prompt_of(task.metadata, PromptType.query) if judgments else ""
        with self._observer.doing(f"choosing texts of {cells[0].task}"):
            prepared = prepare(
                texts,
                counter_of(loaded),
                room_of(engine, loaded, prompt, role),
                asked,
                judgments,
                "" if judgments else "it has no queries with relevant documents",
            )
        baseline: Embeddings | None = None

        def embed(repair: Repair) -> Embeddings:
            from lcbench.encode.encoder import Encoder

            encoder = Encoder(engine.at(repair), provenance.model_meta(facts, repair))
            what = f"{model.name.rpartition('/')[2]}, {repair}"
            queries = 0 if prepared.search is None else len(prepared.search.queries)
            with self._encoding(what, len(prepared.texts) + queries):
                return Embeddings(
                    prepared,
                    lambda texts: encoder.embed(list(texts), role, prompt),
                    lambda texts: encoder.embed(list(texts), "query", query_prompt),
                )

        def make_one(cell: Cell, path: Path, claim: Claim) -> None:
            nonlocal baseline
            began = time.monotonic()
            if baseline is None:
                baseline = embed(NO_REPAIR)
            is_baseline = cell.repair.is_baseline
            embeddings = baseline if is_baseline else embed(cell.repair)
            with self._observer.doing("comparing"):
                found = measure(prepared, embeddings, None if is_baseline else baseline)
            if self._claims.holds(claim):
                files.write(
                    path,
                    files.Measurement(
                        **self._identity(cell),
                        window=window_of(loaded),
                        options=asked,
                        texts=prepared.digest,
                        collapse=found,
                        record={
                            "prompt": prompt,
                            "query_prompt": query_prompt,
                            "texts": len(prepared.texts),
                            "seconds": time.monotonic() - began,
                            "arithmetic": engine.arithmetic(),
                            **record_of(cell, facts, loaded, proofs),
                        },
                    ),
                )

        self._make_each(cells, self._paths, files.read, make_one)

    def _look_inside(
        self,
        model: LocatedModel,
        loaded: SentenceTransformer,
        facts: provenance.ModelFacts,
        engine: Engine,
        proofs: Mapping[Repair, dict[str, Any] | None],
        cells: Sequence[Cell],
    ) -> None:
        """Measure what happens inside a model, one text at a time."""
        from lcbench.measures.look import measure_inside
        from lcbench.measures.trace import memory_needed

        asked, paths = self._asked.inside, self._inside_paths
        if asked is None or all(files.read_inside(paths[cell]) is not None for cell in cells):
            return
        task, texts, _ = self._texts_of(model, cells[0].task)
        role: Role | None = "document" if has_queries(task.metadata.type) else None
        prompt = prompt_of(engine, task)
        window = window_of(loaded) or WINDOW_WITHOUT_LIMIT
        room = room_of(engine, loaded, prompt, role)
        chosen = choose(texts, counter_of(loaded), window, room, asked)
        traced = self._copy(model, loaded)
        needed = memory_needed(traced, chosen.lengths[-1])
        self._observer.say(
            f"attention of texts of {chosen.lengths[-1]:,} tokens takes up to {needed:.2f} GiB, "
            "besides the model",
            dim=True,
        )

        def make_one(cell: Cell, path: Path, claim: Claim) -> None:
            began = time.monotonic()
            what = f"inside {model.name.rpartition('/')[2]}, {cell.repair}"
            with self._looking(what, len(chosen.texts) * len(chosen.lengths)) as on_text:
                found = measure_inside(
                    traced,
                    chosen,
                    cell.repair.policy,
                    asked,
                    role=role,
                    prompt=prompt,
                    on_text=on_text,
                )
            if self._claims.holds(claim):
                files.write(
                    path,
                    files.InsideMeasurement(
                        **self._identity(cell),
                        window=window,
                        options=asked,
                        inside=found,
                        record={
                            "prompt": prompt,
                            "seconds": time.monotonic() - began,
                            **record_of(cell, facts, loaded, proofs),
                        },
                    ),
                )

        self._make_each(cells, paths, files.read_inside, make_one)

    def _identity(self, cell: Cell) -> dict[str, Any]:
        """Return what a cell's measurement is of, by the names of `files.Identified`."""
        return {
            "model": cell.model,
            "revision": cell.revision,
            "policy": cell.repair.canonical,
            "task": cell.task,
            "protocol": cell.protocol.key,
            "data": data_of(cell, self._options.mirror),
        }

    def _make_figure(
        self,
        number: Number,
        model: LocatedModel,
        loaded: SentenceTransformer,
        facts: provenance.ModelFacts,
        engine: Engine,
        cells: Sequence[Cell],
    ) -> None:
        """Make a figure of the paper of a model and a task, at all temperatures."""
        from mteb.types import PromptType

        from lcbench.encode.encoder import Encoder
        from lcbench.measures.look import Traced

        name, short = cells[0].task, model.name.rpartition("/")[2]
        repairs = {str(one): one for one in (NO_REPAIR, *(cell.repair for cell in cells))}
        try:
            task, *_ = self._texts_of(model, name)
            role: Role | None = "document" if has_queries(task.metadata.type) else None
            prompt = prompt_of(engine, task)

            def embedded(repair: str, texts: Sequence[str], role: Role | None, prompt: str) -> Any:
                one = repairs[repair]
                meta = provenance.model_meta(facts, one)
                encoder = Encoder(engine.at(one), meta)
                with self._encoding(f"Figure {number}, {short}, {repair}", len(texts)):
                    return encoder.embed(list(texts), role, prompt)

            def embed(repair: str, texts: Sequence[str]) -> Any:
                return embedded(repair, texts, role, prompt)

            def embed_queries(repair: str, texts: Sequence[str]) -> Any:
                asking = engine.prompt_of(task.metadata, PromptType.query)
                return embedded(repair, texts, "query", asking)

            subject = Subject(
                repairs=tuple(repairs),
                embed=embed,
                word_vectors=lambda texts: word_vectors(loaded, texts),
                count_tokens=counter_of(loaded),
                room=room_of(engine, loaded, prompt, role),
                window=window_of(loaded) or WINDOW_WITHOUT_LIMIT,
                embed_queries=embed_queries,
                traced=None
                if number not in INNER
                else Traced(
                    self._copy(model, loaded),
                    {shown: repair.policy for shown, repair in repairs.items()},
                    window_of(loaded) or WINDOW_WITHOUT_LIMIT,
                    role,
                    prompt,
                ),
            )
            with self._observer.doing(f"Figure {number}, {short}, {name}"):
                made = make(
                    number,
                    subject,
                    self._material[name],
                    self._asked.figure_options,
                    model=cells[0].model,
                    task=name,
                )
            self._done.figures.append(made)
        except Exception as error:
            self._done.unmade[f"Figure {number}, {short}, {name}"] = reason_for(error)

    def _texts_of(
        self, model: LocatedModel, name: str
    ) -> tuple[AbsTask, list[str], Judgments | None]:
        """Return a task, its texts without empty ones, and its judgments if it has any."""
        from lcbench.hub.contents import DataError, documents_in, refuse
        from lcbench.hub.contents import load as load_data
        from lcbench.hub.judgments import judgments_in

        part = self._grid.parts[name].at(model.shape.window)
        if name not in self._texts or part.source.depends_on_window(name):
            with self._observer.doing(f"loading the texts of {name}"):
                task = part.source.make(part)
                checks.find_data([task] if part.source.origin is None else [], self._options.mirror)
                try:
                    wrong = [one for one in load_data(task) if not one.is_tolerable]
                    if wrong and not self._options.unverified_data:
                        raise refuse(wrong)
                    texts = documents_in(task)
                    judgments = judgments_in(task)
                except DataError as error:
                    raise RequestError(str(error)) from error
                whole = [text for text in texts if text.strip()]
                if self._asked.figures:
                    self._material[name] = material_of(task, whole, part.splits)
                task.unload_data()
            if len(whole) < len(texts):
                self._observer.say(
                    f"{name}: {len(texts) - len(whole)} empty texts are left out", dim=True
                )
            self._texts[name] = task, whole, judgments
        return self._texts[name]

    def _on_progress(self, texts: int, tokens: int) -> None:
        self._encoded += texts

    def _copy(self, model: LocatedModel, loaded: SentenceTransformer) -> SentenceTransformer:
        """Return a model of its own to look into: the engine's runs at temperatures of its own."""
        from lcbench.encode.load import load

        if self._copied is None or self._copied[0] != model:
            dtype = arithmetic.weights_dtype(self._dtype)
            asked = self._options.engine.attention
            plain = asked if asked in ("eager", "sdpa") else None
            copy = load(model, device=str(loaded.device), dtype=dtype, attention=plain)
            self._copied = model, copy
        return self._copied[1]

    @contextmanager
    def _looking(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        self._encoded, began = 0, time.monotonic()

        def count() -> None:
            self._encoded += 1

        def line() -> str:
            return (
                f"{what}: {self._encoded:,} of {total:,} texts … {clock(time.monotonic() - began)}"
            )

        with self._observer.live(line):
            yield count

    def _encoding(self, what: str, total: int) -> Any:
        self._encoded, began = 0, time.monotonic()
        return self._observer.live(
            lambda: (
                f"{what}: {self._encoded:,} of {total:,} texts encoded … "
                f"{clock(time.monotonic() - began)}"
            )
        )
